#include "cache.hpp"

#include "guards.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace mythos {

CapacityError no_memory(const LoopSpec& spec, std::int64_t batch, std::int64_t capacity, std::int64_t depths, bool paged) {
  double total = 0;
  for (const CacheGroup& group : spec.caches) {
    const auto width = static_cast<double>(paged ? group.page_width() : group.width);
    total += static_cast<double>(group.slots) * static_cast<double>(group.per_loop ? depths : 1) *
             static_cast<double>(batch) * static_cast<double>(capacity) * width *
             static_cast<double>(dtype_size(paged ? group.page_dtype() : group.dtype));
  }
  char size[40];
  std::snprintf(size, sizeof size, "%.1f GiB", total / (1 << 30));
  return CapacityError("a cache for " + std::to_string(batch) + " x " + std::to_string(capacity) + " tokens at " +
                       std::to_string(depths) + " loop depths needs " + size +
                       ", which this machine does not give (out of memory); ask for less capacity, fewer rows or "
                       "fewer max_loops");
}

std::unique_ptr<Cache::Buffers> Cache::Buffers::of(std::int64_t batch, std::int64_t capacity,
                                                   std::shared_ptr<const LoopSpec> spec, std::optional<std::int64_t> max_loops) {
  const std::int64_t loops = max_loops.value_or(spec->trained_loops);
  const auto check = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      throw RequestError("a cache's " + std::string(name) + " should be an integer of at least " +
                         std::to_string(least) + ", found " + std::to_string(value));
  };
  check("batch", batch, 1);
  check("capacity", capacity, 1);
  check("max_loops", loops, 0);
  if (capacity > spec->max_seq_len)
    throw CapacityError("a capacity of " + std::to_string(capacity) + " tokens exceeds the " +
                        std::to_string(spec->max_seq_len) + " that this model takes (max_seq_len)");
  auto made = std::make_unique<Buffers>();
  made->spec = std::move(spec);
  made->batch = batch, made->capacity = capacity, made->max_loops = loops;
  return made;
}

Cache::Cache(std::unique_ptr<Buffers> buffers) : buffers_(std::move(buffers)) {}

Cache::Cache(std::int64_t batch, std::int64_t capacity, std::shared_ptr<const LoopSpec> spec,
             std::optional<std::int64_t> max_loops)
    : buffers_(Buffers::of(batch, capacity, std::move(spec), max_loops)) {
  Buffers& b = *buffers_;
  const std::int64_t depths = std::max<std::int64_t>(b.max_loops, 1);  // one depth is there even where no loop runs
  for (const CacheGroup& group : b.spec->caches) {
    std::size_t lines = 0, count = 0;  // of elements
    const std::size_t element = dtype_size(group.dtype);
    const bool fits = !__builtin_mul_overflow(group.slots, group.per_loop ? depths : 1, &lines) &&
                      !__builtin_mul_overflow(lines, batch, &count) && !__builtin_mul_overflow(count, capacity, &count) &&
                      !__builtin_mul_overflow(count, group.width, &count) && count < SIZE_MAX / 16;
    // Zeros, not garbage: a masked NaN would still poison softmax * values. calloc touches no page before its use.
    char* memory = fits ? static_cast<char*>(std::calloc(count, element)) : nullptr;
    if (!memory) throw no_memory(*b.spec, batch, capacity, depths);
    b.past.emplace_back();
    b.past.back().memory.reset(memory);
    b.past.back().lines = lines, b.past.back().entry = static_cast<std::size_t>(group.width) * element;
  }
  b.lengths.assign(static_cast<std::size_t>(batch), 0);
}

Cache::~Cache() = default;
Cache::Cache(Cache&&) noexcept = default;
Cache& Cache::operator=(Cache&&) noexcept = default;

std::int64_t Cache::batch() const { return buffers_->batch; }
std::int64_t Cache::capacity() const { return buffers_->capacity; }
std::int64_t Cache::max_loops() const { return buffers_->max_loops; }
const std::vector<std::int64_t>& Cache::lengths() const { return buffers_->lengths; }

std::size_t Cache::nbytes() const {
  if (buffers_->rows) return buffers_->rows->nbytes();
  std::size_t bytes = 0;
  for (const Buffers::Group& group : buffers_->past)
    bytes += group.lines * static_cast<std::size_t>(buffers_->batch * buffers_->capacity) * group.entry;
  return bytes;
}

