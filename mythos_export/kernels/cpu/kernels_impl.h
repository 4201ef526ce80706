// The micro-kernels, written once over `Simd` and compiled once per instruction set (kernels_generic.cpp,
// kernels_avx2.cpp, kernels_avx512.cpp include this after their simd_*.h). Everything here is in an unnamed namespace
// and uses nothing of the standard library but types: code compiled for a new processor must not be linked into what an
// old one runs.
#pragma once
#include "cpu/kernels.h"
#include "cpu/kernels_quant.h"

namespace mythos {
namespace {

using Reg = Simd::Reg;
constexpr size_t W = Simd::width;

template <Format F>
struct Stored;
template <>
struct Stored<f32> {
  using T = float;
};
template <>
struct Stored<f16> {
  using T = uint16_t;
};
template <Format F>
const typename Stored<F>::T* elements(const Weights& w, size_t row) {
  using T = typename Stored<F>::T;
  return reinterpret_cast<const T*>(static_cast<const char*>(w.data) + row * w.row_bytes);
}

// -- c = a . b^T -----------------------------------------------------------------------------------------

// M rows of a times N rows of b: M x N sums in registers, each over every W-th product. Weights come from memory in the
// first pass over them: `Fetch` asks for what lies ahead, into the second level, for the first has no room. N rows at a
// time are N short streams, which the hardware fetches badly by itself (rows of 1 KB: a third of the bandwidth). No
// further ahead than kAhead: a whole tile of 4 KB rows ahead, weights from the third level came at 39 instead of
// 52 GB/s (Zen 3).
constexpr size_t kAhead = 8192;

template <Format F, int M, int N, bool Fetch>
void nt_tile(const float* const* a, const Weights& b, size_t row, size_t depth, float* c, size_t ldc) {
  using T = typename Stored<F>::T;
  Reg sum[M][N];
  const float* ap[M];
  const T* bp[N];
  for (int i = 0; i < M; ++i) {
    ap[i] = a[i];
    for (int j = 0; j < N; ++j) sum[i][j] = Simd::zero();
  }
  for (int j = 0; j < N; ++j) bp[j] = elements<F>(b, row + j);
  const size_t tile = N * b.row_bytes, ahead = tile < kAhead ? tile : kAhead;
  size_t d = 0;
  for (; d + W <= depth; d += W) {
    Reg x[M];
    for (int i = 0; i < M; ++i) x[i] = Simd::load(ap[i] + d);
    for (int j = 0; j < N; ++j) {
      if (Fetch)
        __builtin_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(bp[j] + d) + ahead), 0, 2);
      const Reg w = Simd::load(bp[j] + d);
      for (int i = 0; i < M; ++i) sum[i][j] = Simd::fma(x[i], w, sum[i][j]);
    }
  }
  if (d < depth) {
    const auto rest = Simd::first(depth - d);
    Reg x[M];
    for (int i = 0; i < M; ++i) x[i] = Simd::load(ap[i] + d, rest);
    for (int j = 0; j < N; ++j) {
      const Reg w = Simd::load(bp[j] + d, rest);
      for (int i = 0; i < M; ++i) sum[i][j] = Simd::fma(x[i], w, sum[i][j]);
    }
  }
  for (int i = 0; i < M; ++i) {
    if constexpr (N % 4 == 0) {
      for (int j = 0; j < N; j += 4) Simd::sums_of_4(&sum[i][j], c + i * ldc + j);
    } else {
      static_assert(N == 1);
      const Reg same[4] = {sum[i][0], sum[i][0], sum[i][0], sum[i][0]};
      float out[4];
      Simd::sums_of_4(same, out);
      c[i * ldc] = out[0];
    }
  }
}

using NtTile = void (*)(const float* const*, const Weights&, size_t, size_t, float*, size_t);

// The tile of m rows, m <= Simd::nt_rows <= 6.
template <Format F, int N, bool Fetch>
NtTile nt_tile_of(size_t m) {
  constexpr int most = Simd::nt_rows;
  static_assert(most <= 6);
  static constexpr NtTile tiles[] = {
      nt_tile<F, 1, N, Fetch>,
      nt_tile<F, 2, N, Fetch>,
      nt_tile<F, 3, N, Fetch>,
      nt_tile < F,
      most < 4 ? most : 4,
      N,
      Fetch >
      , nt_tile < F, most < 5 ? most : 5, N, Fetch >, nt_tile<F, most, N, Fetch>,
  };
  return tiles[m - 1];
}

