// Products with block-wise int8 and int4 weights (mythos_model/formats.py has the layout: tiles of 16 rows, blocks of
// 32 inputs). Activations and sums are float32. The products of a block are summed apart and scaled once, in the order
// of the inputs, for one row of activations as for many: decode and prefill agree bit for bit.
//
// Included by kernels_impl.h; its rules apply.
#pragma once
#include "cpu/kernels.h"
#include "cpu/nt.h"

namespace mythos {
namespace {

constexpr int kTileRegs = kTileRows / Simd::width;  // registers that hold the weights of one input and tile
constexpr size_t kPanelDepth = 256;                 // 16 KB: a panel stays in the first-level cache
// Of one row's product: enough sums to keep the multipliers busy.
constexpr int kTilesAtOnce = kTileRegs < 4 ? 4 / kTileRegs : 1;
static_assert(kPanelDepth % kBlock == 0 && kTileRows % Simd::width == 0);

// Where one tile's weights and scales are.
template <Format F>
struct Tile {
  static constexpr size_t input_bytes = format_of(F).input_bytes();
  const uint8_t* weights;
  const Scale* scales;

  Tile(const Weights& w, size_t tile)
      : weights(static_cast<const uint8_t*>(w.data) + tile * kTileRows * w.row_bytes),
        scales(w.scales + tile * kTileRows * w.scale_row) {}

  const uint8_t* input(size_t d) const { return weights + d * input_bytes; }
  const Scale* block(size_t b) const { return scales + b * kTileRows; }
};

// The integers of one input, 16 rows, as floats.
template <Format F>
void integers(const uint8_t* p, Simd::Reg* out) {
  if constexpr (F == int4) {
    Simd::load_nibbles(p, out);
    const Simd::Reg zero = Simd::set(format_of(F).zero);
    for (int r = 0; r < kTileRegs; ++r) out[r] = Simd::sub(out[r], zero);
  } else {
    Simd::load_int8(reinterpret_cast<const int8_t*>(p), out);
  }
}

// One row of activations, N tiles of weights beside each other: c[0 .. 16 N).
template <Format F, int N>
void q_row(const float* x, const Weights& b, size_t tile, size_t depth, float* c) {
  constexpr int R = kTileRegs;
  // As in nt.h: what the next tiles hold, so that weights from memory arrive in time (10 -> 17 G weights/s on Zen 3).
  const size_t tiles = N * kTileRows * b.row_bytes, ahead = tiles < kAhead ? tiles : kAhead;
  Simd::Reg total[N][R];
  for (int t = 0; t < N; ++t) {
    for (int r = 0; r < R; ++r) total[t][r] = Simd::zero();
  }
  for (size_t first = 0; first < depth; first += kBlock) {
    const size_t count = depth - first < kBlock ? depth - first : kBlock;
    Simd::Reg sum[N][R];
    const uint8_t* p[N];
    for (int t = 0; t < N; ++t) {
      p[t] = Tile<F>(b, tile + t).input(first);
      for (int r = 0; r < R; ++r) sum[t][r] = Simd::zero();
    }
    for (size_t d = 0; d < count; ++d) {
      const Simd::Reg v = Simd::set(x[first + d]);
      for (int t = 0; t < N; ++t) {
        const size_t at = d * Tile<F>::input_bytes;
        if (at % 64 == 0) {
          __builtin_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(p[t]) + at + ahead), 0, 2);
        }
        Simd::Reg w[R];
        integers<F>(p[t] + at, w);
        for (int r = 0; r < R; ++r) sum[t][r] = Simd::fma(v, w[r], sum[t][r]);
      }
    }
    for (int t = 0; t < N; ++t) {
      const Scale* scale = Tile<F>(b, tile + t).block(first / kBlock);
      for (int r = 0; r < R; ++r) total[t][r] = Simd::fma(sum[t][r], Simd::load(scale + r * Simd::width), total[t][r]);
    }
  }
  for (int t = 0; t < N; ++t) {
    for (int r = 0; r < R; ++r) Simd::store(c + t * kTileRows + r * Simd::width, total[t][r]);
  }
}

// Inputs [first, first + depth) of a tile: integers as float [depth][16], scales as float [blocks][16].
template <Format F>
void unpack(const Tile<F>& tile, size_t first, size_t depth, float* panel, float* scales) {
  for (size_t d = 0; d < depth; ++d) {
    Simd::Reg w[kTileRegs];
    integers<F>(tile.input(first + d), w);
    for (int r = 0; r < kTileRegs; ++r) Simd::store(panel + d * kTileRows + r * Simd::width, w[r]);
    if (d % kBlock == 0) {
      const Scale* half = tile.block((first + d) / kBlock);
      float* to = scales + d / kBlock * kTileRows;
      for (int r = 0; r < kTileRegs; ++r) Simd::store(to + r * Simd::width, Simd::load(half + r * Simd::width));
    }
  }
}

