// c = a . b^T, both operands along the rows that are in memory: nothing is packed, and a sum depends on depth alone
// (each lane of a register over every W-th product, then the lanes by halves), so that decode and prefill agree to the
// bit. Part of kernels_impl.h.
//
// A strip of weights meets all rows of activations, tile by tile, and meanwhile the next strip is asked for, evenly
// over all steps: a third of the time of 16 rows on weights from memory was waiting for it, and a burst of requests
// makes the tile that is computed wait.
#pragma once
#include "cpu/stored.h"

namespace mythos {
namespace {

// Rows of weights in a strip. 12 are a multiple of every tile's width. 4, which only tiles of 3 rows take well, leave
// more of the first-level cache to the activations.
constexpr size_t kStrip = 12, kNarrowStrip = 4;
constexpr size_t kStripBytes = 16384;  // half of a first-level cache
constexpr size_t kManyRows = 24;       // so many that one tile of less than 3 among them does not count

// What a tile asks for while it computes, into the second level, for the first has no room: what is kAhead further in
// its own rows, or what is at `next`, a place that moves on with every step.
enum class Fetch { own_rows, next };

// N rows at a time are N short streams, which the hardware fetches badly by itself (rows of 1 KB: a third of the
// bandwidth). No further ahead than this: a whole tile of 4 KB rows ahead, weights from the third level came at 39
// instead of 52 GB/s (Zen 3).
constexpr size_t kAhead = 8192;
constexpr size_t kLine = 64;

inline void fetch(uintptr_t at) { __builtin_prefetch(reinterpret_cast<const char*>(at), 0, 2); }

// M rows of a times N rows of b: M x N sums in registers, and of the operands the smaller side.
template <Format F, int M, int N, Fetch Ask>
void nt_tile(const float* const* a, const Weights& b, size_t row, size_t depth, float* c, size_t ldc,
             uintptr_t next = 0, size_t pace = 0) {
  using T = typename Stored<F>::T;
  Reg sum[M][N];
  const float* ap[M];
  const T* bp[N];
  MYTHOS_UNROLL
  for (int i = 0; i < M; ++i) {
    ap[i] = a[i];
    MYTHOS_UNROLL
    for (int j = 0; j < N; ++j) sum[i][j] = Simd::zero();
  }
  MYTHOS_UNROLL
  for (int j = 0; j < N; ++j) bp[j] = elements<F>(b, row + j);
  const size_t tile = N * b.row_bytes, ahead = tile < kAhead ? tile : kAhead;

  const auto step = [&](size_t d, auto... rest) {
    if constexpr (M <= N) {
      Reg x[M];
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) x[i] = Simd::load(ap[i] + d, rest...);
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) {
        if (Ask == Fetch::own_rows) fetch(reinterpret_cast<uintptr_t>(bp[j] + d) + ahead);
        const Reg w = M == 1 ? Simd::load(bp[j] + d, rest...) : Simd::held(Simd::load(bp[j] + d, rest...));
        MYTHOS_UNROLL
        for (int i = 0; i < M; ++i) sum[i][j] = Simd::fma(x[i], w, sum[i][j]);
      }
    } else {
      Reg w[N];
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) {
        if (Ask == Fetch::own_rows) fetch(reinterpret_cast<uintptr_t>(bp[j] + d) + ahead);
        w[j] = Simd::load(bp[j] + d, rest...);
      }
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) {
        const Reg x = Simd::load(ap[i] + d, rest...);
        MYTHOS_UNROLL
        for (int j = 0; j < N; ++j) sum[i][j] = Simd::fma(x, w[j], sum[i][j]);
      }
    }
  };
  size_t d = 0;
  for (; d + W <= depth; d += W) {
    if (Ask == Fetch::next) {
      fetch(next);
      if (pace > kLine) fetch(next + kLine);  // no third: with two tiles or more a strip has a step for every two lines
      next += pace;
    }
    step(d);
  }
  if (d < depth) step(d, Simd::first(depth - d));

  if constexpr (N % 4 == 0) {
    MYTHOS_UNROLL
    for (int i = 0; i < M; ++i) {
      MYTHOS_UNROLL
      for (int j = 0; j < N; j += 4) Simd::sums_of_4(&sum[i][j], c + i * ldc + j);
    }
  } else {  // four sums at a time in the order of rows, the last ones filled up
    MYTHOS_UNROLL
    for (int s = 0; s < M * N; s += 4) {
      constexpr int last = M * N - 1;
      const int t[4] = {s, s + 1 < last ? s + 1 : last, s + 2 < last ? s + 2 : last, s + 3 < last ? s + 3 : last};
      const Reg four[4] = {sum[t[0] / N][t[0] % N], sum[t[1] / N][t[1] % N], sum[t[2] / N][t[2] % N],
                           sum[t[3] / N][t[3] % N]};
      float out[4];
      Simd::sums_of_4(four, out);
      MYTHOS_UNROLL
      for (int e = 0; e < 4; ++e) c[t[e] / N * ldc + t[e] % N] = out[e];
    }
  }
}

