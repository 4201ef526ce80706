// Four floats in C++ with the vector types of GCC and Clang: SSE2, NEON, or plain instructions, as the compiler has
// them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mythos {
namespace {

inline float half_to_float(uint16_t h) {
  union {
    uint32_t u;
    float f;
  } out;
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
  if (magnitude >= 0x7C00u) {  // infinity, NaN
    out.u = sign | 0x7F800000u | (magnitude & 0x3FFu) << 13;
  } else if (magnitude >= 0x0400u) {
    out.u = sign | ((magnitude << 13) + 0x38000000u);
  } else {  // zero, subnormal: magnitude * 2^-24, exact in float
    out.f = static_cast<float>(magnitude) * 0x1p-24f;
    out.u |= sign;
  }
  return out.f;
}

inline uint16_t float_to_half(float f) {
  union {
    float f;
    uint32_t u;
  } in{f};
  const uint32_t sign = in.u >> 16 & 0x8000u;
  in.u &= 0x7FFFFFFFu;
  if (in.u > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u | (in.u >> 13 & 0x3FFu));
  if (in.u >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to 65536 or more
  if (in.u < 0x38800000u) {                                               // subnormal half: let the addition round
    in.f += 0.5f;
    return static_cast<uint16_t>(sign | (in.u - 0x3F000000u));
  }
  const uint32_t odd = in.u >> 13 & 1u;
  return static_cast<uint16_t>(sign | (in.u - 0x38000000u + 0xFFFu + odd) >> 13);
}

struct Simd {
  typedef float Reg __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  typedef uint32_t Unsigned __attribute__((vector_size(16)));
  struct Mask {
    size_t n;
  };
  static constexpr size_t width = 4;
#if defined(__aarch64__)
  static constexpr int nt_rows = 5;  // 32 registers
  static constexpr int nt_sums = 20;
  static constexpr int nn_sums = 24;
  static constexpr int few_rows = 2;
  static constexpr int panel_rows = 6;
#else
  static constexpr int nt_rows = 4;
  static constexpr int nt_sums = 12;
  static constexpr int nn_sums = 12;
  static constexpr int few_rows = 2;
  static constexpr int panel_rows = 2;
#endif

  static Mask first(size_t n) { return {n}; }
  static Reg zero() { return Reg{0, 0, 0, 0}; }
  static Reg set(float v) { return Reg{v, v, v, v}; }
  static Reg load(const int8_t* p) { return Reg{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
  static Reg load(const float* p) {
    Reg v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static Reg load(const float* p, Mask m) {
    Reg v = zero();
    for (size_t i = 0; i < m.n; ++i) v[i] = p[i];
    return v;
  }
  static Reg load(const uint16_t* p) { return load(p, Mask{width}); }
  static Reg load(const uint16_t* p, Mask m) {
    Reg v = zero();
    for (size_t i = 0; i < m.n; ++i) v[i] = half_to_float(p[i]);
    return v;
  }
  // Four bytes of as many rows as a register has.
  using Quads = Int;
  static Quads load_quads(const uint8_t* p) {
    Quads v;
    for (int i = 0; i < 4; ++i) {
      v[i] = static_cast<int32_t>(p[4 * i] | p[4 * i + 1] << 8 | p[4 * i + 2] << 16 | static_cast<uint32_t>(p[4 * i + 3]) << 24);
    }
    return v;
  }
  // Each row's byte I as an integer.
  static constexpr float int8_unit = 1;
  template <int I>
  static Reg int8_at(Quads v) {
    return __builtin_convertvector(Int(Unsigned(v) << (24 - 8 * I)) >> 24, Reg);
  }
  // Each row's half byte I, from the low bits up, less 8.
  static constexpr float int4_unit(int) { return 1; }
  template <int I>
  static Reg int4_at(Quads v) {
    return __builtin_convertvector((v >> 4 * I & 15) - 8, Reg);
  }
  // Sums of products of four neighbours, weights times activations in int8.
  static constexpr int rounded_rows = 2;  // activation rows of a tile
  static constexpr int half_zero = 8, byte_zero = 0;  // what halves and bytes have too much
  using Bytes = Quads;
  static Quads no_sums() { return Quads{0, 0, 0, 0}; }
  static Quads quad(const int8_t* p) {
    int32_t four;
    __builtin_memcpy(&four, p, sizeof four);
    return Quads{four, four, four, four};
  }
  static Quads low_halves(Quads v) { return v & 0x0F0F0F0F; }
  static Quads high_halves(Quads v) { return v >> 4 & 0x0F0F0F0F; }
  static Quads dot_halves(Quads sums, Quads halves, Quads x) { return dot_bytes(sums, halves, x); }
  static Quads of_halves(Quads sums) { return sums; }
  static Bytes bytes(Quads v) { return v; }
  static Quads dot_bytes(Quads sums, Bytes w, Quads x) {
    const Unsigned a = Unsigned(w), b = Unsigned(x);
    for (int shift = 0; shift < 32; shift += 8) sums += (Int(a << shift) >> 24) * (Int(b << shift) >> 24);
    return sums;
  }
  static Reg sums_plus(Quads sums, int32_t n) { return __builtin_convertvector(sums + n, Reg); }
  static void store(float* p, Reg v) { __builtin_memcpy(p, &v, sizeof v); }
  static void store(float* p, Reg v, Mask m) {
    for (size_t i = 0; i < m.n; ++i) p[i] = v[i];
  }
  static void store(uint16_t* p, Reg v, Mask m) {
    for (size_t i = 0; i < m.n; ++i) p[i] = float_to_half(v[i]);
  }
  static Reg held(Reg v) { return v; }
  static Reg add(Reg a, Reg b) { return a + b; }
  static Reg sub(Reg a, Reg b) { return a - b; }
  static Reg mul(Reg a, Reg b) { return a * b; }
  static Reg div(Reg a, Reg b) { return a / b; }
  static Reg fma(Reg a, Reg b, Reg c) { return a * b + c; }
  // A NaN in b comes through.
  static Reg max(Reg a, Reg b) { return choose(a > b, a, b); }
  static Reg min(Reg a, Reg b) { return choose(a < b, a, b); }
  // To nearest even for |a| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
  static Reg round(Reg a) { return (a + set(12582912.0f)) - set(12582912.0f); }
  // In two steps, so that the subnormal results and the overflow to infinity come out right; |n| <= 250.
  static Reg times_power_of_two(Reg a, Reg n) {
    const Int whole = __builtin_convertvector(n, Int), half = whole >> 1, rest = whole - half;
    return a * power_of_two(half) * power_of_two(rest);
  }
  static float max_of(Reg a) {
    const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
  }
  static void sums_of_4(const Reg* v, float* out) {
    for (int i = 0; i < 4; ++i) out[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
  }

 private:
  static Reg power_of_two(Int n) {  // unsigned, for n is anything where a is NaN
    const Unsigned bits = (__builtin_convertvector(n, Unsigned) + 127u) << 23;
    return as_float(__builtin_convertvector(bits, Int));
  }
  static Reg as_float(Int v) {
    Reg f;
    __builtin_memcpy(&f, &v, sizeof f);
    return f;
  }
  static Reg choose(Int mask, Reg a, Reg b) {
    Int x, y;
    __builtin_memcpy(&x, &a, sizeof x);
    __builtin_memcpy(&y, &b, sizeof y);
    return as_float((x & mask) | (y & ~mask));
  }
};

}  // namespace
}  // namespace mythos
