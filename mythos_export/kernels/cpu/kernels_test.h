// What the kernels' test program is made of: random tensors whose buffers have exactly their size, comparison, threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/ops.h"
#include "cpu/rounded.h"

namespace mythos::test {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline std::mt19937 random_engine(7);

inline size_t pick(size_t low, size_t high) { return std::uniform_int_distribution<size_t>(low, high)(random_engine); }

inline std::vector<float> normal(size_t n, float scale = 1.0f) {
  std::normal_distribution<float> draw(0.0f, scale);
  std::vector<float> v(n);
  for (float& x : v) x = draw(random_engine);
  return v;
}

class Threads final : public Parallel {
 public:
  explicit Threads(size_t count) : count_(count) {}
  void run(size_t n, void (*task)(void*, size_t), void* data) const override {
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i; (i = next++) < n;) task(data, i);
    };
    std::vector<std::thread> others;
    for (size_t t = 1; t < count_; ++t) others.emplace_back(work);
    work();
    for (auto& t : others) t.join();
  }

 private:
  size_t count_;
};

// Floats as a format stores them, and what they are worth then.
struct Stored {
  std::vector<float> wide;
  std::vector<uint16_t> half;
  Format format;

  Stored(const Kernels& k, std::vector<float> values, Format f) : wide(std::move(values)), format(f) {
    if (f == f16) {
      half.resize(wide.size());
      k.narrow(wide.data(), half.data(), wide.size());
      k.widen(half.data(), wide.data(), wide.size());
    }
  }
  Weights rows(size_t stride) const {
    return rows_of(format == f16 ? static_cast<const void*>(half.data()) : wide.data(), stride, format);
  }
};

// A random matrix [rows, inputs] as a format stores it, and what it is worth then. Inputs of padding are zero; rows of
// padding hold anything, for nothing may be made of them but rows that nobody asked for.
class Matrix {
 public:
  std::vector<float> wide;  // [rows, inputs]

  Matrix(const Kernels& k, Format f, size_t rows, size_t inputs, float typical)
      : wide(rows * inputs), format_(f), inputs_(inputs), blocks_(ceil_div(inputs, traits().block)) {
    if (traits().block == 1) {
      wide = normal(rows * inputs, typical);
      if (f == f16) {
        scales_.resize(wide.size());
        k.narrow(wide.data(), scales_.data(), wide.size());
        k.widen(scales_.data(), wide.data(), wide.size());
      }
      return;
    }
    const size_t tile = traits().tile, tiles = ceil_div(rows, tile), group = traits().group();
    const int most = f == int4 ? 7 : 127;
    std::vector<float> scale = normal(tiles * blocks_ * tile, typical / float(most));
    bytes_.resize(tiles * padded() / group * kLine);
    scales_.resize(scale.size());
    k.narrow(scale.data(), scales_.data(), scale.size());
    k.widen(scales_.data(), scale.data(), scale.size());
    for (size_t row = 0; row < tiles * tile; ++row) {
      for (size_t d = 0; d < padded(); ++d) {
        const int q = d < inputs ? int(pick(0, size_t(2 * most))) - most : 0;
        const size_t r = row % tile, line = row / tile * (padded() / group) + d / group;
        uint8_t& byte = bytes_[line * kLine + r * kQuad + d % kQuad];
        byte = uint8_t(f == int4 ? byte | (q + traits().zero) << (d % group < kQuad ? 0 : 4) : q);
        if (row < rows && d < inputs)
          wide[row * inputs + d] = float(q) * scale[(row / tile * blocks_ + d / traits().block) * tile + r];
      }
    }
  }
  Weights view() const {
    if (format_ == f32) return rows_of(wide.data(), inputs_);
    if (format_ == f16) return rows_of(static_cast<const void*>(scales_.data()), inputs_, f16);
    return {bytes_.data(), padded() * traits().bits / 8, format_, scales_.data(), blocks_};
  }

 private:
  FormatTraits traits() const { return format_of(format_); }
  size_t padded() const { return blocks_ * traits().block; }

  Format format_;
  size_t inputs_, blocks_;
  std::vector<uint8_t> bytes_;
  std::vector<uint16_t> scales_;  // or the elements themselves, of f16
};

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED %s\n", what.c_str());
  std::exit(1);
}

// Where few results happen to cancel to less than `typical`, the distance is relative to that.
inline void expect_close(const std::string& what, const std::vector<float>& got, const std::vector<double>& expected,
                         double typical = 0.3) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  const double distance = std::sqrt(error / std::max(size, typical * typical * double(got.size() + 1)));
  if (!(distance <= 2e-6)) fail(what + ": relative distance " + std::to_string(distance * 1e6) + "e-6, allowed 2e-6");
}

inline std::string name_of(const Kernels& k, Format f) {
  static constexpr const char* names[] = {" f32 ", " f16 ", " int8 ", " int4 "};
  return std::string(k.isa) + names[f];
}

inline std::string shape(std::initializer_list<size_t> dims) {
  std::string s;
  for (size_t d : dims) s += (s.empty() ? "" : "-") + std::to_string(d);
  return s;
}

// y += weight * down(silu(gate x) * up x), in double
inline void swiglu(const float* x, size_t D, const float* gate_up, const float* down, size_t F, double weight,
                   double* y) {
  std::vector<double> h(F);
  for (size_t f = 0; f < F; ++f) {
    double gate = 0, up = 0;
    for (size_t d = 0; d < D; ++d) {
      gate += double(x[d]) * gate_up[f * D + d];
      up += double(x[d]) * gate_up[(F + f) * D + d];
    }
    h[f] = gate / (1 + std::exp(-gate)) * up;
  }
  for (size_t d = 0; d < D; ++d) {
    for (size_t f = 0; f < F; ++f) y[d] += weight * h[f] * down[d * F + f];
  }
}

// Some tokens are idle: they get zeros, and the others the bits of `all`, in which none was.
inline void beside_idle_tokens(const Kernels& k, const Parallel& parallel, Moe op, std::vector<float> all,
                               const std::string& name) {
  std::vector<uint8_t> idle(op.n);
  for (size_t i = 0; i < op.n; ++i)
    if ((idle[i] = pick(0, 1))) std::fill_n(&all[i * op.D], op.D, 0.0f);
  std::vector<float> y(op.n * op.D, kNan);
  op.y = y.data(), op.idle = idle.data();
  moe(k, parallel, op);
  if (y != all) fail(name + ": beside idle tokens it differs");
}

// Sizes on both sides of every boundary: registers, tiles, strips, blocks, panels.
void test_edges(const Kernels& k, Format f);
void test_element_edges(const Kernels& k);
// One random case each; the program ends at the first that is wrong.
void test_moe(const Kernels& k, Format f, const Parallel& parallel);
void test_mla(const Kernels& k, Format f, const Parallel& parallel);
void test_gqa(const Kernels& k, Format f, const Parallel& parallel);
void test_paged_mla(const Kernels& k, Format f, const Parallel& parallel);
void test_paged_gqa(const Kernels& k, Format f, const Parallel& parallel);
void test_act_halting();
void test_linear(const Kernels& k, Format f, const Parallel& parallel);
void test_embedding(const Kernels& k, Format f);
void test_rounded(const Kernels& k, Format f, const Parallel& parallel);
void test_rounded_linear(const Kernels& k, Format f, const Parallel& parallel, size_t n, size_t K, size_t rows);

}  // namespace mythos::test
