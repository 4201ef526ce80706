// c = a . b^T, both operands along the rows that are in memory: nothing is packed, and a sum depends on depth alone
// (each lane of a register over every W-th product, then the lanes by halves), so that decode and prefill agree to the
// bit. Part of kernels_impl.h.
//
// A strip of weights meets all rows of activations, tile by tile, and meanwhile the next strip is asked for. Long rows
// are computed a part at a time, a block of weights in each, or the activations would come from the third-level cache
// for every strip; the lanes' sums wait in memory for the next part, which adds to them what it would have anyway.
#pragma once
#include "cpu/stored.h"

namespace mythos {
namespace {

// Rows of weights in a strip. 12 are a multiple of every tile's width. 4, which not all tiles take well, leave more of
// the first-level cache to the activations.
constexpr size_t kStrip = 12, kNarrowStrip = 4;
constexpr size_t kStripBytes = 16384;  // half of a first-level cache
constexpr size_t kManyRows = 24;       // so many that one tile of less than 3 among them does not count
constexpr size_t kBlockRows = 24;      // rows of weights that meet a part of the inputs
constexpr size_t kKeptRows = 64;       // rows of activations at most that do

// What a tile asks for while it computes, into the second level, for the first has no room: the same inputs of the rows
// that come next, or a line at a place that moves on with every step. The second is better as long as the next strip is
// near (8 rows on rows of 2 KB: 38 -> 33 us for 1 MB from memory), the first where it is not (of 8 KB: 55 -> 45; Zen 5),
// and a step takes a line: with half a line it would ask for each twice (12 rows, AVX2: 61 -> 83).
enum class Fetch { rows, lines };
constexpr size_t kNear = 8192;  // a strip of so many bytes is near
constexpr bool kStepIsLine = W * sizeof(float) >= kLine;

// N rows at a time are N short streams, which the hardware fetches badly by itself (rows of 1 KB: a third of the
// bandwidth). One row of activations: no further ahead than this (weights from the third level came at 39 instead of 52
// GB/s with a whole tile of 4 KB rows ahead, Zen 3). More: a whole tile ahead, for what is nearer is being read.
constexpr size_t kAhead = 8192;

inline void fetch(uintptr_t at) { __builtin_prefetch(reinterpret_cast<const char*>(at), 0, 2); }

// Inputs [first, end) of a sum: all of them, or a part.
struct Whole {
  static constexpr bool whole = true;
  static constexpr size_t first = 0;
  static constexpr bool last = true;
  size_t end;
};
struct Part {
  static constexpr bool whole = false;
  size_t first, end;
  bool last;    // the sum ends here
  float* kept;  // the lanes' sums up to `first`, and up to `end`, where these are not the ends of it
};

template <int M, int N, class F>
void each_kept(const Part& part, F&& f, Reg (&sum)[M][N]) {
  MYTHOS_UNROLL
  for (int i = 0; i < M; ++i) {
    MYTHOS_UNROLL
    for (int j = 0; j < N; ++j) f(part.kept + (i * N + j) * W, sum[i][j]);
  }
}
template <int M, int N, class F>
void each_kept(const Whole&, F&&, Reg (&)[M][N]) {}
inline void skip_kept(Part& part, size_t sums) { part.kept += sums * W; }
inline void skip_kept(Whole&, size_t) {}

// M rows of a times N rows of b: M x N sums in registers, and of the operands the smaller side. `next` is how far behind
// its own rows those are that it asks for, or the place of the lines, which moves on by `pace` (0: it asks for nothing).
template <Format F, int M, int N, Fetch Ask, class Inputs>
void nt_tile(const float* const* a, const Weights& b, size_t row, const Inputs& part, float* c, size_t ldc,
             uintptr_t next, size_t pace = 0) {
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
  if (part.first) each_kept(part, [&](const float* at, Reg& of) { of = Simd::load(at); }, sum);

  const auto step = [&](size_t d, auto... rest) {
    if constexpr (M <= N) {
      Reg x[M];
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) x[i] = Simd::load(ap[i] + d, rest...);
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) {
        if (Ask == Fetch::rows) fetch(reinterpret_cast<uintptr_t>(bp[j] + d) + next);
        const Reg w = M == 1 ? Simd::load(bp[j] + d, rest...) : Simd::held(Simd::load(bp[j] + d, rest...));
        MYTHOS_UNROLL
        for (int i = 0; i < M; ++i) sum[i][j] = Simd::fma(x[i], w, sum[i][j]);
      }
    } else {
      Reg w[N];
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) {
        if (Ask == Fetch::rows) fetch(reinterpret_cast<uintptr_t>(bp[j] + d) + next);
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
  size_t d = part.first;
  for (; d + W <= part.end; d += W) {
    if (Ask == Fetch::lines && pace) {
      fetch(next);
      if (pace > kLine) fetch(next + kLine);  // no third: with two tiles or more a strip has a step for every two lines
      next += pace;
    }
    step(d);
  }
  if (!part.last) return each_kept(part, [&](float* at, Reg of) { Simd::store(at, of); }, sum);
  if (d < part.end) step(d, Simd::first(part.end - d));

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

// M rows of activations against a strip of n rows of weights, N at a time. As `ask` says, `next` is how far it is to the
// strip that comes next, or the place of the lines that are asked for. Returns the latter, moved on.
template <Format F, int M, int N, class Inputs>
uintptr_t nt_rows(const float* const* a, const Weights& b, size_t row, size_t n, Inputs part, float* c, size_t ldc,
                  Fetch ask, uintptr_t next, size_t pace) {
  for (size_t j = 0; j < n; j += N) {
    if (ask == Fetch::rows) {
      const uintptr_t ahead = j + N < n ? N * b.row_bytes : next - j * b.row_bytes;
      nt_tile<F, M, N, Fetch::rows>(a, b, row + j, part, c + j, ldc, ahead);
    } else {
      nt_tile<F, M, N, Fetch::lines>(a, b, row + j, part, c + j, ldc, next, pace);
      next += (part.end - part.first) / W * pace;
    }
    skip_kept(part, M * N);
  }
  return next;
}
template <class Inputs>
using NtRows = uintptr_t (*)(const float* const*, const Weights&, size_t, size_t, Inputs, float*, size_t, Fetch, uintptr_t,
                             size_t);

// How many rows of a strip a tile of M rows of activations takes.
template <int M, size_t Strip>
constexpr int nt_width = Strip < kStrip ? static_cast<int>(Strip) : M == 2 ? 6 : M == 4 && Simd::nt_sums < 16 ? 3 : 4;

// One strip of weights against all m rows of activations, at most Most at a time. These are dealt as evenly as they go:
// a tile of fewer rows has fewer sums, which wait for each other. `onward` is how far it is to the strip that comes next.
template <Format F, size_t Strip, int Most, class Inputs>
void nt_strip(const float* const* a, size_t m, const Weights& b, size_t row, Inputs part, float* c, size_t ldc,
              size_t onward) {
  struct Tile {
    NtRows<Inputs> run;
    size_t width;
  };
  static_assert(Most >= 3 && Most <= 6);
  constexpr int four = Most < 4 ? Most : 4, five = Most < 5 ? Most : 5;
  static constexpr Tile tile_of[] = {
      {nt_rows<F, 1, nt_width<1, Strip>, Inputs>, nt_width<1, Strip>},
      {nt_rows<F, 2, nt_width<2, Strip>, Inputs>, nt_width<2, Strip>},
      {nt_rows<F, 3, nt_width<3, Strip>, Inputs>, nt_width<3, Strip>},
      {nt_rows<F, four, nt_width<four, Strip>, Inputs>, nt_width<four, Strip>},
      {nt_rows<F, five, nt_width<five, Strip>, Inputs>, nt_width<five, Strip>},
      {nt_rows<F, Most, nt_width<Most, Strip>, Inputs>, nt_width<Most, Strip>},
  };
  size_t tiles = (m + Most - 1) / Most;
  if (Simd::nt_sums < 16 && tiles < m / 3) tiles = m / 3;  // 3 x 4 sums end cheaper than 4 x 3
  const size_t small = m / tiles, larger = m % tiles;
  const bool by_rows = tiles == 1 || !Inputs::whole || (kStepIsLine && Strip * b.row_bytes > kNear);
  size_t pace = 0;
  if (!by_rows) {
    size_t calls = (tiles - larger) * (Strip / tile_of[small - 1].width);
    if (larger) calls += larger * (Strip / tile_of[small].width);
    const size_t steps = calls * ((part.end - part.first) / W) + 1;
    pace = (Strip * b.row_bytes + steps - 1) / steps;
  }
  uintptr_t next = reinterpret_cast<uintptr_t>(elements<F>(b, row + Strip));
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = small + (t < larger);
    const auto run = tile_of[rows - 1].run;
    if (by_rows && t == 0) {
      run(a, b, row, Strip, part, c, ldc, Fetch::rows, onward, 0);
    } else {
      next = run(a + i, b, row, Strip, part, c + i * ldc, ldc, Fetch::lines, next, pace);
    }
    skip_kept(part, rows * Strip);
    i += rows;
  }
}

// Some inputs, or all: m rows of activations against n of weights. `onward` is how far it is from these to what is read
// next.
template <Format F, class Inputs>
void nt_block(const float* const* a, size_t m, const Weights& b, size_t row, size_t n, Inputs part, float* c, size_t ldc,
              size_t onward) {
  size_t j = 0;
  const auto strips = [&](auto run, size_t rows) {
    for (; j + rows <= n; j += rows) {
      run(a, m, b, row + j, part, c + j, ldc, j + rows == n ? onward - j * b.row_bytes : rows * b.row_bytes);
      skip_kept(part, rows * m);
    }
  };
  // Narrow ones where 12 rows leave no room for the activations, and tiles of 4 come out even or ask for less at a time.
  const bool even = (Simd::nt_sums < 16 && m % 3 == 0) || m >= kManyRows, many = kStepIsLine && m > Simd::nt_rows;
  if (!(even || many) || kStrip * (part.end - part.first) * sizeof(typename Stored<F>::T) <= kStripBytes)
    strips(nt_strip<F, kStrip, Simd::nt_rows, Inputs>, kStrip);
  strips(nt_strip<F, kNarrowStrip, Simd::nt_sums / kNarrowStrip, Inputs>, kNarrowStrip);
  strips(nt_strip<F, 1, Simd::nt_rows, Inputs>, 1);
}

// Long rows: every part of the inputs meets a block of weights and some of the activations, which stay in the second level.
template <Format F>
void nt_parts(const float* const* a, size_t m, const Weights& b, size_t n, size_t depth, size_t parts, float* c,
              size_t ldc) {
  constexpr size_t bytes = sizeof(typename Stored<F>::T);
  const size_t size = ((depth + parts - 1) / parts + W - 1) / W * W;
  alignas(64) float kept[kBlockRows * kKeptRows * W];
  for (size_t i = 0; i < m; i += kKeptRows) {
    const size_t rows = m - i < kKeptRows ? m - i : kKeptRows;
    for (size_t j = 0; j < n; j += kBlockRows) {
      const size_t block = n - j < kBlockRows ? n - j : kBlockRows;
      for (size_t first = 0; first < depth; first += size) {
        const bool last = first + size >= depth;
        // The next part of the same rows, or the first part of the rows behind them.
        const size_t onward = last ? block * b.row_bytes - first * bytes : size * bytes;
        const Part part{first, last ? depth : first + size, last, kept};
        nt_block<F>(a + i, rows, b, j, block, part, c + i * ldc + j, ldc, onward);
      }
    }
  }
}

template <Format F>
void nt(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  if (m == 0) return;
  const size_t parts = (depth + kDepthAtOnce / 2) / kDepthAtOnce;
  if (m > 1 && depth > kDeep) return nt_parts<F>(a, m, b, n, depth, parts, c, ldc);

  const Whole whole{depth};
  size_t j = 0;
  if (m == 1) {  // eight sums keep the multipliers busy
    const size_t tile = 8 * b.row_bytes, ahead = tile < kAhead ? tile : kAhead;
    for (; j + 8 <= n; j += 8) nt_tile<F, 1, 8, Fetch::rows>(a, b, j, whole, c + j, ldc, ahead);
  }
  nt_block<F>(a, m, b, j, n - j, whole, c + j, ldc, (n - j) * b.row_bytes);
}

}  // namespace
}  // namespace mythos
