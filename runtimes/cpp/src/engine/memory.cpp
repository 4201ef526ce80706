#include "engine/memory.hpp"

#include "ports.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

const CacheGroup* group_of(const LoopSpec& spec, bool per_loop) {
  for (const CacheGroup& group : spec.caches)
    if (group.per_loop == per_loop) return &group;
  return nullptr;
}

std::unique_ptr<PagedCache> cache_of(const CacheGroup& group, std::int64_t pages, const MakeLines& make) {
  return std::make_unique<PagedCache>(group.slots, pages, group.page_width(), group.page_dtype(), make);
}

}  // namespace

Room Room::of(std::int64_t sequences, std::int64_t positions, std::int64_t loops, std::optional<std::int64_t> lagging) {
  const std::int64_t blocks = sequences * ((positions + kPage - 1) / kPage);
  return {blocks, blocks * loops, sequences * std::min(positions, lagging.value_or(positions))};
}

Memory Memory::with_room(const LoopSpec& spec, const Room& room, const MakeLines& make, std::unique_ptr<States> states) {
  const CacheGroup* outside = group_of(spec, false);
  return {outside ? cache_of(*outside, room.around, make) : nullptr, cache_of(*group_of(spec, true), room.loop, make),
          states ? std::move(states) : std::make_unique<States>(spec, room.lines)};
}

std::int64_t Memory::page_bytes(const LoopSpec& spec, std::int64_t loops) {
  std::int64_t position = 0;
  bool fits = true;
  for (const CacheGroup& group : spec.caches) {  // its lines, at every depth
    auto bytes = static_cast<std::int64_t>(dtype_size(group.page_dtype()));
    for (const std::int64_t factor : {group.slots, group.page_width(), group.per_loop ? loops : 1})
      fits = fits && !__builtin_mul_overflow(bytes, factor, &bytes);
    fits = fits && !__builtin_add_overflow(position, bytes, &position);
  }
  std::int64_t page = 0;
  if (!fits || __builtin_mul_overflow(position, kPage, &page))
    throw CapacityError("a page of the caches is larger than any memory");
  return page;
}

Memory Memory::of(const LoopSpec& spec, std::int64_t size, std::int64_t loops, std::int64_t lagging) {
  return with_room(spec, room(spec, size, loops, lagging));
}

Room Memory::room(const LoopSpec& spec, std::int64_t size, std::int64_t loops, std::int64_t lagging) {
  if (loops < 1 || loops > kMostLoops)
    throw RequestError("an engine runs 1 to " + std::to_string(kMostLoops) + " loops, found " + std::to_string(loops));
  const std::int64_t cached = page_bytes(spec, loops), state = States::line_bytes(spec);
  std::int64_t page = 0;
  if (__builtin_mul_overflow(state, kPage, &page) || __builtin_add_overflow(page, cached, &page))
    throw CapacityError("the states of a page of positions are larger than any memory");
  std::int64_t pages = size / page;
  if (pages < 1)
    throw CapacityError(std::to_string(size) + " bytes hold no page of " + std::to_string(kPage) +
                        " positions, which take " + std::to_string(page) + " at " + std::to_string(loops) + " loops");
  if (pages * kPage > lagging) pages = (size - lagging * state) / cached;  // the others need no state
  return {pages, pages * loops, std::min(pages * kPage, lagging)};
}

void Memory::grow(const Room& room) {
  if (around) around->grow(room.around);
  loop->grow(room.loop);
  states->grow(room.lines);
}

std::int64_t Memory::nbytes() const { return (around ? around->nbytes() : 0) + loop->nbytes() + states->nbytes(); }

}  // namespace mythos::engine
