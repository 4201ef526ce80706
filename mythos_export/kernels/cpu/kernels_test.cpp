// Holds the operators, on every instruction set of this processor, to plain double loops over random sizes; built with
// the sanitizers by -DMYTHOS_SANITIZE=ON. Buffers have exactly the size of their tensors, so that a read past an end is
// caught; what must never be read into a result is NaN.
//
//   mythos_kernels_test [rounds]      exit status 0: all is right; 1: the first case that is not, named
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
#include <vector>

#include "cpu/ops.h"

using namespace mythos;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
std::mt19937 random_engine(7);

size_t pick(size_t low, size_t high) { return std::uniform_int_distribution<size_t>(low, high)(random_engine); }

std::vector<float> normal(size_t n, float scale = 1.0f) {
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

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED %s\n", what.c_str());
  std::exit(1);
}

// Where few results happen to cancel to less than `typical`, the distance is relative to that.
void expect_close(const std::string& what, const std::vector<float>& got, const std::vector<double>& expected,
                  double typical = 0.3) {
  double error = 0, size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - expected[i]) * (got[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  const double distance = std::sqrt(error / std::max(size, typical * typical * double(got.size() + 1)));
  if (!(distance <= 2e-6)) fail(what + ": relative distance " + std::to_string(distance * 1e6) + "e-6, allowed 2e-6");
}

std::string shape(std::initializer_list<size_t> dims) {
  std::string s;
  for (size_t d : dims) s += (s.empty() ? "" : "-") + std::to_string(d);
  return s;
}

// -- micro-kernels ---------------------------------------------------------------------------------------

void test_products(const Kernels& k, Format f) {
  const size_t m = pick(1, 14), n = pick(1, 70), depth = pick(1, 90), ldc = n + pick(0, 3), lda = depth + pick(0, 3);
  const auto a = normal((m - 1) * lda + depth);
  std::vector<const float*> rows(m);
  for (size_t i = 0; i < m; ++i) rows[i] = &a[i * lda];
  const Stored bt(k, normal(n * depth), f), b(k, normal(depth * n), f);
  const std::string name = std::string(k.isa) + (f == f16 ? " f16 " : " f32 ") + shape({m, n, depth});
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

// -- operators -------------------------------------------------------------------------------------------

void swiglu(const float* x, size_t D, const float* gate_up, const float* down, size_t F, double weight, double* y) {
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

void test_moe(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t n = pick(0, 20), D = pick(1, 90), E = pick(1, 6), K = pick(1, E), F = pick(1, 40),
               Fs = pick(0, 1) * pick(0, 50);
  const auto x = normal(n * D), weight = normal(n * K);
  const float s = 1.0f / std::sqrt(float(D));
  const Stored gate_up(k, normal(E * 2 * F * D, s), f), down(k, normal(E * D * F, 0.2f), f);
  const Stored shared_gate_up(k, normal(2 * Fs * D, s), f), shared_down(k, normal(D * Fs, 0.2f), f);
  std::vector<int64_t> index(n * K), order(E);
  for (size_t e = 0; e < E; ++e) order[e] = int64_t(e);
  for (size_t i = 0; i < n; ++i) {
    std::shuffle(order.begin(), order.end(), random_engine);
    std::copy_n(order.begin(), K, &index[i * K]);
  }
  std::vector<float> y(n * D, kNan);
  std::vector<double> expected(n * D);
  moe(k, parallel,
      {n, D, E, K, F, Fs, x.data(), index.data(), weight.data(), gate_up.rows(D), down.rows(F), shared_gate_up.rows(D),
       shared_down.rows(Fs), y.data()});
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < K; ++j) {
      const size_t e = size_t(index[i * K + j]);
      swiglu(&x[i * D], D, &gate_up.wide[e * 2 * F * D], &down.wide[e * D * F], F, weight[i * K + j], &expected[i * D]);
    }
    if (Fs) swiglu(&x[i * D], D, shared_gate_up.wide.data(), shared_down.wide.data(), Fs, 1.0, &expected[i * D]);
  }
  expect_close(std::string("moe ") + k.isa + " n-D-E-K-F-Fs " + shape({n, D, E, K, F, Fs}), y, expected);
}

// A cache with uneven lengths, padding, and NaN wherever nothing may be read.
struct RandomCache {
  size_t B = pick(1, 3), T, S, L = pick(1, 3), C;
  std::vector<int64_t> positions, lengths;
  int64_t layer = int64_t(pick(0, L - 1));
  Stored past, chunk;

  RandomCache(const Kernels& k, Format f, size_t width)
      : T(pick(0, 2) ? pick(1, 30) : pick(0, 130)),
        S(pick(0, 2) ? pick(0, 30) : pick(0, 300)),
        C(width),
        past(k, make_past(), f),
        chunk(k, make_chunk(), f) {}

  std::vector<float> make_past() {
    std::vector<float> v(L * B * S * C, kNan);
    for (size_t b = 0; b < B; ++b) {
      lengths.push_back(int64_t(pick(0, S)));
      const auto rows = normal(size_t(lengths[b]) * C);
      std::copy(rows.begin(), rows.end(), v.begin() + ptrdiff_t((size_t(layer) * B + b) * S * C));
    }
    return v;
  }
  std::vector<float> make_chunk() {
    auto v = normal(B * T * C);
    for (size_t b = 0; b < B; ++b) {
      int64_t next = lengths[b];
      const bool ragged = pick(0, 1);
      for (size_t t = 0; t < T; ++t) {
        const bool padding = ragged && pick(0, 4) == 0;
        positions.push_back(padding ? -1 : next++);
        if (padding) std::fill_n(v.begin() + ptrdiff_t((b * T + t) * C), C, kNan);
      }
    }
    return v;
  }
  Cache view() const { return {B, T, L, S, C, past.rows(C), layer, chunk.rows(C), positions.data(), lengths.data()}; }
  // The rows that token t of batch row b may attend to.
  std::vector<const float*> visible(size_t b, size_t t) const {
    std::vector<const float*> rows;
    for (size_t j = 0; j < size_t(lengths[b]); ++j) rows.push_back(&past.wide[((size_t(layer) * B + b) * S + j) * C]);
    for (size_t j = 0; j < T; ++j) {
      const int64_t p = positions[b * T + j];
      if (p >= 0 && p <= positions[b * T + t]) rows.push_back(&chunk.wide[(b * T + j) * C]);
    }
    return rows;
  }
  std::string name() const { return " B-T-L-S-C " + shape({B, T, L, S, C}); }
};

std::vector<double> softmax(std::vector<double> s) {
  const double top = *std::max_element(s.begin(), s.end());
  double sum = 0;
  for (double& x : s) sum += x = std::exp(x - top);
  for (double& x : s) x /= sum;
  return s;
}

void test_mla(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t H = pick(1, 5), nope = pick(1, 20), rope = pick(0, 3) * 2, v = pick(1, 20), R = pick(1, 40);
  const float scale = 0.3f;
  const RandomCache cache(k, f, R + rope);
  const size_t n = cache.B * cache.T;
  const auto q_nope = normal(n * H * nope), q_rope = normal(n * H * rope);
  const Stored kv_up(k, normal(H * (nope + v) * R, 0.3f), f);
  std::vector<double> expected(n * H * v);
  for (size_t i = 0; i < n * H; ++i) {
    const size_t token = i / H, h = i % H;
    if (cache.positions[token] < 0) continue;
    const auto rows = cache.visible(token / cache.T, token % cache.T);
    const float* const w = &kv_up.wide[h * (nope + v) * R];
    std::vector<double> scores;
    for (const float* row : rows) {
      double score = 0;
      for (size_t d = 0; d < nope; ++d) {
        for (size_t r = 0; r < R; ++r) score += double(q_nope[i * nope + d]) * w[d * R + r] * row[r];
      }
      for (size_t d = 0; d < rope; ++d) score += double(q_rope[i * rope + d]) * row[R + d];
      scores.push_back(score * scale);
    }
    const auto p = softmax(scores);
    std::vector<double> latent(R);
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t r = 0; r < R; ++r) latent[r] += p[j] * rows[j][r];
    }
    for (size_t d = 0; d < v; ++d) {
      for (size_t r = 0; r < R; ++r) expected[i * v + d] += latent[r] * w[(nope + d) * R + r];
    }
  }
  for (MlaForm form : {MlaForm::cheaper, MlaForm::absorbed, MlaForm::expanded}) {
    std::vector<float> y(n * H * v, kNan);
    mla_attention(
        k, parallel,
        {cache.view(), H, nope, rope, v, R, scale, q_nope.data(), q_rope.data(), kv_up.rows(R), y.data(), form});
    expect_close("mla " + std::to_string(int(form)) + " " + k.isa + cache.name() + " H-nope-rope-v-R " +
                     shape({H, nope, rope, v, R}),
                 y, expected);
  }
}

