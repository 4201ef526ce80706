// The elements of a row of weights, as they are in memory. Part of kernels_impl.h, and included after a simd_*.h.
#pragma once
#include "cpu/kernels.h"

// Before a loop over registers: they stay in registers only where the loop is gone before arrays are taken apart.
#if defined(__clang__)
#define MYTHOS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MYTHOS_UNROLL _Pragma("GCC unroll 16")
#endif

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

}  // namespace
}  // namespace mythos
