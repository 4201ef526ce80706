// A linear layer on CPU: tasks are ranges of its outputs.
#include <vector>

#include "cpu/ops.h"
#include "cpu/rounded.h"
#include "cpu/rows_apart.h"
#include "cpu/tasks.h"

namespace mythos {
namespace {

// product(t, m, weights, rows, y): tokens t to t + m times some rows of the weights.
template <class F>
void in_tasks(const Parallel& parallel, const Linear& op, size_t block, F&& product) {
  const size_t size = task_rows(op.weights.format, op.weights.row_bytes, op.n * op.K, op.rows, op.n > 1 ? 48 : 0);
  parallel.each(ceil_div(op.rows, size), op.n * op.K * op.rows, [&](size_t i) {
    const size_t first = i * size, count = op.rows - first < size ? op.rows - first : size;
    for (size_t t = 0; t < op.n; t += block) {
      product(t, op.n - t < block ? op.n - t : block, op.weights.row(first), count, op.y + t * op.rows + first);
    }
  });
}

void rounded(const Kernels& kernels, const Parallel& parallel, const Linear& op) {
  const RoundedRows x(kernels, op.weights.format, op.n, op.K);
  std::vector<RoundedRow> rows(op.n);
  parallel.each(op.n, op.n * op.K, [&](size_t i) {
    x.round(i, 0, op.x + i * op.K, op.K);
    rows[i] = x.row(i);
  });
  in_tasks(parallel, op, token_block(op.K / sizeof(float)),
           [&](size_t t, size_t m, const Weights& w, size_t count, float* y) {
             kernels.nt_rounded[w.format](&rows[t], m, w, count, op.K, y, op.rows);
           });
}

}  // namespace

void linear(const Kernels& kernels, const Parallel& parallel, const Linear& op) {
  if (op.n == 0) return;
  if (op.rounded) return rounded(kernels, parallel, op);
  const RowsApart x(parallel, op.x, op.n, op.K);
  in_tasks(parallel, op, token_block(op.K), [&](size_t t, size_t m, const Weights& w, size_t count, float* y) {
    kernels.nt[w.format](x.get() + t, m, w, count, op.K, y, op.rows);
  });
}

}  // namespace mythos