// M rows of activations against n rows of weights, N at a time; returns how far `next` came.
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

// How many rows of a strip a tile of M rows of activations takes.
template <int M, size_t Strip>
constexpr int nt_width = Strip < kStrip ? static_cast<int>(Strip) : M == 2 ? 6 : M == 4 && Simd::nt_sums < 16 ? 3 : 4;

// One strip of weights against all m rows of activations, at most Most at a time. These are dealt as evenly as they go:
// a tile of fewer rows has fewer sums, which wait for each other.
template <Format F, size_t Strip, int Most>
void nt_strip(const float* const* a, size_t m, const Weights& b, size_t row, size_t depth, float* c, size_t ldc) {
  struct Tile {
    NtRows run;
    size_t width;
  };
  static_assert(Most >= 3 && Most <= 6);
  constexpr int four = Most < 4 ? Most : 4, five = Most < 5 ? Most : 5;
  static constexpr Tile tile_of[] = {
      {nt_rows<F, 1, nt_width<1, Strip>>, nt_width<1, Strip>},
      {nt_rows<F, 2, nt_width<2, Strip>>, nt_width<2, Strip>},
      {nt_rows<F, 3, nt_width<3, Strip>>, nt_width<3, Strip>},
      {nt_rows<F, four, nt_width<four, Strip>>, nt_width<four, Strip>},
      {nt_rows<F, five, nt_width<five, Strip>>, nt_width<five, Strip>},
      {nt_rows<F, Most, nt_width<Most, Strip>>, nt_width<Most, Strip>},
  };
  size_t tiles = (m + Most - 1) / Most;
  if (Simd::nt_sums < 16 && tiles < m / 3) tiles = m / 3;  // 3 x 4 sums end cheaper than 4 x 3
  const size_t small = m / tiles, larger = m % tiles;
  size_t calls = (tiles - larger) * (Strip / tile_of[small - 1].width);
  if (larger) calls += larger * (Strip / tile_of[small].width);
  const size_t steps = calls * (depth / W) + 1, pace = (Strip * b.row_bytes + steps - 1) / steps;
  uintptr_t next = reinterpret_cast<uintptr_t>(elements<F>(b, row + Strip));
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = small + (t < larger);
    next = tile_of[rows - 1].run(a + i, b, row, Strip, depth, c + i * ldc, ldc, tiles == 1, next, pace);
    i += rows;
  }
}

template <Format F>
void nt(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  if (m == 0) return;
  size_t j = 0;
  const bool threes = (Simd::nt_sums < 16 && m % 3 == 0) || m >= kManyRows, deep = kStrip * depth * sizeof(float) > kStripBytes;
  if (m == 1) {  // eight sums keep the multipliers busy
    for (; j + 8 <= n; j += 8) nt_tile<F, 1, 8, Fetch::own_rows>(a, b, j, depth, c + j, ldc);
  } else if (!(threes && deep)) {
    for (; j + kStrip <= n; j += kStrip) nt_strip<F, kStrip, Simd::nt_rows>(a, m, b, j, depth, c + j, ldc);
  }
  for (; j + kNarrowStrip <= n; j += kNarrowStrip)
    nt_strip<F, kNarrowStrip, Simd::nt_sums / kNarrowStrip>(a, m, b, j, depth, c + j, ldc);
  for (; j < n; ++j) nt_strip<F, 1, Simd::nt_rows>(a, m, b, j, depth, c + j, ldc);
}

}  // namespace
}  // namespace mythos
