// Products with block-wise int8 and int4 weights (mythos_model/formats.py has the layout: tiles of 16 rows, blocks of
// 32 inputs, a cache line for the four or eight inputs that a row has side by side). Activations and sums are float32.
// The products of a block are summed apart and scaled once, in the order of the inputs, for one row of activations as
// for many: decode and prefill agree bit for bit.
//
// Included by kernels_impl.h; its rules apply.
#pragma once
#include "cpu/kernels.h"
#include "cpu/nt.h"

namespace mythos {
namespace {

constexpr int kTileRegs = kTileRows / Simd::width;  // registers that hold the weights of one input and tile
// Tiles beside each other in a panel: with one register of weights an activation's loads would take longer than its
// products. A panel has 16 KB, and stays in the first-level cache.
constexpr int kPanelTiles = kTileRegs < 2 ? 2 : 1;
constexpr size_t kPanelDepth = 256 / kPanelTiles;
constexpr size_t kRowDepth = 2048;                  // inputs of one row that are made ready at a time
// Of one row's product: enough sums to keep the multipliers busy.
constexpr int kTilesAtOnce = kTileRegs < 4 ? 4 / kTileRegs : 1;
constexpr int kFewSums = 8;  // of few rows' product: as many again
static_assert(kPanelDepth % kBlock == 0 && kRowDepth % kBlock == 0 && kTileRows % Simd::width == 0);

// Where one tile's weights and scales are.
template <Format F>
struct Tile {
  const uint8_t* weights;
  const Scale* scales;

  Tile(const Weights& w, size_t tile)
      : weights(static_cast<const uint8_t*>(w.data) + tile * kTileRows * w.row_bytes),
        scales(w.scales + tile * kTileRows * w.scale_row) {}

