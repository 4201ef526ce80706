#include "memory.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ports.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

void poison(const PagedCache& cache, std::int64_t page) {
  const std::size_t size = dtype_size(cache.dtype());
  const float wide = NAN;
  const std::uint16_t half = 0xFFFF;  // NaN in float16 and in bfloat16, which scales of int8 lines are
  for (std::int64_t slot = 0; slot < cache.slots(); ++slot)
    for (std::int64_t at = 0; at < cache.page_bytes(); at += static_cast<std::int64_t>(size))
      std::memcpy(cache.page(slot, page) + at, size == 4 ? static_cast<const void*>(&wide) : &half, size);
}

}  // namespace

std::unique_ptr<PagedCache> cache_of(const CacheGroup& group, std::int64_t pages, const MakeLines& make) {
  auto cache = std::make_unique<PagedCache>(group.slots, pages, group.page_width(), group.page_dtype(), make);
  for (std::int64_t page = 0; page < pages; ++page) poison(*cache, page);
  cache->freed = [memory = cache.get()](std::int64_t page) { poison(*memory, page); };
  return cache;
}

void poison(States& states, const LoopSpec& spec, std::int64_t line) {
  const auto fill = [&](const std::string& name) {
    const auto& array = states.array(name);
    auto* const values = reinterpret_cast<float*>(array.row(line));
    std::fill_n(values, array.row_bytes / static_cast<std::int64_t>(sizeof(float)), NAN);
  };
  for (const StateTensor& tensor : spec.state)
    if (tensor.dtype == "float32") fill(tensor.name);
  fill(kEncoded);
}

void fill_far(Core& core, Sequence& sequence, std::int64_t length) {
  const auto fill = [&](PagedCache& cache, Table& table, std::int64_t depth) {
    cache.extend(table, 0, kPage - 1);
    for (std::int64_t slot = 0; slot < cache.slots(); ++slot) {
      auto* const page = reinterpret_cast<float*>(cache.page(slot, table[0]));
      for (std::int64_t at = 0; at < kPage * cache.width(); ++at)
        page[at] = static_cast<float>((depth * 11 + slot * 29 + at * 7) % 31 - 15) / 16;
    }
    for (std::int64_t block = 1; block < length / kPage; ++block) {
      cache.hold(table[0]);
      table.push_back(table[0]);
    }
  };
  if (core.around) fill(*core.around, sequence.around, 0);
  for (std::size_t depth = 0; depth < sequence.loop.size(); ++depth)
    fill(*core.loop, sequence.loop[depth], static_cast<std::int64_t>(depth));
  sequence.length = sequence.answered = length;
  sequence.filled.assign(sequence.filled.size(), length);
}

}  // namespace mythos::engine