// N rows of weights against all m rows of activations. The rows are dealt to tiles as evenly as they go, for a last
// tile of one row costs nearly as much as a full one.
template <Format F, int N>
void nt_strip(const float* const* a, size_t m, const Weights& b, size_t row, size_t depth, float* c, size_t ldc) {
  const size_t tiles = (m + Simd::nt_rows - 1) / Simd::nt_rows, small = m / tiles, larger = m % tiles;
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = small + (t < larger);
    (t == 0 ? nt_tile_of<F, N, true>(rows) : nt_tile_of<F, N, false>(rows))(a + i, b, row, depth, c + i * ldc, ldc);
    i += rows;
  }
}

template <Format F>
void nt(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  if (m == 0) return;
  size_t j = 0;
  if (m == 1) {  // eight sums keep the multipliers busy; with more rows there are enough of them
    for (; j + 8 <= n; j += 8) nt_tile<F, 1, 8, true>(a, b, j, depth, c + j, ldc);
  }
  for (; j + 4 <= n; j += 4) nt_strip<F, 4>(a, m, b, j, depth, c + j, ldc);
  for (; j < n; ++j) nt_strip<F, 1>(a, m, b, j, depth, c + j, ldc);
}

// -- c = keep * c + a . b --------------------------------------------------------------------------------

// M rows of a times N registers of columns; `Partial`: the last register holds only the columns of `rest`.
template <Format F, int M, int N, bool Partial>
void nn_tile(const float* a, size_t lda, const Weights& b, size_t column, size_t depth, float* c, size_t ldc,
             const float* keep, Simd::Mask rest) {
  Reg sum[M][N];
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      if (!keep) {
        sum[i][j] = Simd::zero();
      } else {
        float* p = c + i * ldc + j * W;
        sum[i][j] = Simd::mul(Simd::set(keep[i]), Partial && j == N - 1 ? Simd::load(p, rest) : Simd::load(p));
      }
    }
  }
  for (size_t d = 0; d < depth; ++d) {
    const auto* p = elements<F>(b, d) + column;
    Reg w[N];
    for (int j = 0; j < N; ++j) w[j] = Partial && j == N - 1 ? Simd::load(p + j * W, rest) : Simd::load(p + j * W);
    for (int i = 0; i < M; ++i) {
      const Reg x = Simd::set(a[i * lda + d]);
      for (int j = 0; j < N; ++j) sum[i][j] = Simd::fma(x, w[j], sum[i][j]);
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      float* p = c + i * ldc + j * W;
      if (Partial && j == N - 1) {
        Simd::store(p, sum[i][j], rest);
      } else {
        Simd::store(p, sum[i][j]);
      }
    }
  }
}

template <Format F, int N, bool Partial>
void nn_strip(const float* a, size_t lda, size_t m, const Weights& b, size_t column, size_t depth, float* c, size_t ldc,
              const float* keep, Simd::Mask rest) {
  using Tile = void (*)(const float*, size_t, const Weights&, size_t, size_t, float*, size_t, const float*, Simd::Mask);
  static constexpr Tile tile_of[] = {
      nn_tile<F, 1, N, Partial>, nn_tile<F, 2, N, Partial>, nn_tile<F, 3, N, Partial>,
      nn_tile<F, 4, N, Partial>, nn_tile<F, 5, N, Partial>, nn_tile<F, 6, N, Partial>,
  };
  const size_t tiles = (m + 5) / 6, small = m / tiles, larger = m % tiles;
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = small + (t < larger);
    tile_of[rows - 1](a + i * lda, lda, b, column, depth, c + i * ldc, ldc, keep ? keep + i : nullptr, rest);
    i += rows;
  }
}

template <Format F>
void nn(const float* a, size_t lda, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc,
        const float* keep) {
  if (m == 0) return;
  constexpr int N = Simd::nn_vectors;
  size_t j = 0;
  if (m == 1) {  // wide: more of each row of b at a time, and enough sums
    for (; j + 8 * W <= n; j += 8 * W) nn_tile<F, 1, 8, false>(a, lda, b, j, depth, c + j, ldc, keep, Simd::first(0));
  }
  for (; j + N * W <= n; j += N * W) nn_strip<F, N, false>(a, lda, m, b, j, depth, c + j, ldc, keep, Simd::first(0));
  for (; j + W <= n; j += W) nn_strip<F, 1, false>(a, lda, m, b, j, depth, c + j, ldc, keep, Simd::first(0));
  if (j < n) nn_strip<F, 1, true>(a, lda, m, b, j, depth, c + j, ldc, keep, Simd::first(n - j));
}

// -- element by element ----------------------------------------------------------------------------------