void test_gqa(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t G = pick(1, 3), shared = pick(1, 4), H = G * shared, head = pick(1, 40);
  const float scale = 0.3f;
  const RandomCache cache(k, f, 2 * G * head);
  const size_t n = cache.B * cache.T;
  const auto q = normal(n * H * head);
  std::vector<double> expected(n * H * head);
  for (size_t i = 0; i < n * H; ++i) {
    const size_t token = i / H, g = i % H / shared;
    if (cache.positions[token] < 0) continue;
    const auto rows = cache.visible(token / cache.T, token % cache.T);
    std::vector<double> scores;
    for (const float* row : rows) {
      double score = 0;
      for (size_t d = 0; d < head; ++d) score += double(q[i * head + d]) * row[g * head + d];
      scores.push_back(score * scale);
    }
    const auto p = softmax(scores);
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t d = 0; d < head; ++d) expected[i * head + d] += p[j] * rows[j][(G + g) * head + d];
    }
  }
  std::vector<float> y(n * H * head, kNan);
  gqa_attention(k, parallel, {cache.view(), H, G, head, scale, q.data(), y.data()});
  expect_close(std::string("gqa ") + k.isa + cache.name() + " H-G-head " + shape({H, G, head}), y, expected);
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
  expect_error("isa", "generic, avx2 or avx512", [] { select_kernels(); });
  unsetenv("MYTHOS_OPS_ISA");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 40;
  for (const char* isa : {"generic", "avx2", "avx512"}) {
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
    for (int i = 0; i < rounds; ++i) {
      const Threads parallel(size_t(i % 3 + 1));
      for (Format f : {f32, f16}) {
        test_products(*k, f);
        test_moe(*k, f, parallel);
        test_mla(*k, f, parallel);
        test_gqa(*k, f, parallel);
      }
    }
    test_errors(*k, Threads(2));
    std::printf("%s: right\n", isa);
  }
  return 0;
}
