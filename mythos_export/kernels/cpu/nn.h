// c = keep * c + a . b, the right operand by columns: every row of b is read as it is, and a's elements are
// broadcast. A sum runs in the order of depth, so that it does not depend on the tile it is in. Part of kernels_impl.h.
#pragma once
#include "cpu/stored.h"

namespace mythos {
namespace {

// M rows of a times N registers of columns, of the operands the smaller side in registers; `Partial`: the last register
// holds only the columns of `rest`.
template <Format F, int M, int N, bool Partial>
void nn_tile(const float* a, size_t lda, const Weights& b, size_t column, size_t depth, float* c, size_t ldc,
             const float* keep, Simd::Mask rest) {
  Reg sum[M][N];
  MYTHOS_UNROLL
  for (int i = 0; i < M; ++i) {
    MYTHOS_UNROLL
    for (int j = 0; j < N; ++j) sum[i][j] = Simd::zero();
  }
  if (keep) {
    MYTHOS_UNROLL
    for (int i = 0; i < M; ++i) {
      const Reg factor = Simd::set(keep[i]);
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) {
        const float* const p = c + i * ldc + j * W;
        sum[i][j] = Simd::mul(factor, Partial && j == N - 1 ? Simd::load(p, rest) : Simd::load(p));
      }
    }
  }
  for (size_t d = 0; d < depth; ++d) {
    const auto* const p = elements<F>(b, d) + column;
    const auto weight = [&](int j) {
      return Partial && j == N - 1 ? Simd::load(p + j * W, rest) : Simd::load(p + j * W);
    };
    if constexpr (M < N) {
      Reg x[M];
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) x[i] = Simd::set(a[i * lda + d]);
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) {
        const Reg w = M == 1 ? weight(j) : Simd::held(weight(j));
        MYTHOS_UNROLL
        for (int i = 0; i < M; ++i) sum[i][j] = Simd::fma(x[i], w, sum[i][j]);
      }
    } else {
      Reg w[N];
      MYTHOS_UNROLL
      for (int j = 0; j < N; ++j) w[j] = weight(j);
      MYTHOS_UNROLL
      for (int i = 0; i < M; ++i) {
        const Reg x = Simd::set(a[i * lda + d]);
        MYTHOS_UNROLL
        for (int j = 0; j < N; ++j) sum[i][j] = Simd::fma(x, w[j], sum[i][j]);
      }
    }
  }
  MYTHOS_UNROLL
  for (int i = 0; i < M; ++i) {
    MYTHOS_UNROLL
    for (int j = 0; j < N; ++j) {
      float* const p = c + i * ldc + j * W;
      if (Partial && j == N - 1) {
        Simd::store(p, sum[i][j], rest);
      } else {
        Simd::store(p, sum[i][j]);
      }
    }
  }
}

using NnTile = void (*)(const float*, size_t, const Weights&, size_t, size_t, float*, size_t, const float*,
                        Simd::Mask);

// As many registers of columns as fill the sums of a tile of M rows, at most 8.
template <int M>
constexpr size_t nn_width = Simd::nn_sums / M < 8 ? Simd::nn_sums / M : 8;

// M rows of a against all columns, which are dealt to tiles as evenly as they go: a tile with few sums waits for them.
template <Format F, int M>
void nn_rows(const float* a, size_t lda, const Weights& b, size_t n, size_t depth, float* c, size_t ldc,
             const float* keep) {
  constexpr size_t most = nn_width<M>;
  constexpr auto at_most = [](size_t width) { return static_cast<int>(width < most ? width : most); };
  static constexpr NnTile tile_of[] = {
      nn_tile<F, M, at_most(1), false>, nn_tile<F, M, at_most(2), false>, nn_tile<F, M, at_most(3), false>,
      nn_tile<F, M, at_most(4), false>, nn_tile<F, M, at_most(5), false>, nn_tile<F, M, at_most(6), false>,
      nn_tile<F, M, at_most(7), false>, nn_tile<F, M, at_most(8), false>,
  };
  const size_t registers = n / W, tiles = (registers + most - 1) / most;
  size_t j = 0;
  for (size_t t = 0; t < tiles; ++t) {
    const size_t width = registers / tiles + (t < registers % tiles);
    tile_of[width - 1](a, lda, b, j, depth, c + j, ldc, keep, Simd::first(0));
    j += width * W;
  }
  if (j < n) nn_tile<F, M, 1, true>(a, lda, b, j, depth, c + j, ldc, keep, Simd::first(n - j));
}

template <Format F>
void nn(const float* a, size_t lda, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc,
        const float* keep) {
  using Rows = void (*)(const float*, size_t, const Weights&, size_t, size_t, float*, size_t, const float*);
  static constexpr Rows rows_of[] = {nn_rows<F, 1>, nn_rows<F, 2>, nn_rows<F, 3>,
                                     nn_rows<F, 4>, nn_rows<F, 5>, nn_rows<F, 6>};
  const size_t tiles = (m + 5) / 6;
  for (size_t t = 0, i = 0; t < tiles; ++t) {
    const size_t rows = m / tiles + (t < m % tiles);
    rows_of[rows - 1](a + i * lda, lda, b, n, depth, c + i * ldc, ldc, keep ? keep + i : nullptr);
    i += rows;
  }
}

}  // namespace
}  // namespace mythos
