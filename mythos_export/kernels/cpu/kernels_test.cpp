// Holds the operators, on every instruction set of this processor, to plain double loops over random sizes; built with
// the sanitizers by -DMYTHOS_SANITIZE=ON. Buffers have exactly the size of their tensors, so that a read past an end is
// caught; what must never be read into a result is NaN.
//
//   mythos_kernels_test [rounds]      exit status 0: all is right; 1: the first case that is not, named
#include "cpu/kernels_test.h"

using namespace mythos;
using namespace mythos::test;

namespace {

void test_products(const Kernels& k, Format f) {
  // Small ones reach every rest of a tile; many rows and a great depth are cut in other strips.
  const bool large = pick(0, 5) == 0;
  const size_t m = large ? pick(15, 40) : pick(1, 14), n = pick(1, 70), depth = large ? pick(300, 500) : pick(1, 90);
  const size_t ldc = n + pick(0, 3), lda = depth + pick(0, 3);
  const auto a = normal((m - 1) * lda + depth);
  std::vector<const float*> rows(m);
  for (size_t i = 0; i < m; ++i) rows[i] = &a[i * lda];
  const Stored bt(k, normal(n * depth), f), b(k, normal(depth * n), f);
  const std::string name = name_of(k, f) + shape({m, n, depth});
  const auto keep = normal(m);
  std::vector<float> c((m - 1) * ldc + n, kNan), d = normal(c.size()), only(c.size(), kNan);
  const auto before = d;
  k.nt[f](rows.data(), m, bt.rows(depth), n, depth, c.data(), ldc);
  k.nn[f](a.data(), lda, m, b.rows(n), n, depth, only.data(), ldc, nullptr);
  k.nn[f](a.data(), lda, m, b.rows(n), n, depth, d.data(), ldc, keep.data());
  for (size_t i = 0; i < m; ++i) {
    std::vector<float> nt_row(&c[i * ldc], &c[i * ldc] + n), nn_row(&only[i * ldc], &only[i * ldc] + n);
    std::vector<float> kept_row(&d[i * ldc], &d[i * ldc] + n), alone(n);
    std::vector<double> nt_expected(n), nn_expected(n), kept_expected(n);
    for (size_t j = 0; j < n; ++j) {
      for (size_t x = 0; x < depth; ++x) {
        nt_expected[j] += double(a[i * lda + x]) * bt.wide[j * depth + x];
        nn_expected[j] += double(a[i * lda + x]) * b.wide[x * n + j];
      }
      kept_expected[j] = nn_expected[j] + double(keep[i]) * before[i * ldc + j];
    }
    expect_close("nt " + name, nt_row, nt_expected, std::sqrt(double(depth)));
    expect_close("nn " + name, nn_row, nn_expected, std::sqrt(double(depth)));
    expect_close("nn, kept " + name, kept_row, kept_expected, std::sqrt(double(depth)));
    k.nt[f](&rows[i], 1, bt.rows(depth), n, depth, alone.data(), n);
    if (alone != nt_row) fail("nt " + name + ": a row alone differs from the row among others");
  }
}

void test_elements(const Kernels& k) {
  std::vector<float> gate, one, h;
  for (float x = -110; x < 110; x += 0.0371f) gate.push_back(x);
  one.assign(gate.size(), 1.0f);
  h.resize(gate.size());
  k.silu_mul(gate.data(), one.data(), h.data(), gate.size());
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i], expected = x / (1 + std::exp(-x));
    if (!(std::fabs(h[i] - expected) <= 4e-7 * std::fabs(expected) + 1e-36))
      fail("silu(" + std::to_string(x) + ") on " + k.isa);
  }
  // Every half there is goes through float and comes back the same, and rounding is to nearest even.
  for (uint32_t bits = 0; bits < 0x10000; bits += 1) {
    const uint16_t in = static_cast<uint16_t>(bits);
    uint16_t out;
    float wide;
    k.widen(&in, &wide, 1);
    k.narrow(&wide, &out, 1);
    if (std::isnan(wide) ? (out & 0x7C00) != 0x7C00 || !(out & 0x3FF) : in != out)
      fail("half " + std::to_string(bits) + " on " + k.isa);
    if (wide != (in & 0x8000 ? -1 : 1) *
                    std::ldexp(double((in & 0x3FF) + (in & 0x7C00 ? 0x400 : 0)), std::max(1, in >> 10 & 31) - 25) &&
        (in & 0x7C00) != 0x7C00) {
      fail("value of half " + std::to_string(bits) + " on " + k.isa);
    }
    if (bits < 0x7BFF) {  // the middle between this and the next goes to the even one
      float next;
      const uint16_t above = static_cast<uint16_t>(in + 1);
      k.widen(&above, &next, 1);
      const float middle = (wide + next) / 2;
      k.narrow(&middle, &out, 1);
      if (out != (in & 1 ? above : in)) fail("rounding above half " + std::to_string(bits) + " on " + k.isa);
    }
  }
}

