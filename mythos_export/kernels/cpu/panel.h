// A panel: 16 rows of weights, transposed to float [depth][16] into the first or second cache, where every row of
// activations meets it. For weights that are not float32 by rows anyway (a format that is unpacked once for many rows),
// and for many rows, where the transposition costs little and the sums of a tile need no adding across a register.
//
// Included by the micro-kernels after their simd_*.h; the rules of kernels_impl.h apply.
#pragma once
#include <cstddef>

namespace mythos {
namespace {

constexpr size_t kPanelWidth = 16;

// c[i*ldc + j] = start + sum over d < depth of a[i][d * step] * panel[d, j];  i < M, j < 16. The start is c's old value
// if `accumulate`, else 0. Each sum runs in the order of d, so that a depth cut into several panels gives the same bits.
template <int M>
void panel_tile(const float* const* a, size_t step, const float* panel, size_t depth, float* c, size_t ldc,
                bool accumulate) {
  constexpr int N = kPanelWidth / Simd::width;
  Simd::Reg sum[M][N];
  const float* ap[M];
  for (int i = 0; i < M; ++i) {
    ap[i] = a[i];
    for (int j = 0; j < N; ++j) sum[i][j] = accumulate ? Simd::load(c + i * ldc + j * Simd::width) : Simd::zero();
  }
  for (size_t d = 0, at = 0; d < depth; ++d, at += step) {
    Simd::Reg w[N];
    for (int j = 0; j < N; ++j) w[j] = Simd::load(panel + d * kPanelWidth + j * Simd::width);
    for (int i = 0; i < M; ++i) {
      const Simd::Reg x = Simd::set(ap[i][at]);
      for (int j = 0; j < N; ++j) sum[i][j] = Simd::fma(x, w[j], sum[i][j]);
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) Simd::store(c + i * ldc + j * Simd::width, sum[i][j]);
  }
}

using PanelTile = void (*)(const float* const*, size_t, const float*, size_t, float*, size_t, bool);

template <int M>
constexpr int at_most_panel_rows = M < Simd::panel_rows ? M : Simd::panel_rows;

// The tile of m rows, 1 <= m <= Simd::panel_rows <= 12.
inline PanelTile panel_tile_of(size_t m) {
  static_assert(Simd::panel_rows <= 12);
  static constexpr PanelTile tiles[] = {
      panel_tile<at_most_panel_rows<1>>,  panel_tile<at_most_panel_rows<2>>,  panel_tile<at_most_panel_rows<3>>,
      panel_tile<at_most_panel_rows<4>>,  panel_tile<at_most_panel_rows<5>>,  panel_tile<at_most_panel_rows<6>>,
      panel_tile<at_most_panel_rows<7>>,  panel_tile<at_most_panel_rows<8>>,  panel_tile<at_most_panel_rows<9>>,
      panel_tile<at_most_panel_rows<10>>, panel_tile<at_most_panel_rows<11>>, panel_tile<at_most_panel_rows<12>>,
  };
  return tiles[m - 1];
}

// All m rows of activations against one panel, dealt to tiles as evenly as they go.
inline void panel_product(const float* const* a, size_t m, const float* panel, size_t depth, float* c, size_t ldc,
                          bool accumulate) {
  const size_t tiles = (m + Simd::panel_rows - 1) / Simd::panel_rows;
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = m / tiles + (t < m % tiles);
    panel_tile_of(rows)(a + i, 1, panel, depth, c + i * ldc, ldc, accumulate);
    i += rows;
  }
}

}  // namespace
}  // namespace mythos
