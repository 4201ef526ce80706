#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace mythos {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr size_t kBlockRows = 48;          // queries of a block: their sums stay in the cache
constexpr size_t kSpanProducts = 1 << 19;  // about 20 microseconds of one core
constexpr size_t kEnoughBlocks = 32;

}  // namespace

void check_cache(const Cache& cache) {
  if (cache.S > 0 && (cache.layer < 0 || cache.layer >= static_cast<int64_t>(cache.L))) {
    throw std::invalid_argument("layer is " + std::to_string(cache.layer) + "; past has layers 0 to " +
                                std::to_string(static_cast<int64_t>(cache.L) - 1));
  }
  for (size_t b = 0; b < cache.B; ++b) {
    const int64_t length = cache.past_lengths[b];
    if (length < 0 || length > static_cast<int64_t>(cache.S)) {
      throw std::invalid_argument("past_lengths[" + std::to_string(b) + "] is " + std::to_string(length) +
                                  "; the past holds 0 to " + std::to_string(cache.S) + " entries");
    }
  }
}

Schedule schedule(const Cache& cache, size_t groups, size_t rows_per_token, size_t products_per_pair) {
  check_cache(cache);
  Schedule plan{{}, {}, rows_per_token, 0, 0};
  const size_t most = kBlockRows > rows_per_token ? kBlockRows / rows_per_token : 1;
  const size_t pieces = ceil_div(cache.T, most), size = pieces ? ceil_div(cache.T, pieces) : 0;
  const bool cut = cache.B * groups * pieces < kEnoughBlocks;
  for (size_t b = 0; b < cache.B; ++b) {
    const size_t keys = static_cast<size_t>(cache.past_lengths[b]) + cache.T;
    for (size_t g = 0; g < groups; ++g) {
      for (size_t t = 0; t < cache.T; t += size) {
        Block block{b, g, t, cache.T - t < size ? cache.T - t : size, plan.spans.size(), 0};
        bool real = false;
        for (size_t i = 0; i < block.tokens; ++i) real |= cache.positions[b * cache.T + t + i] >= 0;
        if (real) {
          const size_t products = keys * block.tokens * rows_per_token * products_per_pair;
          size_t spans = cut ? ceil_div(products, kSpanProducts) : 1;
          if (spans > ceil_div(keys, kKeyBlock)) spans = ceil_div(keys, kKeyBlock);
          const size_t step = round_up(ceil_div(keys, spans), kKeyBlock);
          for (size_t k = 0; k < keys; k += step) {
            plan.spans.push_back({plan.blocks.size(), k, keys - k < step ? keys : k + step});
          }
          block.spans = plan.spans.size() - block.first_span;
          plan.products += products;
        }
        if (block.tokens * rows_per_token > plan.rows) plan.rows = block.tokens * rows_per_token;
        plan.blocks.push_back(block);
      }
    }
  }
  return plan;
}

Keys::Keys(const Cache& cache, size_t batch, size_t key_column, size_t value_column)
    : chunk_(cache.chunk.row(batch * cache.T)),
      past_count_(static_cast<size_t>(cache.past_lengths[batch])),
      chunk_count_(cache.T),
      key_column_(key_column),
      value_column_(value_column),
      positions_(cache.positions + batch * cache.T) {
  if (past_count_) past_ = cache.past.row((static_cast<size_t>(cache.layer) * cache.B + batch) * cache.S);
}

void Queries::clear() const {
  for (size_t i = 0; i < count; ++i) {
    max[i] = kNone;
    norm[i] = 0;
  }
  for (size_t i = 0; i < count * width; ++i) sum[i] = 0;
}

size_t score_floats(size_t count) { return count * (kKeyBlock + 1); }

void attend(const Kernels& kernels, const Queries& queries, const Keys::Run& run, float scale, float* scores) {
  size_t keys = run.count;
  bool all_see_all = true;
  if (run.positions) {
    int64_t newest_query = -1, oldest_query = std::numeric_limits<int64_t>::max(), newest_key = -1;
    for (size_t i = 0; i < queries.count; ++i) {
      newest_query = std::max(newest_query, queries.positions[i]);
      oldest_query = std::min(oldest_query, queries.positions[i]);
    }
    while (keys && run.positions[keys - 1] > newest_query) --keys;  // in a chunk, half of the pairs are not allowed
    if (!keys) return;
    for (size_t j = 0; j < keys; ++j) newest_key = std::max(newest_key, run.positions[j]);
    all_see_all = newest_key <= oldest_query;
  }
  kernels.nt[run.keys.format](queries.rows, queries.count, run.keys, keys, queries.depth, scores, kKeyBlock);
  if (!all_see_all) {
    for (size_t i = 0; i < queries.count; ++i) {
      for (size_t j = 0; j < keys; ++j) {
        if (run.positions[j] > queries.positions[i]) scores[i * kKeyBlock + j] = kNone;
      }
    }
  }
  float* const keep = scores + queries.count * kKeyBlock;
  kernels.softmax_block(scores, queries.count, keys, scale, queries.max, queries.norm, keep);
  kernels.nn[run.values.format](scores, kKeyBlock, queries.count, run.values, queries.width, keys, queries.sum,
                                queries.width, keep);
}

void merge(const Kernels& kernels, const Schedule& plan, const Block& block, size_t row, const float* sum,
           const float* max, const float* norm, size_t width, float* out) {
  float top = kNone;
  for (size_t s = block.first_span; s < block.first_span + block.spans; ++s) {
    const float m = max[s * plan.rows + row];
    top = m > top ? m : top;
  }
  float total = 0;
  for (size_t s = block.first_span, i = 0; i < block.spans; ++s, ++i) {
    const float share = std::exp(max[s * plan.rows + row] - top);
    total += norm[s * plan.rows + row] * share;
    (i == 0 ? kernels.scale : kernels.axpy)(share, sum + (s * plan.rows + row) * width, out, width);
  }
  kernels.scale(1.0f / total, out, out, width);
}

}  // namespace mythos
