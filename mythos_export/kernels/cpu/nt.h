// c = a . b^T, both operands along the rows that lie in memory: nothing is packed, and a sum depends on depth alone (each
// lane of a register over every W-th product, then the lanes by halves), so that decode and prefill agree to the bit.
// Part of kernels_impl.h.
//
// The weights come from memory once, and while a strip of their rows meets the rows of activations, the next strip is
// asked for; a strip is wide enough that the activations, which may fill the first-level cache, pass seldom.
#pragma once
#include "cpu/stored.h"

namespace mythos {
namespace {

constexpr size_t kStrip = 12;  // rows of weights: a multiple of every tile's N

// What a tile asks for while it computes, into the second level, for the first has no room: nothing, what lies kAhead
// further in its own rows, or a line per step of `next`.
enum class Fetch { nothing, own_rows, next };

// N rows at a time are N short streams, which the hardware fetches badly by itself (rows of 1 KB: a third of the
// bandwidth). No further ahead than this: a whole tile of 4 KB rows ahead, weights from the third level came at 39
// instead of 52 GB/s (Zen 3).
constexpr size_t kAhead = 8192;

inline void fetch(uintptr_t at) { __builtin_prefetch(reinterpret_cast<const char*>(at), 0, 2); }

// M rows of a times N rows of b: M x N sums in registers.
template <Format F, int M, int N, Fetch Ask>
void nt_tile(const float* const* a, const Weights& b, size_t row, size_t depth, float* c, size_t ldc,
             uintptr_t next = 0, size_t pace = 0) {
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
    if (Ask == Fetch::next) {
      fetch(next);
      next += pace;
    }
    if constexpr (M <= N) {
      Reg x[M];
      for (int i = 0; i < M; ++i) x[i] = Simd::load(ap[i] + d);
      for (int j = 0; j < N; ++j) {
        if (Ask == Fetch::own_rows) fetch(reinterpret_cast<uintptr_t>(bp[j] + d) + ahead);
        const Reg w = Simd::load(bp[j] + d);
        for (int i = 0; i < M; ++i) sum[i][j] = Simd::fma(x[i], w, sum[i][j]);
      }
    } else {
      Reg w[N];
      for (int j = 0; j < N; ++j) {
        if (Ask == Fetch::own_rows) fetch(reinterpret_cast<uintptr_t>(bp[j] + d) + ahead);
        w[j] = Simd::load(bp[j] + d);
      }
      for (int i = 0; i < M; ++i) {
        const Reg x = Simd::load(ap[i] + d);
        for (int j = 0; j < N; ++j) sum[i][j] = Simd::fma(x, w[j], sum[i][j]);
      }
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
  if constexpr (N % 4 == 0) {
    for (int i = 0; i < M; ++i) {
      for (int j = 0; j < N; j += 4) Simd::sums_of_4(&sum[i][j], c + i * ldc + j);
    }
  } else if constexpr (M == 4) {
    for (int j = 0; j < N; ++j) {
      const Reg column[4] = {sum[0][j], sum[1][j], sum[2][j], sum[3][j]};
      float out[4];
      Simd::sums_of_4(column, out);
      for (int i = 0; i < 4; ++i) c[i * ldc + j] = out[i];
    }
  } else if constexpr (M == 2 && N % 2 == 0) {
    for (int j = 0; j < N; j += 2) {
      const Reg square[4] = {sum[0][j], sum[0][j + 1], sum[1][j], sum[1][j + 1]};
      float out[4];
      Simd::sums_of_4(square, out);
      for (int i = 0; i < 4; ++i) c[i / 2 * ldc + j + i % 2] = out[i];
    }
  } else {
    static_assert(N == 1);
    for (int i = 0; i < M; ++i) {
      const Reg same[4] = {sum[i][0], sum[i][0], sum[i][0], sum[i][0]};
      float out[4];
      Simd::sums_of_4(same, out);
      c[i * ldc] = out[0];
    }
  }
}

// M rows of activations against n rows of weights, N at a time. If not alone, every step asks for what lies at `next`,
// `pace` bytes further each time.
template <Format F, int M, int N>
uintptr_t nt_rows(const float* const* a, const Weights& b, size_t row, size_t n, size_t depth, float* c, size_t ldc,
                  bool alone, uintptr_t next, size_t pace) {
  for (size_t j = 0; j < n; j += N) {
    if (alone) {
      nt_tile<F, M, N, Fetch::own_rows>(a, b, row + j, depth, c + j, ldc);
    } else {
      nt_tile<F, M, N, Fetch::next>(a, b, row + j, depth, c + j, ldc, next, pace);
      next += depth / W * pace;
    }
  }
  return next;
}
using NtRows = uintptr_t (*)(const float* const*, const Weights&, size_t, size_t, size_t, float*, size_t, bool,
                             uintptr_t, size_t);

// How many rows of weights a tile of M rows takes of a strip.
template <int M, size_t Strip>
constexpr int nt_width = Strip < kStrip ? static_cast<int>(Strip) : M == 2 ? 6 : M == 4 && Simd::nt_sums < 16 ? 3 : 4;

// n rows of weights, a multiple of Strip, against all m rows of activations, at most Most at a time. These are dealt as
// evenly as they go: a tile of fewer rows has fewer sums, which wait for each other.
template <Format F, size_t Strip, int Most>
void nt_strip(const float* const* a, size_t m, const Weights& b, size_t row, size_t n, size_t depth, float* c,
              size_t ldc) {
  struct Tile {
    NtRows run;
    size_t width;
  };
  static_assert(Most <= 6);
  constexpr int three = Most < 3 ? Most : 3, four = Most < 4 ? Most : 4, five = Most < 5 ? Most : 5;
  static constexpr Tile tile_of[] = {
      {nt_rows<F, 1, nt_width<1, Strip>>, nt_width<1, Strip>},
      {nt_rows<F, 2, nt_width<2, Strip>>, nt_width<2, Strip>},
      {nt_rows<F, three, nt_width<three, Strip>>, nt_width<three, Strip>},
      {nt_rows<F, four, nt_width<four, Strip>>, nt_width<four, Strip>},
      {nt_rows<F, five, nt_width<five, Strip>>, nt_width<five, Strip>},
      {nt_rows<F, Most, nt_width<Most, Strip>>, nt_width<Most, Strip>},
  };
  size_t tiles = (m + Most - 1) / Most;
  if (Simd::nt_sums < 16 && tiles < m / 3) tiles = m / 3;  // 3 x 4 sums end cheaper than 4 x 3
  const size_t small = m / tiles, larger = m % tiles;
  uintptr_t next = reinterpret_cast<uintptr_t>(elements<F>(b, row + n));
  size_t calls = (tiles - larger) * n / tile_of[small - 1].width;
  if (larger) calls += larger * n / tile_of[small].width;
  const size_t steps = calls * (depth / W) + 1, pace = (n * b.row_bytes + steps - 1) / steps;
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = small + (t < larger);
    next = tile_of[rows - 1].run(a + i, b, row, n, depth, c + i * ldc, ldc, tiles == 1, next, pace);
    i += rows;
  }
}

template <Format F>
void nt(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  if (m == 0) return;
  size_t j = 0;
  if (m == 1) {  // eight sums keep the multipliers busy; with more rows there are enough of them
    for (; j + 8 <= n; j += 8) nt_tile<F, 1, 8, Fetch::own_rows>(a, b, j, depth, c + j, ldc);
  } else {
    for (; j + kStrip <= n; j += kStrip) nt_strip<F, kStrip, Simd::nt_rows>(a, m, b, j, kStrip, depth, c + j, ldc);
  }
  const size_t fours = (n - j) / 4 * 4;
  if (fours) nt_strip<F, 4, Simd::nt_sums / 4>(a, m, b, j, fours, depth, c + j, ldc);
  j += fours;
  if (j < n) nt_strip<F, 1, Simd::nt_rows>(a, m, b, j, n - j, depth, c + j, ldc);
}

}  // namespace
}  // namespace mythos