// M rows of activations against an unpacked panel: c[M, 16] is written, or added to.
template <int M>
void q_panel(const float* const* a, const float* panel, const float* scales, size_t depth, float* c, size_t ldc,
             bool accumulate) {
  constexpr int R = kTileRegs;
  for (size_t first = 0; first < depth; first += kBlock) {
    const size_t last = depth - first < kBlock ? depth : first + kBlock;
    Simd::Reg sum[M][R];
    for (int i = 0; i < M; ++i) {
      for (int r = 0; r < R; ++r) sum[i][r] = Simd::zero();
    }
    for (size_t d = first; d < last; ++d) {
      Simd::Reg w[R];
      for (int r = 0; r < R; ++r) w[r] = Simd::load(panel + d * kTileRows + r * Simd::width);
      for (int i = 0; i < M; ++i) {
        const Simd::Reg v = Simd::set(a[i][d]);
        for (int r = 0; r < R; ++r) sum[i][r] = Simd::fma(v, w[r], sum[i][r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      const Simd::Reg scale = Simd::load(scales + first / kBlock * kTileRows + r * Simd::width);
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

inline QPanel q_panel_of(size_t m) {  // 1 <= m <= Simd::panel_rows <= 12
  static_assert(Simd::panel_rows <= 12);
  static constexpr QPanel panels[] = {
      q_panel<at_most_panel_rows<1>>,  q_panel<at_most_panel_rows<2>>,  q_panel<at_most_panel_rows<3>>,
      q_panel<at_most_panel_rows<4>>,  q_panel<at_most_panel_rows<5>>,  q_panel<at_most_panel_rows<6>>,
      q_panel<at_most_panel_rows<7>>,  q_panel<at_most_panel_rows<8>>,  q_panel<at_most_panel_rows<9>>,
      q_panel<at_most_panel_rows<10>>, q_panel<at_most_panel_rows<11>>, q_panel<at_most_panel_rows<12>>,
  };
  return panels[m - 1];
}

// All m rows of activations against one tile: c[m, 16].
template <Format F>
void q_tile(const float* const* a, size_t m, const Weights& b, size_t tile, size_t depth, float* c, size_t ldc) {
  constexpr size_t most = Simd::panel_rows;
  alignas(64) float panel[kPanelDepth * kTileRows], scales[kPanelDepth / kBlock * kTileRows];
  const size_t groups = (m + most - 1) / most;
  const Tile<F> from(b, tile);
  for (size_t first = 0; first < depth; first += kPanelDepth) {
    const size_t count = depth - first < kPanelDepth ? depth - first : kPanelDepth;
    unpack(from, first, count, panel, scales);
    for (size_t g = 0, i = 0; g < groups; ++g) {  // dealt as evenly as they go
      const size_t rows = m / groups + (g < m % groups);
      const float* x[most];
      for (size_t r = 0; r < rows; ++r) x[r] = a[i + r] + first;
      q_panel_of(rows)(x, panel, scales, count, c + i * ldc, ldc, first > 0);
      i += rows;
    }
  }
}

// `nt` of kernels.h; b begins with a whole tile, n may end within one.
template <Format F>
void q_nt(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  constexpr size_t N = kTilesAtOnce, most = Simd::panel_rows;
  const size_t whole = n / kTileRows, rest = n % kTileRows;
  size_t tile = 0;
  if (m == 1) {
    for (; tile + N <= whole; tile += N) q_row<F, N>(a[0], b, tile, depth, c + tile * kTileRows);
    for (; tile < whole; ++tile) q_row<F, 1>(a[0], b, tile, depth, c + tile * kTileRows);
  } else {
    for (; tile < whole; ++tile) q_tile<F>(a, m, b, tile, depth, c + tile * kTileRows, ldc);
  }
  for (size_t i = 0; rest && i < m; i += most) {  // the last tile holds rows that are not asked for
    const size_t rows = m - i < most ? m - i : most;
    alignas(64) float part[most * kTileRows];
    if (rows == 1) {
      q_row<F, 1>(a[i], b, tile, depth, part);
    } else {
      q_tile<F>(a + i, rows, b, tile, depth, part, kTileRows);
    }
    for (size_t r = 0; r < rows; ++r) {
      for (size_t j = 0; j < rest; ++j) c[(i + r) * ldc + tile * kTileRows + j] = part[r * kTileRows + j];
    }
  }
}

}  // namespace
}  // namespace mythos
