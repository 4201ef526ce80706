// How an engine's memory is dealt: to pages of the caches, and to the states of positions that lag (memory.py).
//
// A state is much larger than what a position caches at one depth, and only positions that have not run every depth have
// one. So states are a pool of their own, for as many positions as may lag at a time; the rest of the memory is pages.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>

#include "engine/states.hpp"
#include "row_ports.hpp"

namespace mythos::engine {

// Of counts, none below 0: what no integer holds is the largest one, which no memory holds.
inline std::int64_t saturated_sum(std::int64_t one, std::int64_t other) {
  std::int64_t sum = 0;
  return __builtin_add_overflow(one, other, &sum) ? std::numeric_limits<std::int64_t>::max() : sum;
}
inline std::int64_t saturated_product(std::int64_t one, std::int64_t other) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(one, other, &product) ? std::numeric_limits<std::int64_t>::max() : product;
}

// Pages around the loop and inside, and lines of state.
struct Room {
  std::int64_t around = 0, loop = 0, lines = 0;

  // What so many sequences of so many positions, each at every depth, may need. `lagging`: the most positions of a sequence
  // that have a state at a time; none: all of them.
  static Room of(std::int64_t sequences, std::int64_t positions, std::int64_t loops, std::optional<std::int64_t> lagging = {});

  Room operator+(const Room& other) const { return {around + other.around, loop + other.loop, lines + other.lines}; }
  Room operator-(const Room& other) const { return {around - other.around, loop - other.loop, lines - other.lines}; }
};

// What an engine over a model allocates. The system gives it as it is touched.
struct Memory {
  std::unique_ptr<PagedCache> around, loop;  // the caches; around is null where the model has no layers there
  std::unique_ptr<States> states;            // of positions that lag

  // `make`: of what pages lie in. `states`: where they do not lie on the host.
  static Memory with_room(const LoopSpec& spec, const Room& room, const MakeLines& make = host_lines,
                          std::unique_ptr<States> states = nullptr);
  // Room for as many positions, each at every depth, as `size` bytes hold beside the states of those that lag. `loops`: the
  // most that a request may ask for. `lagging`: the most positions, of all sequences together, that have a state at a time.
  // RequestError: the row graphs do not take so many loops. CapacityError: not even one page fits.
  static Room room(const LoopSpec& spec, std::int64_t size, std::int64_t loops, std::int64_t lagging);
  // On the host, with `room`, whose errors it throws.
  static Memory of(const LoopSpec& spec, std::int64_t size, std::int64_t loops, std::int64_t lagging);
  // Bytes that one page of positions takes in the caches.
  static std::int64_t page_bytes(const LoopSpec& spec, std::int64_t loops);

  // Have at least so much (CapacityError). Memory moves: see PagedCache::grow.
  void grow(const Room& room);

  // Positions of the longest sequence that there are pages for, at one loop.
  std::int64_t longest() const { return kPage * (around ? around : loop)->pages(); }
  std::int64_t nbytes() const;  // all of it, touched or not
};

}  // namespace mythos::engine
