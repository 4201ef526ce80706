// Products with block-wise weights of activations that are rounded to int8, block by block: integers are multiplied and
// summed exactly, and a block's sum is scaled once by both scales. A row's result does not depend on the rows beside it,
// and is the same on every instruction set but for whether a multiplication and an addition round once or twice.
//
// Included by kernels_impl.h; its rules apply.
#pragma once
#include "cpu/kernels.h"
#include "cpu/nt_blockwise.h"

namespace mythos {
namespace {

// `round` of kernels.h.
template <Format F>
void round_row(const float* x, size_t depth, int8_t* q, float* scale, int32_t* zero) {
  static_assert(Simd::half_zero == 0 || Simd::half_zero == format_of(int4).zero);
  constexpr int weights_zero = F == int4 ? Simd::half_zero : Simd::byte_zero;
  for (size_t first = 0; first < depth; first += kBlock) {
    const size_t count = depth - first < kBlock ? depth - first : kBlock;
    alignas(64) float v[kBlock];
    for (size_t d = 0; d < kBlock; ++d) v[d] = d < count ? x[first + d] : 0;
    Reg most = Simd::zero(), poison = Simd::zero();  // the latter: NaN where any is none, for a maximum may lose it
    for (size_t d = 0; d < kBlock; d += W) {
      const Reg r = Simd::load(v + d);
      most = Simd::max(most, Simd::max(r, Simd::sub(Simd::zero(), r)));
      poison = Simd::fma(r, Simd::zero(), poison);
    }
    alignas(64) float lost[W];
    Simd::store(lost, poison);
    float largest = Simd::max_of(most);
    for (size_t d = 0; d < W; ++d) largest += lost[d];
    const Reg inverse = Simd::set(largest < kLeastRounded ? 0 : 127 / largest);
    for (size_t d = 0; d < kBlock; d += W) Simd::store(v + d, Simd::round(Simd::mul(Simd::load(v + d), inverse)));
    int32_t sum = 0;
    for (size_t d = 0; d < kBlock; ++d) {
      const int32_t integer = v[d] > -127 ? static_cast<int32_t>(v[d]) : -127;  // not so for NaN, which the scale keeps
      sum += integer;
      q[first + d] = static_cast<int8_t>(integer);
    }
    scale[first / kBlock] = largest / 127;
    zero[first / kBlock] = -weights_zero * sum;
  }
}

// M rows of activations against a tile: c[M, 16]. The first rows that meet it bring what follows near: 8 rows on int8
// weights from memory took 12.4 ms without it, and 7.3 with it (Zen 4). One row of int8 does nothing but read, in order,
// and the processor then asks ahead better by itself: 2.7 ms with it, 1.9 without.
template <Format F, int M>
void r_tile(const RoundedRow* a, const Weights& b, size_t at, size_t depth, float* c, size_t ldc, bool first_rows) {
  constexpr int R = kTileRegs;
  constexpr size_t group = format_of(F).group(), lines = kBlock / group * kLine;
  const Tile<F> tile(b, at);
  const size_t bytes = kTileRows * b.row_bytes, ahead = bytes < kAhead ? bytes : kAhead;
  const bool ask = first_rows && (M > 1 || F == int4);
  Reg total[M][R];
  MYTHOS_UNROLL
  for (int i = 0; i < M; ++i) {
    MYTHOS_UNROLL
    for (int r = 0; r < R; ++r) total[i][r] = Simd::zero();
  }
  for (size_t first = 0; first < depth; first += kBlock) {
    const uint8_t* const p = tile.line(first);
    if (ask) {
      for (size_t d = 0; d < lines; d += kLine) fetch(reinterpret_cast<uintptr_t>(p) + d + ahead);
    }
    MYTHOS_UNROLL
    for (int r = 0; r < R; ++r) {
      Simd::Quads sums[M];
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) sums[i] = Simd::no_sums();
      MYTHOS_UNROLL
      for (size_t d = 0; d < kBlock; d += group) {
        const auto line = Simd::load_quads(p + d / group * kLine + r * Simd::width * kQuad);
        if constexpr (F == int4) {
          const auto low = Simd::low_halves(line), high = Simd::high_halves(line);
          MYTHOS_UNROLL
          for (int i = 0; i < M; ++i) {
            const int8_t* const q = a[i].q + first + d;
            sums[i] = Simd::dot_halves(Simd::dot_halves(sums[i], low, Simd::quad(q)), high, Simd::quad(q + kQuad));
          }
        } else {
          const auto w = Simd::bytes(line);
          MYTHOS_UNROLL
          for (int i = 0; i < M; ++i) sums[i] = Simd::dot_bytes(sums[i], w, Simd::quad(a[i].q + first + d));
        }
      }
      const Reg scale = Simd::load(tile.block(first / kBlock) + r * Simd::width);
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) {
        const auto sum = F == int4 ? Simd::of_halves(sums[i]) : sums[i];
        const Reg both = Simd::mul(scale, Simd::set(a[i].scale[first / kBlock]));
        total[i][r] = Simd::fma(Simd::sums_plus(sum, a[i].zero[first / kBlock]), both, total[i][r]);
      }
    }
  }
  MYTHOS_UNROLL
  for (int i = 0; i < M; ++i) {
    MYTHOS_UNROLL
    for (int r = 0; r < R; ++r) Simd::store(c + i * ldc + r * Simd::width, total[i][r]);
  }
}

using RTile = void (*)(const RoundedRow*, const Weights&, size_t, size_t, float*, size_t, bool);

template <int M>
constexpr int at_most_rounded_rows = M < Simd::rounded_rows ? M : Simd::rounded_rows;

template <Format F>
RTile r_tile_of(size_t m) {  // 1 <= m <= Simd::rounded_rows <= 8
  static_assert(Simd::rounded_rows <= 8);
  static constexpr RTile tiles[] = {
      r_tile<F, at_most_rounded_rows<1>>, r_tile<F, at_most_rounded_rows<2>>, r_tile<F, at_most_rounded_rows<3>>,
      r_tile<F, at_most_rounded_rows<4>>, r_tile<F, at_most_rounded_rows<5>>, r_tile<F, at_most_rounded_rows<6>>,
      r_tile<F, at_most_rounded_rows<7>>, r_tile<F, at_most_rounded_rows<8>>,
  };
  return tiles[m - 1];
}

// `nt_rounded` of kernels.h; b begins with a whole tile, n may end within one.
template <Format F>
void r_nt(const RoundedRow* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc) {
  constexpr size_t most = Simd::rounded_rows;
  const size_t groups = (m + most - 1) / most;
  for (size_t j = 0; j < n; j += kTileRows) {
    const size_t columns = n - j < kTileRows ? n - j : kTileRows;
    for (size_t g = 0, i = 0; g < groups; ++g) {  // dealt as evenly as they go
      const size_t rows = m / groups + (g < m % groups);
      if (columns == kTileRows) {
        r_tile_of<F>(rows)(a + i, b, j / kTileRows, depth, c + i * ldc + j, ldc, g == 0);
      } else {  // the last tile holds rows that are not asked for
        alignas(64) float part[most * kTileRows];
        r_tile_of<F>(rows)(a + i, b, j / kTileRows, depth, part, kTileRows, g == 0);
        for (size_t r = 0; r < rows; ++r) {
          for (size_t k = 0; k < columns; ++k) c[(i + r) * ldc + j + k] = part[r * kTileRows + k];
        }
      }
      i += rows;
    }
  }
}

}  // namespace
}  // namespace mythos
