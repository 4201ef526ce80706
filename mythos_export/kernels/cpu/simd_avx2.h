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
  static constexpr int few_rows = 2;  // activation rows that meet weights without a panel: of more, sums leave the 16 registers
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
  static Reg load(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // Four bytes of as many rows as a register has.
  using Quads = __m256i;
  static Quads load_quads(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  // Each row's byte I as an integer, times 2^24: they are moved to the top, for no shift keeps the sign on its way down.
  static constexpr float int8_unit = 0x1p-24f;
  template <int I>
  static Reg int8_at(Quads v) {
    if (I < 3) v = _mm256_slli_epi32(v, 24 - 8 * I);
    if (I > 0) v = _mm256_and_si256(v, _mm256_set1_epi32(-0x1000000));
    return _mm256_cvtepi32_ps(v);
  }
  // Each row's half byte I, from the low bits up, less 8; times 16^I, for it is converted where it lies.
  static constexpr float int4_unit(int i) { return 1.0f / static_cast<float>(1u << 4 * i); }
  template <int I>
  static Reg int4_at(Quads v) {
    const auto at = [](uint32_t bits) { return _mm256_set1_epi32(static_cast<int>(bits << 4 * I)); };
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_and_si256(v, at(15)), at(8)));
  }
  // Sums of products of four neighbours, weights times activations in int8. Half bytes are taken as they are stored, with
  // their zero; their sums of a block stay within 16 bits (8 x 2 x 15 x 127).
  static constexpr int rounded_rows = 4;  // activation rows of a tile: 4 x 2 results + 4 sums + 3 of 16 registers
  static constexpr int half_zero = 8, byte_zero = 0;  // what halves and bytes have too much
  struct Bytes {
    Quads signs, magnitudes;
  };
  static Quads no_sums() { return _mm256_setzero_si256(); }
  static Quads quad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
  }
  static Quads low_halves(Quads v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
  static Quads high_halves(Quads v) { return low_halves(_mm256_srli_epi16(v, 4)); }
  static Quads dot_halves(Quads sums, Quads halves, Quads x) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(halves, x));
  }
  static Quads of_halves(Quads sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
  static Bytes bytes(Quads v) { return {v, _mm256_abs_epi8(v)}; }
  static Quads dot_bytes(Quads sums, const Bytes& w, Quads x) {  // 2 x 127 x 127 are within 16 bits
    const Quads pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(x, w.signs));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static Reg sums_plus(Quads sums, int32_t n) {
    return _mm256_cvtepi32_ps(_mm256_add_epi32(sums, _mm256_set1_epi32(n)));
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
