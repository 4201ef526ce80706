// One vector register of AVX2 (with FMA and F16C), behind the names that kernels_impl.h is written in.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace mythos {
namespace {

struct Simd {
  using Reg = __m256;
  struct Mask {
    __m256i lanes;
    size_t n;
  };
  static constexpr size_t width = 8;
  static constexpr int nt_rows = 4;     // activation rows of an nt tile at most
  static constexpr int nt_sums = 12;    // sums of one at most: 3 x 4 or 4 x 3 sums + 3 + 1 of 16 registers
  static constexpr int nn_sums = 12;    // sums of an nn tile at most: 6 x 2 or 4 x 3 sums + 3 + 1 of 16 registers
  static constexpr int panel_rows = 6;  // activation rows of a panel tile: 6 x 2 sums + 2 + 1 of 16 registers

  static Mask first(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane), n};
  }
  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg set(float v) { return _mm256_set1_ps(v); }
  static Reg load(const float* p) { return _mm256_loadu_ps(p); }
  static Reg load(const float* p, const Mask& m) { return _mm256_maskload_ps(p, m.lanes); }
  static Reg load(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static Reg load(const uint16_t* p, const Mask& m) {
    alignas(16) uint16_t part[8] = {};
    for (size_t i = 0; i < m.n; ++i) part[i] = p[i];
    return load(part);
  }
  // 16 int8 as floats, in two registers.
  static void load_int8(const int8_t* p, Reg* out) {
    for (int r = 0; r < 2; ++r) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8 * r));
      out[r] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    }
  }
  // 16 halves of 8 bytes as floats 0 to 15: the low ones, then the high ones.
  static void load_nibbles(const uint8_t* p, Reg* out) {
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    out[0] = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
    out[1] = _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4));
  }
  static void store(float* p, Reg v) { _mm256_storeu_ps(p, v); }
  static void store(float* p, Reg v, const Mask& m) { _mm256_maskstore_ps(p, m.lanes, v); }
  static void store(uint16_t* p, Reg v, const Mask& m) {
    alignas(16) uint16_t part[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(part),
                    _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (size_t i = 0; i < m.n; ++i) p[i] = part[i];
  }
  // The register itself: a compiler that reads an operand from memory once for each use is kept from it.
  static Reg held(Reg v) {
    __asm__("" : "+x"(v));
    return v;
  }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  // A NaN in b comes through.
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static Reg round(Reg a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  // In two steps, so that the subnormal results and the overflow to infinity come out right; |n| <= 250.
  static Reg times_power_of_two(Reg a, Reg n) {
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
    const __m256i rest = _mm256_sub_epi32(whole, half);
    const Reg low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const Reg high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return mul(mul(a, low), high);
  }
  static float max_of(Reg a) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }

  // out[i] = the sum of v[i], each summed in the same order.
  static void sums_of_4(const Reg* v, float* out) {
    const Reg a = add(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    const Reg b = add(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    const Reg c = add(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xEE));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1)));
  }
};

}  // namespace
}  // namespace mythos
