#include "cache.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace mythos {

Cache::Cache(std::int64_t batch, std::int64_t capacity, const RuntimeConfig& config,
             std::optional<std::int64_t> max_loops)
    : buffers_(std::make_unique<Buffers>()) {
  const std::int64_t loops = max_loops.value_or(config.max_loop_iters);
  const auto check = [](const char* name, std::int64_t value, std::int64_t least) {
    if (value < least)
      throw RequestError("a cache's " + std::string(name) + " should be an integer of at least " +
                         std::to_string(least) + ", found " + std::to_string(value));
  };
  check("batch", batch, 1);
  check("capacity", capacity, 1);
  check("max_loops", loops, 0);
  if (capacity > config.max_seq_len)
    throw CapacityError("a capacity of " + std::to_string(capacity) + " tokens exceeds the " +
                        std::to_string(config.max_seq_len) + " that this model takes (max_seq_len)");
  Buffers& b = *buffers_;
  b.config = config;
  b.batch = batch, b.capacity = capacity, b.max_loops = loops;
  b.depths = std::max<std::int64_t>(loops, 1);  // the graph reads the slice of the last depth even where none ran
  b.element = dtype_size(config.cache_dtype);
  const auto allocate = [&](std::int64_t slices) {
    std::size_t count = 0;  // of elements
    const bool fits = !__builtin_mul_overflow(slices, batch, &count) && !__builtin_mul_overflow(count, capacity, &count) &&
                      !__builtin_mul_overflow(count, config.cache_width, &count) && count < SIZE_MAX / 16;
    // Zeros, not garbage: a masked NaN would still poison softmax * values. calloc touches no page before its use.
    Buffers::Memory memory(fits ? static_cast<char*>(std::calloc(std::max<std::size_t>(count, 1), b.element)) : nullptr);
    if (!memory) {
      char size[40];
      std::snprintf(size, sizeof size, "%.1f GiB",
                    (static_cast<double>(config.layers) + static_cast<double>(b.depths)) * static_cast<double>(batch) *
                        static_cast<double>(capacity) * static_cast<double>(config.cache_width) *
                        static_cast<double>(b.element) / (1 << 30));
      throw CapacityError("a cache for " + std::to_string(batch) + " x " + std::to_string(capacity) + " tokens at " +
                          std::to_string(b.depths) + " loop depths needs " + size +
                          ", which this machine does not give (out of memory); ask for less capacity, fewer rows or "
                          "fewer max_loops");
    }
    return memory;
  };
  b.layers = allocate(config.layers);
  b.loop = allocate(b.depths);
  b.lengths.assign(static_cast<std::size_t>(batch), 0);
}

Cache::~Cache() = default;
Cache::Cache(Cache&&) noexcept = default;
Cache& Cache::operator=(Cache&&) noexcept = default;

std::int64_t Cache::batch() const { return buffers_->batch; }
std::int64_t Cache::capacity() const { return buffers_->capacity; }
std::int64_t Cache::max_loops() const { return buffers_->max_loops; }
const std::vector<std::int64_t>& Cache::lengths() const { return buffers_->lengths; }
bool Cache::exact() const { return buffers_->exact; }

std::size_t Cache::nbytes() const {
  const Buffers& b = *buffers_;
  return static_cast<std::size_t>((b.config.layers + b.depths) * b.batch * b.capacity) * b.slot();
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
  Cache copy(static_cast<std::int64_t>(chosen.size()), from.capacity, from.config, from.max_loops);
  Buffers& to = *copy.buffers_;
  const std::size_t row_bytes = static_cast<std::size_t>(from.capacity) * from.slot();
  const auto copy_rows = [&](const char* source, char* target, std::int64_t slices) {
    for (std::int64_t slice = 0; slice < slices; ++slice)
      for (std::size_t row = 0; row < chosen.size(); ++row)
        std::memcpy(target + (static_cast<std::size_t>(slice) * chosen.size() + row) * row_bytes,
                    source + static_cast<std::size_t>(slice * from.batch + chosen[row]) * row_bytes,
                    static_cast<std::size_t>(from.lengths[static_cast<std::size_t>(chosen[row])]) * from.slot());
  };
  copy_rows(from.layers.get(), to.layers.get(), from.config.layers);
  copy_rows(from.loop.get(), to.loop.get(), from.depths);
  for (std::size_t row = 0; row < chosen.size(); ++row) to.lengths[row] = from.lengths[static_cast<std::size_t>(chosen[row])];
  to.exact = from.exact;
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
  const bool empty = std::all_of(lengths.begin(), lengths.end(), [](std::int64_t n) { return n == 0; });
  b.exact = b.exact || empty;  // nothing approximate is left in an empty cache
}

void Cache::reset() { truncate(std::vector<std::int64_t>(buffers_->lengths.size(), 0)); }

void Cache::Buffers::check_room(const std::vector<std::int64_t>& counts) const {
  for (std::size_t row = 0; row < counts.size(); ++row)
    if (lengths[row] + counts[row] > capacity)
      throw CapacityError("row " + std::to_string(row) + " of the cache holds " + std::to_string(lengths[row]) +
                          " tokens and cannot take " + std::to_string(counts[row]) + " more: it has room for " +
                          std::to_string(capacity) + " (" +
                          (capacity == config.max_seq_len ? "also the model's max_seq_len" : "its capacity") +
                          "); truncate it, or make a larger one with new_cache");
}

void Cache::Buffers::append(const void* new_layers, const void* new_loop, const Tokens& tokens) {
  const auto rows = static_cast<std::size_t>(batch), width = static_cast<std::size_t>(tokens.tokens);
  const auto write = [&](const void* source, char* target, std::size_t slices) {
    const char* from = static_cast<const char*>(source);
    for (std::size_t slice = 0; slice < slices; ++slice)
      for (std::size_t row = 0; row < rows; ++row) {
        const std::size_t start = (slice * rows + row) * static_cast<std::size_t>(capacity);
        char* to = target + (start + static_cast<std::size_t>(lengths[row])) * slot();
        for (std::size_t t = 0; t < width; ++t)
          if (tokens.valid[row * width + t]) {
            std::memcpy(to, from + ((slice * rows + row) * width + t) * slot(), slot());
            to += slot();
          }
      }
  };
  write(new_layers, layers.get(), static_cast<std::size_t>(config.layers));
  write(new_loop, loop.get(), static_cast<std::size_t>(depths));
  for (std::size_t i = 0; i < tokens.valid.size(); ++i) lengths[i / width] += tokens.valid[i] != 0;
}

}  // namespace mythos
