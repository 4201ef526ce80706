// What MLA and GQA share: which keys a block of queries may see, how the work is cut, and the online softmax over them.
//
// The work is a list of blocks (the queries of some tokens of one batch row and, in GQA, one kv head). The keys of a
// block are cut into spans where there are too few blocks to fill the threads (decode); each span gives a partial
// result with its own maximum and sum, and `merge` adds the spans of a block, always in their order. The cuts depend on
// sizes alone, never on the number of threads, so neither do the results.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/ops.h"

namespace mythos {

// The queries of `tokens` tokens, and the spans their keys were cut into.
struct Block {
  size_t batch, group;
  size_t first_token, tokens;
  size_t first_span, spans;
};

// Keys first .. last-1 of a batch row, counted through its past and then its chunk.
struct Span {
  size_t block;
  size_t first_key, last_key;
};

struct Schedule {
  std::vector<Block> blocks;
  std::vector<Span> spans;
  size_t rows_per_token;
  size_t rows;      // queries of the largest block
  size_t products;  // multiplications of all spans
};

// `groups` blocks for each piece of a batch row's tokens, with rows_per_token queries a token; pieces without a real
// token get no span. `products_per_pair`: multiplications for one query and one key. Checks the values of the index
// tensors.
Schedule schedule(const Cache& cache, size_t groups, size_t rows_per_token, size_t products_per_pair);

// Throws std::invalid_argument where layer or past_lengths are outside of the cache.
void check_cache(const Cache& cache);

// The cache of one batch row: columns from `key_column` are keys, from `value_column` values.
class Keys {
 public:
  Keys(const Cache& cache, size_t batch, size_t key_column, size_t value_column);

  size_t count() const { return past_count_ + chunk_count_; }

  struct Run {
    Weights keys, values;
    size_t count;              // at most kKeyBlock
    const int64_t* positions;  // of the keys; null: whoever asks may see them
  };
  // Calls f(Run) for the keys first..last-1 in order, without the padding of the chunk.
  template <class F>
  void each_run(size_t first, size_t last, F&& f) const {
    for (size_t k = first; k < last;) {
      Run run{};
      if (k < past_count_) {
        run = {past_.column(key_column_).row(k), past_.column(value_column_).row(k), past_count_ - k, nullptr};
      } else {
        const size_t c = k - past_count_;
        if (positions_[c] < 0) {
          ++k;
          continue;
        }
        run = {chunk_.column(key_column_).row(c), chunk_.column(value_column_).row(c), 1, positions_ + c};
        while (c + run.count < chunk_count_ && positions_[c + run.count] >= 0) ++run.count;
      }
      if (run.count > last - k) run.count = last - k;
      if (run.count > kKeyBlock) run.count = kKeyBlock;
      f(static_cast<const Run&>(run));
      k += run.count;
    }
  }

 private:
  Weights past_, chunk_;
  size_t past_count_, chunk_count_, key_column_, value_column_;
  const int64_t* positions_;
};

// Queries that are attended together, and what was summed over the keys so far.
struct Queries {
  const float* const* rows;  // [count][depth]
  const int64_t* positions;  // [count], -1: padding
  size_t count, depth;
  float* sum;   // [count, width] of exp(score - max) * value
  float* max;   // [count]
  float* norm;  // [count] of exp(score - max)
  size_t width;

  void clear() const;
};

// Room for the scores of `count` queries and one run of keys.
size_t score_floats(size_t count);

// One run of keys for all queries.
void attend(const Kernels& kernels, const Queries& queries, const Keys::Run& run, float scale, float* scores);

// out = the block's result for row `row` from its spans' partial sums [spans, rows, width], max and norm [spans, rows].
void merge(const Kernels& kernels, const Schedule& plan, const Block& block, size_t row, const float* sum,
           const float* max, const float* norm, size_t width, float* out);

}  // namespace mythos