Cache Cache::fork(const std::vector<std::int64_t>& rows) const {
  const Buffers& from = *buffers_;
  std::vector<std::int64_t> chosen = rows;
  if (rows.empty())
    for (std::int64_t row = 0; row < from.batch; ++row) chosen.push_back(row);
  for (const std::int64_t row : chosen)
    if (row < 0 || row >= from.batch)
      throw RequestError("the cache has rows 0 to " + std::to_string(from.batch - 1) + ", asked for " +
                         list_in_words(rows));
  if (from.rows) {
    auto twin = Buffers::of(static_cast<std::int64_t>(chosen.size()), from.capacity, from.spec, from.max_loops);
    twin->rows = from.rows->fork(chosen);
    for (const std::int64_t row : chosen) twin->lengths.push_back(from.lengths[static_cast<std::size_t>(row)]);
    return Cache(std::move(twin));
  }
  Cache copy(static_cast<std::int64_t>(chosen.size()), from.capacity, from.spec, from.max_loops);
  Buffers& to = *copy.buffers_;
  for (std::size_t group = 0; group < from.past.size(); ++group) {
    const Buffers::Group &source = from.past[group], &target = to.past[group];
    const std::size_t row_bytes = static_cast<std::size_t>(from.capacity) * source.entry;
    for (std::size_t line = 0; line < source.lines; ++line)
      for (std::size_t row = 0; row < chosen.size(); ++row) {
        const auto old = static_cast<std::size_t>(chosen[row]);
        std::memcpy(target.memory.get() + (line * chosen.size() + row) * row_bytes,
                    source.memory.get() + (line * static_cast<std::size_t>(from.batch) + old) * row_bytes,
                    static_cast<std::size_t>(from.lengths[old]) * source.entry);
      }
  }
  for (std::size_t row = 0; row < chosen.size(); ++row) to.lengths[row] = from.lengths[static_cast<std::size_t>(chosen[row])];
  return copy;
}

void Cache::truncate(const std::vector<std::int64_t>& lengths) {
  Buffers& b = *buffers_;
  if (lengths.size() != b.lengths.size())
    throw RequestError("truncate takes an integer or " + std::to_string(b.batch) + " of them, one per row, found " +
                       list_in_words(lengths));
  for (std::size_t row = 0; row < lengths.size(); ++row)
    if (lengths[row] < 0 || lengths[row] > b.lengths[row])
      throw RequestError("row " + std::to_string(row) + " holds " + std::to_string(b.lengths[row]) +
                         " tokens and cannot be truncated to " + std::to_string(lengths[row]));
  b.lengths = lengths;
  for (std::size_t row = 0; b.rows && row < lengths.size(); ++row) b.rows->truncate(row, lengths[row]);
}

std::vector<char> Cache::read(std::int64_t row, std::int64_t loop) {
  engine::RowCache& rows = buffers_->rows_of(row);
  if (loop < kAround || loop >= buffers_->max_loops)
    throw RequestError("the cache has the loops 0 to " + std::to_string(buffers_->max_loops - 1) + ", asked for " + std::to_string(loop));
  const Using alone(buffers_.get());
  return rows.read(static_cast<std::size_t>(row), loop);
}

void Cache::write(std::int64_t row, std::int64_t length, const std::vector<char>& around, const std::vector<char>& loops) {
  engine::RowCache& rows = buffers_->rows_of(row);
  if (length < 0 || length > buffers_->capacity)
    throw CapacityError("a row of the cache takes " + std::to_string(buffers_->capacity) + " tokens, found " + std::to_string(length));
  const Using alone(buffers_.get());
  rows.write(static_cast<std::size_t>(row), length, around, loops);
  buffers_->lengths[static_cast<std::size_t>(row)] = length;
}

engine::RowCache& Cache::Buffers::rows_of(std::int64_t row) const {
  if (!rows) throw RequestError("the cache is of a model that is one graph, and has no pages");
  if (row < 0 || row >= batch)
    throw RequestError("the cache has rows 0 to " + std::to_string(batch - 1) + ", asked for " + std::to_string(row));
  return *rows;
}

void Cache::reset() { truncate(std::vector<std::int64_t>(buffers_->lengths.size(), 0)); }

void Cache::Buffers::check_room(const std::vector<std::int64_t>& counts) const {
  for (std::size_t row = 0; row < counts.size(); ++row)
    if (lengths[row] + counts[row] > capacity)
      throw CapacityError("row " + std::to_string(row) + " of the cache holds " + std::to_string(lengths[row]) +
                          " tokens and cannot take " + std::to_string(counts[row]) + " more: it has room for " +
                          std::to_string(capacity) + " (" +
                          (capacity == spec->max_seq_len ? "also the model's max_seq_len" : "its capacity") +
                          "); truncate it, or make a larger one with new_cache");
}

void Cache::Buffers::append(const std::vector<const void*>& entries, const Tokens& tokens) {
  const auto rows = static_cast<std::size_t>(batch), width = static_cast<std::size_t>(tokens.tokens);
  for (std::size_t group = 0; group < past.size(); ++group) {
    const std::size_t entry = past[group].entry;
    const char* from = static_cast<const char*>(entries[group]);
    for (std::size_t line = 0; line < past[group].lines; ++line)
      for (std::size_t row = 0; row < rows; ++row) {
        const std::size_t start = (line * rows + row) * static_cast<std::size_t>(capacity);
        char* to = past[group].memory.get() + (start + static_cast<std::size_t>(lengths[row])) * entry;
        for (std::size_t t = 0; t < width; ++t)
          if (tokens.valid[row * width + t]) {
            std::memcpy(to, from + ((line * rows + row) * width + t) * entry, entry);
            to += entry;
          }
      }
  }
  for (std::size_t i = 0; i < tokens.valid.size(); ++i) lengths[i / width] += tokens.valid[i] != 0;
}

}  // namespace mythos
