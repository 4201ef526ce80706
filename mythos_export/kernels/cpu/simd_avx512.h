// One vector register of AVX-512, behind the names that kernels_impl.h is written in.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace mythos {
namespace {

struct Simd {
  using Reg = __m512;
  using Mask = __mmask16;
  static constexpr size_t width = 16;
  static constexpr int nt_rows = 6;      // activation rows of an nt tile at most
  static constexpr int nt_sums = 24;     // sums of one at most: 6 x 4 sums + 4 + 1 of 32 registers
  static constexpr int nn_sums = 24;     // sums of an nn tile at most: 6 x 4 or 3 x 8 sums + 4 + 1 of 32 registers
  static constexpr int panel_rows = 12;  // activation rows of a panel tile: 12 sums, for each waits for its last

  static Mask first(size_t n) { return static_cast<Mask>((1u << n) - 1u); }
  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set(float v) { return _mm512_set1_ps(v); }
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static Reg load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static Reg load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Reg load(const uint16_t* p, Mask m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }
  // 16 int8 as floats.
  static void load_int8(const int8_t* p, Reg* out) {
    out[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // 16 halves of 8 bytes as floats 0 to 15: the low ones, then the high ones.
  static void load_nibbles(const uint8_t* p, Reg* out) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), low = _mm_set1_epi8(15);
    const __m128i halves = _mm_unpacklo_epi64(_mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
    out[0] = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(halves));
  }
  static void store(float* p, Reg v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, Reg v, Mask m) { _mm512_mask_storeu_ps(p, m, v); }
  static void store(uint16_t* p, Reg v, Mask m) {
    _mm256_mask_storeu_epi16(p, m, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  // The register itself: a compiler that reads an operand from memory once for each use is kept from it.
  static Reg held(Reg v) {
    __asm__("" : "+v"(v));
    return v;
  }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  // A NaN in b comes through.
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg round(Reg a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Reg times_power_of_two(Reg a, Reg n) { return _mm512_scalef_ps(a, n); }
  static float max_of(Reg a) { return _mm512_reduce_max_ps(a); }

  // out[i] = the sum of v[i], each summed in the same order.
  static void sums_of_4(const Reg* v, float* out) {
    const Reg a = add(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const Reg b = add(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    const Reg c = add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xEE));
    const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1)));
  }
};

}  // namespace
}  // namespace mythos
