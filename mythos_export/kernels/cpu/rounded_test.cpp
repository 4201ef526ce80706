// Products of activations rounded to int8. What they are rounded to is said by float32 arithmetic alone, so the expected
// value is known to the last bit, however near an activation is to the middle of two integers.
#include <cstring>

#include "cpu/kernels_test.h"

namespace mythos::test {
namespace {

// The values that a row of activations is rounded to.
std::vector<double> as_seen(const float* x, size_t depth) {
  std::vector<double> seen(depth);
  for (size_t first = 0; first < depth; first += kBlock) {
    const size_t last = std::min(first + kBlock, depth);
    float largest = 0;
    for (size_t d = first; d < last; ++d) largest = std::max(largest, std::fabs(x[d]));
    const float inverse = largest < kLeastRounded ? 0 : 127 / largest, unit = largest / 127;
    for (size_t d = first; d < last; ++d) seen[d] = double(std::nearbyint(x[d] * inverse)) * unit;
  }
  return seen;
}

// A row of activations: some blocks of zeros, some tiny, some a thousand times as large as others.
std::vector<float> activations(size_t count) {
  auto x = normal(count);
  for (size_t first = 0; first < count; first += kBlock) {
    const float factors[] = {1, 1, 1, 1000, 1e-3f, 1e-32f, 0};
    const float factor = factors[pick(0, 6)];
    for (size_t d = first; d < std::min(first + kBlock, count); ++d) x[d] *= factor;
  }
  return x;
}

// silu(gate x) * up x of one expert, then down: by the kernels, a row alone.
void by_kernels(const Kernels& k, Format f, const float* x, size_t D, Weights gate_up, Weights down, size_t F,
                float* y) {
  const RoundedRows seen(k, f, 1, D), hidden(k, f, 1, F);
  std::vector<float> gate(F), up(F), h(F);
  seen.round(0, 0, x, D);
  const RoundedRow row = seen.row(0), hidden_row = hidden.row(0);
  k.nt_rounded[f](&row, 1, gate_up, F, D, gate.data(), F);
  k.nt_rounded[f](&row, 1, gate_up.row(F), F, D, up.data(), F);
  k.silu_mul(gate.data(), up.data(), h.data(), F);
  hidden.round(0, 0, h.data(), F);
  k.nt_rounded[f](&hidden_row, 1, down, D, F, y, D);
}

}  // namespace

void test_rounded_linear(const Kernels& k, Format f, const Parallel& parallel, size_t n, size_t K, size_t rows) {
  auto x = activations(n * K);
  const Matrix w(k, f, rows, K, 1.0f);
  std::vector<float> y(n * rows, kNan), alone(rows);
  std::vector<double> expected(n * rows);
  linear(k, parallel, {n, K, rows, x.data(), w.view(), y.data(), true});
  const std::string name = "rounded linear " + name_of(k, f) + shape({n, K, rows});
  for (size_t i = 0; i < n; ++i) {
    const auto seen = as_seen(&x[i * K], K);
    for (size_t j = 0; j < rows; ++j) {
      for (size_t d = 0; d < K; ++d) expected[i * rows + j] += seen[d] * w.wide[j * K + d];
    }
    linear(k, parallel, {1, K, rows, &x[i * K], w.view(), alone.data(), true});
    if (std::memcmp(alone.data(), &y[i * rows], rows * sizeof(float)))
      fail(name + ": a row alone differs from the row among others");
  }
  expect_close(name, y, expected, std::sqrt(double(K)));
  x[pick(0, n * K - 1)] = pick(0, 1) ? kNan : HUGE_VALF;
  linear(k, parallel, {n, K, rows, x.data(), w.view(), y.data(), true});
  size_t lost = 0;
  for (float value : y) lost += std::isnan(value);
  if (lost != rows) fail(name + ": what is no number was rounded to one");
}

void test_rounded(const Kernels& k, Format f, const Parallel& parallel) {
  const bool large = pick(0, 9) == 0;  // in several tasks
  test_rounded_linear(k, f, parallel, large ? 30 : pick(1, 14), large ? 500 : pick(1, 300), large ? 1100 : pick(1, 200));
  const size_t n = large ? 40 : pick(1, 20), D = large ? 230 : pick(1, 90), E = pick(1, 6), K = pick(1, E);
  const size_t tile = format_of(f).tile, down_rows = round_up(D, tile);
  const size_t F = round_up(large ? 300 : pick(1, 80), tile), Fs = round_up(pick(0, 1) * pick(0, 99), tile);
  const auto x = activations(n * D), weight = normal(n * K);
  const Matrix gate_up(k, f, E * 2 * F, D, 0.2f), down(k, f, E * down_rows, F, 0.2f);
  const Matrix shared_gate_up(k, f, 2 * Fs, D, 0.2f), shared_down(k, f, D, Fs, 0.2f);
  std::vector<int64_t> index(n * K), order(E);
  for (size_t e = 0; e < E; ++e) order[e] = int64_t(e);
  for (size_t i = 0; i < n; ++i) {
    std::shuffle(order.begin(), order.end(), random_engine);
    std::copy_n(order.begin(), K, &index[i * K]);
  }
  std::vector<float> y(n * D, kNan), expected(n * D), part(D);
  Moe op{n, D, E, K, F, Fs, x.data(), index.data(), weight.data(), gate_up.view(), down.view(), shared_gate_up.view(),
         shared_down.view(), y.data(), true};
  moe(k, parallel, op);
  std::vector<float> in_passes(n * D, kNan);
  op.y = in_passes.data(), op.most_hidden = pick(1, 3000);
  moe(k, parallel, op);
  const std::string name = "rounded moe " + name_of(k, f) + "n-D-E-K-F-Fs " + shape({n, D, E, K, F, Fs});
  if (in_passes != y) fail(name + ": in passes of " + std::to_string(op.most_hidden) + " it differs");
  beside_idle_tokens(k, parallel, op, y, name);
  for (size_t i = 0; i < n; ++i) {  // the products, which are held to plain sums above, in the operator's order
    for (size_t e = 0; e < E; ++e) {
      for (size_t j = 0; j < K; ++j) {
        if (size_t(index[i * K + j]) != e) continue;
        by_kernels(k, f, &x[i * D], D, gate_up.view().row(e * 2 * F), down.view().row(e * down_rows), F, part.data());
        k.axpy(weight[i * K + j], part.data(), &expected[i * D], D);
      }
    }
    if (!Fs) continue;
    by_kernels(k, f, &x[i * D], D, shared_gate_up.view(), shared_down.view(), Fs, part.data());
    k.axpy(1.0f, part.data(), &expected[i * D], D);
  }
  if (y != expected) fail(name);
}

}  // namespace mythos::test
