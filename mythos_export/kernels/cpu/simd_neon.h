// One vector register of NEON, as every 64-bit ARM processor has it, behind the names that kernels_impl.h is written in.
#pragma once
#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace mythos {
namespace {

struct Simd {
  using Reg = float32x4_t;
  struct Mask {
    size_t n;
  };
  static constexpr size_t width = 4;
  static constexpr int nt_rows = 5;     // activation rows of an nt tile at most
  static constexpr int nt_sums = 20;    // sums of one at most, of 32 registers
  static constexpr int nn_sums = 24;    // sums of an nn tile at most
  static constexpr int few_rows = 2;  // activation rows that meet weights without a panel
  static constexpr int panel_rows = 6;  // activation rows of a panel tile: 6 x 4 sums + 4 + 1 of 32 registers

  static Mask first(size_t n) { return {n}; }
  static Reg zero() { return vdupq_n_f32(0); }
  static Reg set(float v) { return vdupq_n_f32(v); }
  static Reg load(const float* p) { return vld1q_f32(p); }
  static Reg load(const float* p, const Mask& m) {
    alignas(16) float part[4] = {};
    for (size_t i = 0; i < m.n; ++i) part[i] = p[i];
    return vld1q_f32(part);
  }
  static Reg load(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static Reg load(const uint16_t* p, const Mask& m) {
    alignas(8) uint16_t part[4] = {};
    for (size_t i = 0; i < m.n; ++i) part[i] = p[i];
    return load(part);
  }
  static Reg load(const int8_t* p) { return Reg{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
  // Four bytes of as many rows as a register has.
  using Quads = int32x4_t;
  static Quads load_quads(const uint8_t* p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
  // Each row's byte I as an integer.
  static constexpr float int8_unit = 1;
  template <int I>
  static Reg int8_at(Quads v) {
    if (I < 3) v = vshlq_n_s32(v, (24 - 8 * I) & 31);
    return vcvtq_n_f32_s32(I > 0 ? vandq_s32(v, vdupq_n_s32(-0x1000000)) : v, 24);
  }
  // Each row's half byte I, from the low bits up, less 8.
  static constexpr float int4_unit(int) { return 1; }
  template <int I>
  static Reg int4_at(Quads v) {
    const auto at = [](uint32_t bits) { return vdupq_n_s32(static_cast<int32_t>(bits << 4 * I)); };
    const int32x4_t integer = vsubq_s32(vandq_s32(v, at(15)), at(8));
    if constexpr (I == 0) return vcvtq_f32_s32(integer);
    if constexpr (I > 0) return vcvtq_n_f32_s32(integer, 4 * I);
  }
  // Sums of products of four neighbours, weights times activations in int8.
  static constexpr int rounded_rows = 4;  // activation rows of a tile: 4 x 4 results + 4 sums + 3 of 32 registers
  static constexpr int half_zero = 0, byte_zero = 0;  // what halves and bytes have too much
  using Bytes = Quads;
  static Quads no_sums() { return vdupq_n_s32(0); }
  static Quads quad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return vdupq_n_s32(four);
  }
  static Quads low_halves(Quads v) { return less_8(vandq_u8(vreinterpretq_u8_s32(v), vdupq_n_u8(15))); }
  static Quads high_halves(Quads v) { return less_8(vshrq_n_u8(vreinterpretq_u8_s32(v), 4)); }
  static Quads dot_halves(Quads sums, Quads halves, Quads x) { return dot_bytes(sums, halves, x); }
  static Quads of_halves(Quads sums) { return sums; }
  static Bytes bytes(Quads v) { return v; }
  static Quads dot_bytes(Quads sums, Bytes w, Quads x) {
    const int8x16_t a = vreinterpretq_s8_s32(w), b = vreinterpretq_s8_s32(x);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sums, a, b);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_s8(vget_high_s8(a), vget_high_s8(b));
    return vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
  }
  static Reg sums_plus(Quads sums, int32_t n) { return vcvtq_f32_s32(vaddq_s32(sums, vdupq_n_s32(n))); }
  static void store(float* p, Reg v) { vst1q_f32(p, v); }
  static void store(float* p, Reg v, const Mask& m) {
    alignas(16) float part[4];
    vst1q_f32(part, v);
    for (size_t i = 0; i < m.n; ++i) p[i] = part[i];
  }
  static void store(uint16_t* p, Reg v, const Mask& m) {
    alignas(8) uint16_t part[4];
    vst1_u16(part, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    for (size_t i = 0; i < m.n; ++i) p[i] = part[i];
  }
  static Reg held(Reg v) { return v; }
  static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
  static Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
  static Reg mul(Reg a, Reg b) { return vmulq_f32(a, b); }
  static Reg div(Reg a, Reg b) { return vdivq_f32(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  // A NaN comes through.
  static Reg max(Reg a, Reg b) { return vmaxq_f32(a, b); }
  static Reg min(Reg a, Reg b) { return vminq_f32(a, b); }
  static Reg round(Reg a) { return vrndnq_f32(a); }
  // In two steps, so that the subnormal results and the overflow to infinity come out right; |n| <= 250.
  static Reg times_power_of_two(Reg a, Reg n) {
    const int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(a, power_of_two(half)), power_of_two(vsubq_s32(whole, half)));
  }
  static float max_of(Reg a) { return vmaxvq_f32(a); }
  // out[i] = the sum of v[i], each summed in the same order.
  static void sums_of_4(const Reg* v, float* out) {
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
  }

 private:
  static Quads less_8(uint8x16_t v) {
    return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(8)));
  }
  static Reg power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }
};

}  // namespace
}  // namespace mythos
