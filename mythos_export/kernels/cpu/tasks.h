// How a product with weights is cut: into tasks by rows of weights, and within a task into blocks of tokens.
#pragma once
#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace mythos {

constexpr size_t kTaskProducts = 1 << 22;  // about 0.1 ms of one core
constexpr size_t kEnoughTasks = 16;

// How many of `rows` rows of weights a task takes, each of row_bytes and row_products. Few tokens: kTaskBytes of
// weights. Many: kTaskProducts, for the kernels ask for memory ahead, and at a task's end that is another task's; but
// never so many that threads would wait for the last. A multiple of `tile`, or of what one token's product takes at
// once where that is 0, in whole tiles of the format.
inline size_t task_rows(Format format, size_t row_bytes, size_t row_products, size_t rows, size_t tile) {
  const size_t whole = format_of(format).tile, at_once = whole > 1 ? 4 * whole : 8;
  const size_t bytes = ceil_div(kTaskBytes, row_bytes + 1), worth = kTaskProducts / (row_products + 1);
  const size_t most = rows / kEnoughTasks, wanted = worth < most ? worth : most;
  const size_t size = worth < bytes || wanted > bytes ? wanted : bytes;
  return round_up(size ? size : 1, round_up(tile ? tile : at_once, whole));
}

// How many rows of activations of row_floats stay in the second-level cache while a task's weights pass.
inline size_t token_block(size_t row_floats) {
  const size_t at_once = row_floats > kDeep ? kDepthAtOnce : row_floats;
  const size_t fit = kCachedBytes / (at_once * sizeof(float) + 1);
  return fit < 12 ? 12 : fit / 12 * 12;  // a multiple of every kernel's tile height, or close to one
}

}  // namespace mythos