template <class F>
void expect_error(const char* what, const char* expected, F&& f) {
  try {
    f();
  } catch (const std::exception& error) {
    if (std::strstr(error.what(), expected)) return;
    fail(std::string(what) + ": the error says '" + error.what() + "', expected '" + expected + "'");
  }
  fail(std::string(what) + ": no error");
}

void test_errors(const Kernels& k, const Parallel& parallel) {
  const std::vector<float> floats(64);
  const int64_t index = 3, bad_length = 2;
  const int64_t position = 0;
  float y[8];
  const Weights w = rows_of(floats.data(), 2);
  expect_error("expert", "expert_index[0, 0] is 3",
               [&] { moe(k, parallel, {1, 2, 3, 1, 2, 0, floats.data(), &index, floats.data(), w, w, w, w, y}); });
  const Cache cache{1, 1, 1, 1, 4, rows_of(floats.data(), 4), 0, rows_of(floats.data(), 4), &position, &bad_length};
  expect_error("length", "past_lengths[0] is 2",
               [&] { gqa_attention(k, parallel, {cache, 1, 1, 2, 1.0f, floats.data(), y}); });
  Cache wrong_layer = cache;
  wrong_layer.layer = 5;
  expect_error("layer", "layer is 5",
               [&] { gqa_attention(k, parallel, {wrong_layer, 1, 1, 2, 1.0f, floats.data(), y}); });
  expect_error("task", "from a task", [&] {
    parallel.each(9, 1 << 30, [](size_t i) {
      if (i == 7) throw std::runtime_error("from a task");
    });
  });
  setenv("MYTHOS_OPS_ISA", "sse9", 1);
  expect_error("isa", "generic, avx2, avx512, avx512vnni, neon or neondot", [] { select_kernels(); });
  unsetenv("MYTHOS_OPS_ISA");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 40;
  for (const char* isa : {"generic", "avx2", "avx512", "avx512vnni", "neon", "neondot"}) {
    setenv("MYTHOS_OPS_ISA", isa, 1);
    const Kernels* k = nullptr;
    try {
      k = &select_kernels();
    } catch (const std::runtime_error& error) {
      std::printf("%s: not run (%s)\n", isa, error.what());
      continue;
    }
    unsetenv("MYTHOS_OPS_ISA");
    test_elements(*k);
    test_element_edges(*k);
    for (Format f : {f32, f16, int8, int4}) test_edges(*k, f);
    for (int i = 0; i < rounds; ++i) {
      test_act_halting();
      const Threads parallel(size_t(i % 3 + 1));
      for (Format f : {f32, f16}) {
        test_products(*k, f);
        test_mla(*k, f, parallel);
        test_gqa(*k, f, parallel);
        test_paged_mla(*k, f, parallel);
        test_paged_gqa(*k, f, parallel);
      }
      for (Format f : {f32, f16, int8, int4}) {
        test_linear(*k, f, parallel);
        test_embedding(*k, f);
        test_moe(*k, f, parallel);
        if (format_of(f).block > 1) test_rounded(*k, f, parallel);
      }
    }
    test_errors(*k, Threads(2));
    std::printf("%s: right\n", isa);
  }
  return 0;
}
