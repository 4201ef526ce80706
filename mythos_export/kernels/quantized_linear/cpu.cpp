// A linear layer on CPU: tasks are ranges of its outputs, each of about kTaskBytes of weights.
#include <vector>

#include "cpu/ops.h"

namespace mythos {

void linear(const Kernels& kernels, const Parallel& parallel, const Linear& op) {
  if (op.n == 0) return;
  std::vector<const float*> x(op.n);
  for (size_t i = 0; i < op.n; ++i) x[i] = op.x + i * op.K;
  const size_t tile = 4 * format_of(op.weights.format).row_tile;
  const size_t size = round_up(ceil_div(kTaskBytes, op.weights.row_bytes + 1), tile);
  parallel.each(ceil_div(op.rows, size), op.n * op.K * op.rows, [&](size_t i) {
    const size_t first = i * size, count = op.rows - first < size ? op.rows - first : size;
    kernels.nt[op.weights.format](x.data(), op.n, op.weights.row(first), count, op.K, op.y + first, op.rows);
  });
}

}  // namespace mythos
