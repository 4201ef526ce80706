// Parts of cache lines rounded to int8 (mythos_model/cache_lines.py), for the table of kernels. A scale is the nearest
// bfloat16, and an integer of 8 bits times one is exact: what comes out is the same on every instruction set.
//
// Included by kernels_impl.h; its rules apply.
#pragma once
#include "cpu/kernels.h"
#include "cpu/stored.h"

namespace mythos {
namespace {

inline float of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// The nearest bfloat16, of two as near the even one.
inline uint16_t bfloat16_of(float value) {
  if (value != value) return 0x7FC0;
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

// `round_part` of kernels.h.
uint16_t round_part(const float* x, size_t n, int8_t* q) {
  Reg most = Simd::zero(), poison = Simd::zero();  // the latter: NaN where any is none, for a maximum may lose it
  const auto see = [&](Reg r) {
    most = Simd::max(most, Simd::max(r, Simd::sub(Simd::zero(), r)));
    poison = Simd::fma(r, Simd::zero(), poison);
  };
  size_t i = 0;
  for (; i + W <= n; i += W) see(Simd::load(x + i));
  if (i < n) see(Simd::load(x + i, Simd::first(n - i)));
  alignas(64) float lost[W];
  Simd::store(lost, poison);
  float largest = Simd::max_of(most);
  for (size_t d = 0; d < W; ++d) largest += lost[d];
  const uint16_t stored = largest < kLeastRounded ? 0 : bfloat16_of(largest / 127);
  const float scale = of_bits(static_cast<uint32_t>(stored) << 16);
  if (!(scale > 0)) {  // of a NaN, which the scale keeps, the integers are nothing
    for (size_t d = 0; d < n; ++d) q[d] = 0;
    return stored;
  }
  const Reg divisor = Simd::set(scale);
  for (i = 0; i < n; i += W) {
    const size_t count = n - i < W ? n - i : W;
    const Reg r = count == W ? Simd::load(x + i) : Simd::load(x + i, Simd::first(count));
    alignas(64) float v[W];
    Simd::store(v, Simd::round(Simd::div(r, divisor)));
    for (size_t d = 0; d < count; ++d) q[i + d] = static_cast<int8_t>(static_cast<int32_t>(v[d]));
  }
  return stored;
}

// `unpack_part` of kernels.h.
void unpack_part(const int8_t* q, uint16_t stored, float* y, size_t n) {
  const float scale = of_bits(static_cast<uint32_t>(stored) << 16);
  const Reg factor = Simd::set(scale);
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::mul(Simd::load(q + i), factor));
  for (; i < n; ++i) y[i] = static_cast<float>(q[i]) * scale;
}

}  // namespace
}  // namespace mythos
