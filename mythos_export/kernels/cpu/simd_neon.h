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
  // 16 int8 as floats, in four registers.
  static void load_int8(const int8_t* p, Reg* out) { widen(vld1q_s8(p), out); }
  // 16 halves of 8 bytes as floats 0 to 15: the low ones, then the high ones.
  static void load_nibbles(const uint8_t* p, Reg* out) {
    const uint8x8_t bytes = vld1_u8(p);
    const uint8x16_t halves = vcombine_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
    widen(vreinterpretq_s8_u8(halves), out);
  }
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
  static Reg power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }
  static void widen(int8x16_t bytes, Reg* out) {
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    out[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    out[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
    out[2] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    out[3] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
  }
};

}  // namespace
}  // namespace mythos
