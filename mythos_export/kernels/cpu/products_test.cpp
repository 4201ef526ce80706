// Random cases of the operators that multiply by weights, over every format.
#include "cpu/kernels_test.h"

namespace mythos::test {

void test_linear(const Kernels& k, Format f, const Parallel& parallel) {
  // Now and then so large that it is cut into several tasks, or so deep that the inputs of few rows are made ready in
  // pieces, those of many meet weights in parts, or rows are whole pages.
  const bool large = pick(0, 9) == 0, deep = !large && pick(0, 9) == 0;
  const size_t n = pick(0, 3) ? pick(0, 14) : 1;
  const size_t depths[] = {pick(500, 2300), pick(4090, 5300), 1024, 2048};
  const size_t K = large ? 500 : deep ? depths[pick(0, 3)] : pick(1, 300), rows = large ? 1100 : pick(1, deep ? 40 : 200);
  const auto x = normal(n * K);
  const Matrix w(k, f, rows, K, 1.0f);
  std::vector<float> y(n * rows, kNan), alone(rows);
  std::vector<double> expected(n * rows);
  linear(k, parallel, {n, K, rows, x.data(), w.view(), y.data()});
  for (size_t i = 0; i < n * rows; ++i) {
    for (size_t d = 0; d < K; ++d) expected[i] += double(x[i / rows * K + d]) * w.wide[i % rows * K + d];
  }
  const std::string name = "linear " + name_of(k, f) + shape({n, K, rows});
  expect_close(name, y, expected, std::sqrt(double(K)));
  for (size_t i = 0; i < n; ++i) {
    linear(k, parallel, {1, K, rows, &x[i * K], w.view(), alone.data()});
    if (!std::equal(alone.begin(), alone.end(), &y[i * rows]))
      fail(name + ": a row alone differs from the row among others");
  }
}

void test_embedding(const Kernels& k, Format f) {
  const size_t n = pick(0, 5), rows = pick(1, 60), dim = pick(1, 90);
  const Matrix w(k, f, rows, dim, 1.0f);
  std::vector<int64_t> ids(n);
  for (int64_t& id : ids) id = int64_t(pick(0, rows - 1));
  std::vector<float> y(n * dim, kNan), expected;
  embedding(k, {n, dim, rows, ids.data(), w.view(), y.data()});
  for (int64_t id : ids) expected.insert(expected.end(), &w.wide[size_t(id) * dim], &w.wide[size_t(id) * dim] + dim);
  if (y != expected) fail("embedding " + name_of(k, f) + shape({n, rows, dim}));
}

// Widths of a tiled format are whole tiles, as the exporter pads them; one matrix holds the experts' one behind the
// other.
void test_moe(const Kernels& k, Format f, const Parallel& parallel) {
  const bool large = pick(0, 9) == 0;  // in several tasks
  const size_t n = large ? 40 : pick(0, 20), D = large ? 230 : pick(1, 90), E = pick(1, 6), K = pick(1, E);
  const size_t tile = format_of(f).tile, down_rows = round_up(D, tile);
  const size_t F = round_up(large ? 300 : pick(1, 40), tile), Fs = round_up(pick(0, 1) * pick(0, 50), tile);
  const auto x = normal(n * D), weight = normal(n * K);
  const float s = 1.0f / std::sqrt(float(D));
  const Matrix gate_up(k, f, E * 2 * F, D, s), down(k, f, E * down_rows, F, 0.2f);
  const Matrix shared_gate_up(k, f, 2 * Fs, D, s), shared_down(k, f, D, Fs, 0.2f);
  std::vector<int64_t> index(n * K), order(E);
  for (size_t e = 0; e < E; ++e) order[e] = int64_t(e);
  for (size_t i = 0; i < n; ++i) {
    std::shuffle(order.begin(), order.end(), random_engine);
    std::copy_n(order.begin(), K, &index[i * K]);
  }
  std::vector<float> y(n * D, kNan);
  std::vector<double> expected(n * D);
  Moe op{n, D, E, K, F, Fs, x.data(), index.data(), weight.data(), gate_up.view(), down.view(), shared_gate_up.view(),
         shared_down.view(), y.data()};
  moe(k, parallel, op);
  std::vector<float> in_passes(n * D, kNan);
  op.y = in_passes.data(), op.most_hidden = pick(1, 3000);
  moe(k, parallel, op);
  const std::string name = "moe " + name_of(k, f) + "n-D-E-K-F-Fs " + shape({n, D, E, K, F, Fs});
  if (in_passes != y) fail(name + ": in passes of " + std::to_string(op.most_hidden) + " it differs");
  beside_idle_tokens(k, parallel, op, y, name);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < K; ++j) {
      const size_t e = size_t(index[i * K + j]);
      swiglu(&x[i * D], D, &gate_up.wide[e * 2 * F * D], &down.wide[e * down_rows * F], F, weight[i * K + j],
             &expected[i * D]);
    }
    if (Fs) swiglu(&x[i * D], D, shared_gate_up.wide.data(), shared_down.wide.data(), Fs, 1.0, &expected[i * D]);
  }
  expect_close(name, y, expected);
}

}  // namespace mythos::test