// exp(x) to about 1 unit in the last place: 2^n * e^r with |r| <= ln(2)/2, the polynomial of Cephes' expf.
Reg exp(Reg x) {
  // Beyond these bounds the result is 0 and infinity anyway; inside, n stays in the range of times_power_of_two.
  x = Simd::min(Simd::set(104.0f), Simd::max(Simd::set(-106.0f), x));
  const Reg n = Simd::round(Simd::mul(x, Simd::set(1.44269504088896341f)));
  Reg r = Simd::fma(n, Simd::set(-0.693359375f), x);
  r = Simd::fma(n, Simd::set(2.12194440e-4f), r);
  Reg p = Simd::set(1.9875691500e-4f);
  p = Simd::fma(p, r, Simd::set(1.3981999507e-3f));
  p = Simd::fma(p, r, Simd::set(8.3334519073e-3f));
  p = Simd::fma(p, r, Simd::set(4.1665795894e-2f));
  p = Simd::fma(p, r, Simd::set(1.6666665459e-1f));
  p = Simd::fma(p, r, Simd::set(5.0000001201e-1f));
  p = Simd::add(Simd::fma(p, Simd::mul(r, r), r), Simd::set(1.0f));
  return Simd::times_power_of_two(p, n);
}

Reg silu_times(Reg gate, Reg up) {
  const Reg one = Simd::set(1.0f);
  return Simd::mul(Simd::div(gate, Simd::add(one, exp(Simd::sub(Simd::zero(), gate)))), up);
}

void silu_mul(const float* gate, const float* up, float* h, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(h + i, silu_times(Simd::load(gate + i), Simd::load(up + i)));
  if (i < n) {
    const auto rest = Simd::first(n - i);
    Simd::store(h + i, silu_times(Simd::load(gate + i, rest), Simd::load(up + i, rest)), rest);
  }
}

void softmax_block(float* scores, size_t rows, size_t n, float scale, float* max, float* sum, float* keep) {
  const float none = -__builtin_inff();
  const size_t padded = (n + W - 1) / W * W;
  for (size_t i = 0; i < rows; ++i) {
    float* s = scores + i * kKeyBlock;
    for (size_t j = n; j < padded; ++j) s[j] = none;  // whole registers from here on: exp(-inf) adds nothing
    Reg top = Simd::set(none);
    for (size_t j = 0; j < padded; j += W) {
      const Reg v = Simd::mul(Simd::load(s + j), Simd::set(scale));
      top = Simd::max(top, v);
      Simd::store(s + j, v);
    }
    const float best = Simd::max_of(top);
    const float now = best > max[i] ? best : max[i];
    if (now == none) {  // nothing was allowed so far
      for (size_t j = 0; j < padded; ++j) s[j] = 0;
      keep[i] = 1.0f;
      continue;
    }
    float change[W];
    Simd::store(change, exp(Simd::set(max[i] - now)));
    Reg total = Simd::zero();
    for (size_t j = 0; j < padded; j += W) {
      const Reg p = exp(Simd::sub(Simd::load(s + j), Simd::set(now)));
      total = Simd::add(total, p);
      Simd::store(s + j, p);
    }
    const Reg same[4] = {total, total, total, total};
    float added[4];
    Simd::sums_of_4(same, added);
    keep[i] = change[0];
    sum[i] = sum[i] * change[0] + added[0];
    max[i] = now;
  }
}

void axpy(float a, const float* x, float* y, size_t n) {
  const Reg f = Simd::set(a);
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::fma(f, Simd::load(x + i), Simd::load(y + i)));
  if (i < n) {
    const auto rest = Simd::first(n - i);
    Simd::store(y + i, Simd::fma(f, Simd::load(x + i, rest), Simd::load(y + i, rest)), rest);
  }
}

void scale(float a, const float* x, float* y, size_t n) {
  const Reg f = Simd::set(a);
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::mul(f, Simd::load(x + i)));
  if (i < n) Simd::store(y + i, Simd::mul(f, Simd::load(x + i, Simd::first(n - i))), Simd::first(n - i));
}

void widen(const uint16_t* half, float* y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::load(half + i));
  if (i < n) Simd::store(y + i, Simd::load(half + i, Simd::first(n - i)), Simd::first(n - i));
}

void narrow(const float* x, uint16_t* half, size_t n) {
  for (size_t i = 0; i < n; i += W) {
    const auto part = Simd::first(n - i < W ? n - i : W);
    Simd::store(half + i, Simd::load(x + i, part), part);
  }
}

constexpr Kernels table(const char* isa) {
  return {isa,  {nt<f32>, nt<f16>, q_nt<q8>, q_nt<q4>}, {nn<f32>, nn<f16>, nullptr, nullptr}, silu_mul, softmax_block,
          axpy, scale,  widen, narrow};
}

}  // namespace
}  // namespace mythos
