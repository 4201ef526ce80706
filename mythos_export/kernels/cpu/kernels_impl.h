// The micro-kernels, written once over `Simd` and compiled once per instruction set (kernels_generic.cpp,
// kernels_avx2.cpp and the others include this after their simd_*.h). Everything here is in an unnamed namespace and uses nothing of the standard library but types: code compiled for a new processor must not be
// linked into what an old one runs.
#pragma once
#include "cpu/line_parts.h"
#include "cpu/nn.h"
#include "cpu/nt.h"
#include "cpu/nt_blockwise.h"
#include "cpu/nt_rounded.h"
#include "cpu/stored.h"

namespace mythos {
namespace {

// -- element by element ----------------------------------------------------------------------------------

// exp(x) to about 1 unit in the last place: 2^n * e^r with |r| <= ln(2)/2, the polynomial of Cephes' expf.
Reg exp(Reg x) {
  // Beyond these bounds the result is 0 and infinity anyway; inside, n stays in the range of times_power_of_two.
  x = Simd::min(Simd::set(104.0f), Simd::max(Simd::set(-106.0f), x));
  const Reg n = Simd::round(Simd::mul(x, Simd::set(1.44269504088896341f)));
  Reg r = Simd::fma(n, Simd::set(-0.693359375f), x);
  r = Simd::fma(n, Simd::set(2.12194440e-4f), r);
  Reg p = Simd::set(1.9875691500e-4f);
  p = Simd::fma(p, r, Simd::set(1.3981999507e-3f));
  p = Simd::fma(p, r, Simd::set(8.3334519073e-3f));
  p = Simd::fma(p, r, Simd::set(4.1665795894e-2f));
  p = Simd::fma(p, r, Simd::set(1.6666665459e-1f));
  p = Simd::fma(p, r, Simd::set(5.0000001201e-1f));
  p = Simd::add(Simd::fma(p, Simd::mul(r, r), r), Simd::set(1.0f));
  return Simd::times_power_of_two(p, n);
}

Reg silu_times(Reg gate, Reg up) {
  const Reg one = Simd::set(1.0f);
  return Simd::mul(Simd::div(gate, Simd::add(one, exp(Simd::sub(Simd::zero(), gate)))), up);
}

void silu_mul(const float* gate, const float* up, float* h, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(h + i, silu_times(Simd::load(gate + i), Simd::load(up + i)));
  if (i < n) {
    const auto rest = Simd::first(n - i);
    Simd::store(h + i, silu_times(Simd::load(gate + i, rest), Simd::load(up + i, rest)), rest);
  }
}

void softmax_block(float* scores, size_t rows, size_t n, float scale, float* max, float* sum, float* keep) {
  const float none = -__builtin_inff();
  const size_t padded = (n + W - 1) / W * W;
  // Three passes, so that the rows, which do not wait for each other, overlap.
  for (size_t i = 0; i < rows; ++i) {
    float* const s = scores + i * kKeyBlock;
    for (size_t j = n; j < padded; ++j) s[j] = none;  // whole registers from here on: exp(-inf) adds nothing
    Reg top = Simd::set(none);
    for (size_t j = 0; j < padded; j += W) {
      const Reg v = Simd::mul(Simd::load(s + j), Simd::set(scale));
      top = Simd::max(top, v);
      Simd::store(s + j, v);
    }
    const float best = Simd::max_of(top);
    keep[i] = max[i];
    max[i] = best > max[i] ? best : max[i];
  }
  for (size_t i = 0; i < rows; i += W) {
    const auto part = Simd::first(rows - i < W ? rows - i : W);
    Simd::store(keep + i, exp(Simd::sub(Simd::load(keep + i, part), Simd::load(max + i, part))), part);
  }
  for (size_t i = 0; i < rows; ++i) {
    float* const s = scores + i * kKeyBlock;
    if (max[i] == none) {  // nothing was allowed so far
      for (size_t j = 0; j < padded; ++j) s[j] = 0;
      keep[i] = 1.0f;
      continue;
    }
    Reg total = Simd::zero();
    for (size_t j = 0; j < padded; j += W) {
      const Reg p = exp(Simd::sub(Simd::load(s + j), Simd::set(max[i])));
      total = Simd::add(total, p);
      Simd::store(s + j, p);
    }
    const Reg same[4] = {total, total, total, total};
    float added[4];
    Simd::sums_of_4(same, added);
    sum[i] = sum[i] * keep[i] + added[0];
  }
}

void axpy(float a, const float* x, float* y, size_t n) {
  const Reg f = Simd::set(a);
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::fma(f, Simd::load(x + i), Simd::load(y + i)));
  if (i < n) {
    const auto rest = Simd::first(n - i);
    Simd::store(y + i, Simd::fma(f, Simd::load(x + i, rest), Simd::load(y + i, rest)), rest);
  }
}

void scale(float a, const float* x, float* y, size_t n) {
  const Reg f = Simd::set(a);
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::mul(f, Simd::load(x + i)));
  if (i < n) Simd::store(y + i, Simd::mul(f, Simd::load(x + i, Simd::first(n - i))), Simd::first(n - i));
}

void widen(const uint16_t* half, float* y, size_t n) {
  size_t i = 0;
  for (; i + W <= n; i += W) Simd::store(y + i, Simd::load(half + i));
  if (i < n) Simd::store(y + i, Simd::load(half + i, Simd::first(n - i)), Simd::first(n - i));
}

void narrow(const float* x, uint16_t* half, size_t n) {
  for (size_t i = 0; i < n; i += W) {
    const auto part = Simd::first(n - i < W ? n - i : W);
    Simd::store(half + i, Simd::load(x + i, part), part);
  }
}

constexpr Kernels table(const char* isa) {
  constexpr Tiles tiles{W, Simd::nt_rows, kStrip, nn_width<1>, Simd::panel_rows, kPanelDepth, Simd::rounded_rows};
  return {isa,
          tiles,
          {nt<f32>, nt<f16>, q_nt<int8>, q_nt<int4>},
          {nn<f32>, nn<f16>, nullptr, nullptr},
          {nullptr, nullptr, round_row<int8>, round_row<int4>},
          {nullptr, nullptr, r_nt<int8>, r_nt<int4>},
          round_part,
          unpack_part,
          silu_mul,
          softmax_block,
          axpy,
          scale,
          widen,
          narrow};
}

}  // namespace
}  // namespace mythos