  const uint8_t* line(size_t d) const { return weights + d / format_of(F).group() * kLine; }
  const Scale* block(size_t b) const { return scales + b * kTileRows; }
};

// Input I of a group, as many rows as a register has: the integers divided by unit<F>(I), a power of two.
template <Format F, int I>
Simd::Reg integers(Simd::Quads line) {
  if constexpr (F == int4) return Simd::int4_at<2 * (I % kQuad) + I / kQuad>(line);
  if constexpr (F == int8) return Simd::int8_at<I>(line);
}
template <Format F>
constexpr float unit(int i) {
  return F == int4 ? Simd::int4_unit(2 * (i % kQuad) + i / kQuad) : Simd::int8_unit;
}

// One row's inputs as `q_row` takes them: times the units of the weights that they meet, and zeros to a whole block.
// Exact, unless an activation is below 1e-28.
template <Format F>
void make_ready(const float* x, size_t depth, float* ready) {
  constexpr int group = format_of(F).group();
  for (size_t d = 0; d < (depth + kBlock - 1) / kBlock * kBlock; ++d) ready[d] = d < depth ? x[d] * unit<F>(int(d % group)) : 0;
}

// The inputs I, I + 1, ... of a group, of N tiles.
template <Format F, int N, int I>
void q_group(const float* x, const Simd::Quads (*line)[kTileRegs], Simd::Reg (*sum)[kTileRegs]) {
  if constexpr (I < int(format_of(F).group())) {
    const Simd::Reg v = Simd::set(x[I]);
    MYTHOS_UNROLL
    for (int t = 0; t < N; ++t) {
      MYTHOS_UNROLL
      for (int r = 0; r < kTileRegs; ++r) sum[t][r] = Simd::fma(v, integers<F, I>(line[t][r]), sum[t][r]);
    }
    q_group<F, N, I + 1>(x, line, sum);
  }
}

// One row of activations, made ready, N tiles of weights beside each other: c[0 .. 16 N) is written, or added to.
template <Format F, int N>
void q_row(const float* x, const Weights& b, size_t tile, size_t start, size_t depth, float* c) {
  constexpr int R = kTileRegs;
  constexpr size_t group = format_of(F).group();
  // As in nt.h: what the next tiles hold, so that weights from memory arrive in time (10 -> 17 G weights/s on Zen 3).
  const size_t tiles = N * kTileRows * b.row_bytes, ahead = tiles < kAhead ? tiles : kAhead;
  Simd::Reg total[N][R];
  MYTHOS_UNROLL
  for (int t = 0; t < N; ++t) {
    MYTHOS_UNROLL
    for (int r = 0; r < R; ++r) total[t][r] = start ? Simd::load(c + t * kTileRows + r * Simd::width) : Simd::zero();
  }
  for (size_t first = 0; first < depth; first += kBlock) {
    Simd::Reg sum[N][R];
    const uint8_t* p[N];
    MYTHOS_UNROLL
    for (int t = 0; t < N; ++t) {
      p[t] = Tile<F>(b, tile + t).line(start + first);
      MYTHOS_UNROLL
      for (int r = 0; r < R; ++r) sum[t][r] = Simd::zero();
    }
    for (size_t d = 0; d < kBlock; d += group) {
      Simd::Quads line[N][R];
      MYTHOS_UNROLL
      for (int t = 0; t < N; ++t) {
        const uint8_t* const at = p[t] + d / group * kLine;
        fetch(reinterpret_cast<uintptr_t>(at) + ahead);
        MYTHOS_UNROLL
        for (int r = 0; r < R; ++r) line[t][r] = Simd::load_quads(at + r * Simd::width * kQuad);
      }
      q_group<F, N, 0>(x + first + d, line, sum);
    }
    MYTHOS_UNROLL
    for (int t = 0; t < N; ++t) {
      const Scale* scale = Tile<F>(b, tile + t).block((start + first) / kBlock);
      MYTHOS_UNROLL
      for (int r = 0; r < R; ++r) total[t][r] = Simd::fma(sum[t][r], Simd::load(scale + r * Simd::width), total[t][r]);
    }
  }
  MYTHOS_UNROLL
  for (int t = 0; t < N; ++t) {
    MYTHOS_UNROLL
    for (int r = 0; r < R; ++r) Simd::store(c + t * kTileRows + r * Simd::width, total[t][r]);
  }
}

// The inputs I, I + 1, ... of a group, of one tile, as float [inputs][stride].
template <Format F, int I>
void unpack_group(const Simd::Quads* line, float* panel, size_t stride) {
  if constexpr (I < int(format_of(F).group())) {
    MYTHOS_UNROLL
    for (int r = 0; r < kTileRegs; ++r) {
      Simd::store(panel + I * stride + r * Simd::width, Simd::mul(integers<F, I>(line[r]), Simd::set(unit<F>(I))));
    }
    unpack_group<F, I + 1>(line, panel, stride);
  }
}

// Inputs [first, first + depth) of a tile, to whole blocks: integers as float [depth][stride], scales as float
// [blocks][stride]. Asks for as much at `next`: 4 rows on int8 weights from memory, 25.8 -> 16.2 ms (Zen 4).
template <Format F>
void unpack(const Tile<F>& tile, size_t first, size_t depth, float* panel, float* scales, size_t stride,
            const uint8_t* next) {
  constexpr size_t group = format_of(F).group();
  for (size_t d = 0; d < depth; d += group) {
    const uint8_t* const at = tile.line(first + d);
    fetch(reinterpret_cast<uintptr_t>(next + d / group * kLine));
    Simd::Quads line[kTileRegs];
    MYTHOS_UNROLL
    for (int r = 0; r < kTileRegs; ++r) line[r] = Simd::load_quads(at + r * Simd::width * kQuad);
    unpack_group<F, 0>(line, panel + d * stride, stride);
    if (d % kBlock == 0) {
      const Scale* half = tile.block((first + d) / kBlock);
      float* to = scales + d / kBlock * stride;
      for (int r = 0; r < kTileRegs; ++r) Simd::store(to + r * Simd::width, Simd::load(half + r * Simd::width));
    }
  }
}

// M rows of activations against an unpacked panel of T tiles: c[M, 16 T] is written, or added to.
template <int M, int T>
void q_panel(const float* const* a, const float* panel, const float* scales, size_t depth, float* c, size_t ldc,
             bool accumulate) {
  constexpr int R = T * kTileRegs;
  constexpr size_t stride = T * kTileRows;
  for (size_t first = 0; first < depth; first += kBlock) {
    const size_t last = depth - first < kBlock ? depth : first + kBlock;
    Simd::Reg sum[M][R];
    for (int i = 0; i < M; ++i) {
      for (int r = 0; r < R; ++r) sum[i][r] = Simd::zero();
    }
    for (size_t d = first; d < last; ++d) {
      Simd::Reg w[R];
      for (int r = 0; r < R; ++r) w[r] = Simd::load(panel + d * stride + r * Simd::width);
      for (int i = 0; i < M; ++i) {
        const Simd::Reg v = Simd::set(a[i][d]);
        for (int r = 0; r < R; ++r) sum[i][r] = Simd::fma(v, w[r], sum[i][r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      const Simd::Reg scale = Simd::load(scales + first / kBlock * stride + r * Simd::width);
      for (int i = 0; i < M; ++i) {
        float* const to = c + i * ldc + r * Simd::width;
        Simd::store(to, Simd::fma(sum[i][r], scale, accumulate || first ? Simd::load(to) : Simd::zero()));
      }
    }
  }
}

template <int M>
constexpr int at_most_panel_rows = M < Simd::panel_rows ? M : Simd::panel_rows;

using QPanel = void (*)(const float* const*, const float*, const float*, size_t, float*, size_t, bool);

template <int T>
QPanel q_panel_of(size_t m) {  // 1 <= m <= Simd::panel_rows <= 12
  static_assert(Simd::panel_rows <= 12);
  static constexpr QPanel panels[] = {
      q_panel<at_most_panel_rows<1>, T>,  q_panel<at_most_panel_rows<2>, T>,  q_panel<at_most_panel_rows<3>, T>,
      q_panel<at_most_panel_rows<4>, T>,  q_panel<at_most_panel_rows<5>, T>,  q_panel<at_most_panel_rows<6>, T>,
      q_panel<at_most_panel_rows<7>, T>,  q_panel<at_most_panel_rows<8>, T>,  q_panel<at_most_panel_rows<9>, T>,
      q_panel<at_most_panel_rows<10>, T>, q_panel<at_most_panel_rows<11>, T>, q_panel<at_most_panel_rows<12>, T>,
  };
  return panels[m - 1];
}

// All m rows of activations against T tiles: c[m, 16 T].
template <Format F, int T>
void q_tiles(const float* const* a, size_t m, const Weights& b, size_t tile, size_t depth, float* c, size_t ldc) {
  constexpr size_t most = Simd::panel_rows, stride = T * kTileRows;
  alignas(64) float panel[kPanelDepth * stride], scales[kPanelDepth / kBlock * stride];
  const size_t groups = (m + most - 1) / most;
  for (size_t first = 0; first < depth; first += kPanelDepth) {
    const size_t count = depth - first < kPanelDepth ? depth - first : kPanelDepth;
    for (int t = 0; t < T; ++t) {
      // kAhead on, and behind a tile's end in the one that has its place in the next panel.
      const Tile<F> from(b, tile + t);
      const size_t ahead = first + kAhead / kLine * format_of(F).group();
      const uint8_t* const next = ahead < depth ? from.line(ahead) : Tile<F>(b, tile + t + T).line(ahead - depth);
      unpack(from, first, count, panel + t * kTileRows, scales + t * kTileRows, stride, next);
    }
    for (size_t g = 0, i = 0; g < groups; ++g) {  // dealt as evenly as they go
      const size_t rows = m / groups + (g < m % groups);
      const float* x[most];
      for (size_t r = 0; r < rows; ++r) x[r] = a[i + r] + first;
      q_panel_of<T>(rows)(x, panel, scales, count, c + i * ldc, ldc, first > 0);
      i += rows;
    }
  }
}

// One row of activations against n rows of weights: c[n].
template <Format F>
void q_one(const float* x, const Weights& b, size_t n, size_t depth, float* c) {
  constexpr size_t N = kTilesAtOnce;
  const size_t whole = n / kTileRows, rest = n % kTileRows;
  alignas(64) float ready[kRowDepth], part[kTileRows];  // part: the last tile holds rows that are not asked for
  for (size_t start = 0; start < depth; start += kRowDepth) {
    const size_t count = depth - start < kRowDepth ? depth - start : kRowDepth;
    make_ready<F>(x + start, count, ready);
    size_t tile = 0;
    for (; tile + N <= whole; tile += N) q_row<F, N>(ready, b, tile, start, count, c + tile * kTileRows);
    for (; tile < whole; ++tile) q_row<F, 1>(ready, b, tile, start, count, c + tile * kTileRows);
    if (rest) q_row<F, 1>(ready, b, tile, start, count, part);
  }
  for (size_t j = 0; j < rest; ++j) c[whole * kTileRows + j] = part[j];
}

// The inputs I, I + 1, ... of a group, of N tiles, against M rows of activations, `stride` floats apart.
template <Format F, int M, int N, int I>
void q_group_of_rows(const float* x, size_t stride, const Simd::Quads (*line)[kTileRegs],
                     Simd::Reg (*sum)[N][kTileRegs]) {
  if constexpr (I < int(format_of(F).group())) {
    MYTHOS_UNROLL
    for (int t = 0; t < N; ++t) {
      MYTHOS_UNROLL
      for (int r = 0; r < kTileRegs; ++r) {
        const Simd::Reg w = integers<F, I>(line[t][r]);
        MYTHOS_UNROLL
        for (int i = 0; i < M; ++i) sum[i][t][r] = Simd::fma(Simd::set(x[i * stride + I]), w, sum[i][t][r]);
      }
    }
    q_group_of_rows<F, M, N, I + 1>(x, stride, line, sum);
  }
}

// M rows of activations, made ready, against N tiles: c[M, 16 N] is written, or added to where `start` is not 0.
template <Format F, int M, int N>
void q_rows(const float* x, size_t stride, const Weights& b, size_t at, size_t start, size_t depth, float* c, size_t ldc) {
  constexpr int R = kTileRegs;
  constexpr size_t group = format_of(F).group();
  const size_t bytes = kTileRows * b.row_bytes, ahead = N * bytes < kAhead ? N * bytes : kAhead;
  const Tile<F> tile(b, at);
  for (size_t first = 0; first < depth; first += kBlock) {
    const uint8_t* const p = tile.line(start + first);
    Simd::Reg sum[M][N][R];
    MYTHOS_UNROLL
    for (int i = 0; i < M; ++i) {
      MYTHOS_UNROLL
      for (int t = 0; t < N; ++t) {
        MYTHOS_UNROLL
        for (int r = 0; r < R; ++r) sum[i][t][r] = Simd::zero();
      }
    }
    for (size_t d = 0; d < kBlock; d += group) {
      Simd::Quads line[N][R];
      MYTHOS_UNROLL
      for (int t = 0; t < N; ++t) {
        const uint8_t* const from = p + t * bytes + d / group * kLine;
        fetch(reinterpret_cast<uintptr_t>(from) + ahead);
        MYTHOS_UNROLL
        for (int r = 0; r < R; ++r) line[t][r] = Simd::load_quads(from + r * Simd::width * kQuad);
      }
      q_group_of_rows<F, M, N, 0>(x + first + d, stride, line, sum);
    }
    MYTHOS_UNROLL
    for (int t = 0; t < N; ++t) {
      const Scale* const scale = Tile<F>(b, at + t).block((start + first) / kBlock);
      MYTHOS_UNROLL
      for (int r = 0; r < R; ++r) {
        const Simd::Reg s = Simd::load(scale + r * Simd::width);
        MYTHOS_UNROLL
        for (int i = 0; i < M; ++i) {
          float* const to = c + i * ldc + t * kTileRows + r * Simd::width;
          Simd::store(to, Simd::fma(sum[i][t][r], s, start || first ? Simd::load(to) : Simd::zero()));
        }
      }
    }
  }
}

// M rows of activations against n rows of weights: c[M, n]. As `q_one`: few rows would wait for their own sums in a panel
// (2 rows on int4 took 2.3 times what one does), and do not pay for writing one.
template <Format F, int M>
void q_few(const float* const* a, const Weights& b, size_t n, size_t depth, float* c, size_t ldc) {
  constexpr int wanted = kFewSums / (M * kTileRegs), N = wanted > 4 ? 4 : wanted > 1 ? wanted : 1;
  constexpr size_t most = kRowDepth / M / kBlock * kBlock;
  const size_t whole = n / kTileRows, rest = n % kTileRows;
  alignas(64) float ready[M * most], part[M * kTileRows];  // part: the last tile holds rows that are not asked for
  for (size_t start = 0; start < depth; start += most) {
    const size_t count = depth - start < most ? depth - start : most;
    for (int i = 0; i < M; ++i) make_ready<F>(a[i] + start, count, ready + i * most);
    size_t tile = 0;
    for (; tile + N <= whole; tile += N) q_rows<F, M, N>(ready, most, b, tile, start, count, c + tile * kTileRows, ldc);
    for (; tile < whole; ++tile) q_rows<F, M, 1>(ready, most, b, tile, start, count, c + tile * kTileRows, ldc);
    if (rest) q_rows<F, M, 1>(ready, most, b, tile, start, count, part, kTileRows);
  }
  for (int i = 0; i < M; ++i) {
    for (size_t j = 0; j < rest; ++j) c[i * ldc + whole * kTileRows + j] = part[i * kTileRows + j];
  }
}

template <int M>
constexpr int at_most_few_rows = M < Simd::few_rows ? M : Simd::few_rows;

using QFew = void (*)(const float* const*, const Weights&, size_t, size_t, float*, size_t);

template <Format F>
QFew q_few_of(size_t m) {  // 2 <= m <= Simd::few_rows <= 4
  static_assert(Simd::few_rows <= 4);
  static constexpr QFew few[] = {q_few<F, at_most_few_rows<2>>, q_few<F, at_most_few_rows<3>>,
                                 q_few<F, at_most_few_rows<4>>};
  return few[m - 2];
}

// `nt` of kernels.h; b begins with a whole tile, n may end within one.
template <Format F>
void q_nt(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  constexpr size_t most = Simd::panel_rows;
  const size_t whole = n / kTileRows, rest = n % kTileRows;
  if (m == 1) return q_one<F>(a[0], b, n, depth, c);
  if (m <= Simd::few_rows) return q_few_of<F>(m)(a, b, n, depth, c, ldc);
  size_t tile = 0;
  for (; tile + kPanelTiles <= whole; tile += kPanelTiles)
    q_tiles<F, kPanelTiles>(a, m, b, tile, depth, c + tile * kTileRows, ldc);
  for (; tile < whole; ++tile) q_tiles<F, 1>(a, m, b, tile, depth, c + tile * kTileRows, ldc);
  for (size_t i = 0; rest && i < m; i += most) {  // the last tile holds rows that are not asked for
    const size_t rows = m - i < most ? m - i : most;
    alignas(64) float part[most * kTileRows];
    q_tiles<F, 1>(a + i, rows, b, whole, depth, part, kTileRows);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t j = 0; j < rest; ++j) c[(i + r) * ldc + whole * kTileRows + j] = part[r * kTileRows + j];
    }
  }
}

}  // namespace
}  // namespace mythos
