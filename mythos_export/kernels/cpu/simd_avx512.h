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
  static constexpr int few_rows = 4;  // activation rows that meet weights without a panel
  static constexpr int panel_rows = 8;   // activation rows of a panel tile: 8 x 2 sums + 2 + 1 of 32 registers

  static Mask first(size_t n) { return static_cast<Mask>((1u << n) - 1u); }
  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set(float v) { return _mm512_set1_ps(v); }
  static Reg load(const float* p) { return _mm512_loadu_ps(p); }
  static Reg load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
  static Reg load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Reg load(const uint16_t* p, Mask m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }
  static Reg load(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // Four bytes of as many rows as a register has.
  using Quads = __m512i;
  static Quads load_quads(const uint8_t* p) { return _mm512_loadu_si512(p); }
  // Each row's byte I as an integer, times 2^24: they are moved to the top, for no shift keeps the sign on its way down.
  static constexpr float int8_unit = 0x1p-24f;
  template <int I>
  static Reg int8_at(Quads v) {
    if (I < 3) v = _mm512_slli_epi32(v, 24 - 8 * I);
    if (I > 0) v = _mm512_and_si512(v, _mm512_set1_epi32(-0x1000000));
    return _mm512_cvtepi32_ps(v);
  }
  // Each row's half byte I, from the low bits up, less 8: from a table, whose index is the low four bits.
  static constexpr float int4_unit(int) { return 1; }
  template <int I>
  static Reg int4_at(Quads v) {
    const Reg table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return _mm512_permutexvar_ps(I > 0 ? _mm512_srli_epi32(v, 4 * I) : v, table);
  }
  // Sums of products of four neighbours, weights times activations in int8. Half bytes are taken as they are stored, with
  // their zero. With VNNI, one side has no sign: 128 is added to int8 weights, which costs an instruction that its
  // multipliers have no part in. Without it, sums of half bytes stay within 16 bits (8 x 2 x 15 x 127).
  static constexpr int rounded_rows = 8;  // activation rows of a tile: 8 results + 8 sums + 3 of 32 registers
  static constexpr int half_zero = 8;  // what halves have too much
  static Quads no_sums() { return _mm512_setzero_si512(); }
  static Quads quad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static Quads low_halves(Quads v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
  static Quads high_halves(Quads v) { return low_halves(_mm512_srli_epi16(v, 4)); }
#if defined(__AVX512VNNI__)
  static constexpr int byte_zero = 128;  // and bytes
  using Bytes = Quads;
  static Quads dot_halves(Quads sums, Quads halves, Quads x) { return _mm512_dpbusd_epi32(sums, halves, x); }
  static Quads of_halves(Quads sums) { return sums; }
  static Bytes bytes(Quads v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
  static Quads dot_bytes(Quads sums, Bytes w, Quads x) { return _mm512_dpbusd_epi32(sums, w, x); }
#else
  static constexpr int byte_zero = 0;
  struct Bytes {
    __mmask64 negative;
    Quads magnitudes;
  };
  static Quads dot_halves(Quads sums, Quads halves, Quads x) {
    return _mm512_add_epi16(sums, _mm512_maddubs_epi16(halves, x));
  }
  static Quads of_halves(Quads sums) { return _mm512_madd_epi16(sums, _mm512_set1_epi16(1)); }
  static Bytes bytes(Quads v) { return {_mm512_movepi8_mask(v), _mm512_abs_epi8(v)}; }
  static Quads dot_bytes(Quads sums, const Bytes& w, Quads x) {  // 2 x 127 x 127 are within 16 bits
    const Quads turned = _mm512_mask_sub_epi8(x, w.negative, _mm512_setzero_si512(), x);
    return _mm512_add_epi32(sums, _mm512_madd_epi16(_mm512_maddubs_epi16(w.magnitudes, turned), _mm512_set1_epi16(1)));
  }
#endif
  static Reg sums_plus(Quads sums, int32_t n) {
    return _mm512_cvtepi32_ps(_mm512_add_epi32(sums, _mm512_set1_epi32(n)));
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
