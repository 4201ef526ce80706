// Random cases of the products and operators over block-wise int8 and int4 weights.
#include "cpu/kernels_test.h"

namespace mythos::test {
namespace {

// Random integers and scales in the layout of mythos_model/blockwise.py, and what they are worth. What is padded is
// zero in the inputs; rows of padding hold anything, for nothing may be made of them but rows that nobody asked for.
struct Quantized {
  size_t rows, inputs, tiles = ceil_div(rows, 16), blocks = ceil_div(inputs, 32);
  Format format;
  size_t lane = format == q4 ? 8 : 16;
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> scales;
  std::vector<float> wide;  // [rows, inputs]

  Quantized(const Kernels& k, Format f, size_t rows_, size_t inputs_, float typical)
      : rows(rows_),
        inputs(inputs_),
        format(f),
        bytes(tiles * blocks * 32 * lane),
        scales(tiles * blocks * 16),
        wide(rows * inputs) {
    const int most = f == q4 ? 7 : 127;
    std::vector<float> scale = normal(scales.size(), typical / float(most));
    k.narrow(scale.data(), scales.data(), scale.size());
    k.widen(scales.data(), scale.data(), scale.size());
    for (size_t row = 0; row < tiles * 16; ++row) {
      for (size_t d = 0; d < blocks * 32; ++d) {
        const int q = d < inputs ? int(pick(0, size_t(2 * most))) - most : 0;
        const size_t at = (row / 16 * blocks * 32 + d) * lane, r = row % 16;
        if (f == q4) {
          bytes[at + r % 8] = uint8_t(bytes[at + r % 8] | (q + 8) << (r < 8 ? 0 : 4));
        } else {
          bytes[at + r] = uint8_t(q);
        }
        if (row < rows && d < inputs) wide[row * inputs + d] = float(q) * scale[(row / 16 * blocks + d / 32) * 16 + r];
      }
    }
  }
  Weights view() const { return {bytes.data(), blocks * 32 * lane / 16, format, scales.data(), blocks}; }
};

std::string name_of(const Kernels& k, Format f) { return std::string(k.isa) + (f == q4 ? " q4 " : " q8 "); }

void test_linear(const Kernels& k, Format f, const Parallel& parallel) {
  // Now and then so large that it is cut into several tasks.
  const bool large = pick(0, 9) == 0;
  const size_t n = pick(0, 3) ? pick(0, 14) : 1, K = large ? 500 : pick(1, 300), rows = large ? 1100 : pick(1, 200);
  const auto x = normal(n * K);
  const Quantized w(k, f, rows, K, 1.0f);
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
  const Quantized w(k, f, rows, dim, 1.0f);
  std::vector<int64_t> ids(n);
  for (int64_t& id : ids) id = int64_t(pick(0, rows - 1));
  std::vector<float> y(n * dim, kNan), expected;
  embedding(k, {n, dim, rows, ids.data(), w.view(), y.data()});
  for (int64_t id : ids) expected.insert(expected.end(), &w.wide[size_t(id) * dim], &w.wide[size_t(id) * dim] + dim);
  if (y != expected) fail("embedding " + name_of(k, f) + shape({n, rows, dim}));
}

// Widths in whole tiles, as the exporter pads them; one matrix holds the experts' one behind the other.
void test_experts(const Kernels& k, Format f, const Parallel& parallel) {
  const bool large = pick(0, 9) == 0;  // in several tasks
  const size_t n = large ? 40 : pick(0, 20), D = large ? 230 : pick(1, 90), E = pick(1, 4), K = pick(1, E);
  const size_t F = large ? 480 : 16 * pick(1, 3), Fs = 16 * pick(0, 2), down_rows = round_up(D, 16);
  const auto x = normal(n * D), weight = normal(n * K);
  const float s = 1.0f / std::sqrt(float(D));
  const Quantized gate_up(k, f, E * 2 * F, D, s), down(k, f, E * down_rows, F, 0.2f);
  const Quantized shared_gate_up(k, f, 2 * Fs, D, s), shared_down(k, f, D, Fs, 0.2f);
  std::vector<int64_t> index(n * K), order(E);
  for (size_t e = 0; e < E; ++e) order[e] = int64_t(e);
  for (size_t i = 0; i < n; ++i) {
    std::shuffle(order.begin(), order.end(), random_engine);
    std::copy_n(order.begin(), K, &index[i * K]);
  }
  std::vector<float> y(n * D, kNan);
  std::vector<double> expected(n * D);
  moe(k, parallel,
      {n, D, E, K, F, Fs, x.data(), index.data(), weight.data(), gate_up.view(), down.view(), shared_gate_up.view(),
       shared_down.view(), y.data()});
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < K; ++j) {
      const size_t e = size_t(index[i * K + j]);
      swiglu(&x[i * D], D, &gate_up.wide[e * 2 * F * D], &down.wide[e * down_rows * F], F, weight[i * K + j],
             &expected[i * D]);
    }
    if (Fs) swiglu(&x[i * D], D, shared_gate_up.wide.data(), shared_down.wide.data(), Fs, 1.0, &expected[i * D]);
  }
  expect_close("moe " + name_of(k, f) + shape({n, D, E, K, F, Fs}), y, expected);
}

}  // namespace

void test_quantized(const Kernels& k, Format f, const Parallel& parallel) {
  test_linear(k, f, parallel);
  test_embedding(k, f);
  test_experts(k, f, parallel);
}

}  // namespace mythos::test
