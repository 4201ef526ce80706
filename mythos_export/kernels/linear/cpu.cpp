// A linear layer on CPU: tasks are ranges of its outputs.
#include <vector>

#include "cpu/ops.h"
#include "cpu/tasks.h"

namespace mythos {

void linear(const Kernels& kernels, const Parallel& parallel, const Linear& op) {
  if (op.n == 0) return;
  std::vector<const float*> x(op.n);
  for (size_t i = 0; i < op.n; ++i) x[i] = op.x + i * op.K;
  const Format format = op.weights.format;
  const size_t size = task_rows(format, op.weights.row_bytes, op.n * op.K, op.rows, op.n > 1 ? 48 : 0);
  const size_t block = token_block(op.K);
  parallel.each(ceil_div(op.rows, size), op.n * op.K * op.rows, [&](size_t i) {
    const size_t first = i * size, count = op.rows - first < size ? op.rows - first : size;
    for (size_t t = 0; t < op.n; t += block) {
      const size_t m = op.n - t < block ? op.n - t : block;
      kernels.nt[format](&x[t], m, op.weights.row(first), count, op.K, op.y + t * op.rows + first, op.rows);
    }
  });
}

}  // namespace mythos
