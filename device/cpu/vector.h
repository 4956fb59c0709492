// Vectors as wide as the instruction set a file is built for, and the few functions kernels need.
// Only for files built by plexus_multi_isa: everything is inside the namespace PLEXUS_ISA, and such
// files include nothing that defines inline functions outside it (no standard containers), or the
// linker might keep a copy that the CPU cannot run.
#pragma once

#include <cstdint>

#ifndef PLEXUS_ISA
#define PLEXUS_ISA baseline
#endif

namespace plexus::cpu::PLEXUS_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using V = float __attribute__((vector_size(4 * kLanes)));
using VI = int32_t __attribute__((vector_size(4 * kLanes)));
using VUnaligned = float __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

static inline V Load(const float* p) { return *reinterpret_cast<const VUnaligned*>(p); }
static inline void Store(float* p, V v) { *reinterpret_cast<VUnaligned*>(p) = v; }
static inline V Splat(float x) { return x - V{}; }
static inline V Max(V a, V b) { return a > b ? a : b; }
static inline V Min(V a, V b) { return a < b ? a : b; }
static inline V Bits(VI i) { return reinterpret_cast<V>(i); }
static inline VI Bits(V v) { return reinterpret_cast<VI>(v); }
static inline V Abs(V v) { return Bits(Bits(v) & 0x7fffffff); }

// exp, relative error < 2e-7 on [-87, 88]; clamped outside.
static inline V Exp(V x) {
  x = Min(Max(x, Splat(-87.33f)), Splat(88.37f));
  // Round x / ln 2 to the nearest integer by the magic constant 1.5·2^23.
  const V magic = Splat(12582912.0f);
  const V shifted = x * 1.44269504088896341f + magic;
  const V n = shifted - magic;
  V r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const VI exponent = (Bits(shifted) - Bits(magic)) << 23;
  return Bits(Bits(p) + exponent);
}

static inline V Sigmoid(V x) { return 1.0f / (1.0f + Exp(-x)); }

// tanh: a polynomial near zero keeps the relative error small there.
static inline V Tanh(V x) {
  const V a = Abs(x);
  const V e = Exp(a * -2.0f);
  const V big = (1.0f - e) / (1.0f + e);
  const V x2 = x * x;
  V p = x2 * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * x2 - 5.37397155531e-2f;
  p = p * x2 + 1.33314422036e-1f;
  p = p * x2 - 3.33332819422e-1f;
  const V near = p * x2 * x + x;
  const V far = x < 0.0f ? -big : big;
  return a < 0.625f ? near : far;
}

// erf, absolute error < 2e-7 (Abramowitz and Stegun 7.1.26).
static inline V Erf(V x) {
  const V a = Abs(x);
  const V t = 1.0f / (1.0f + 0.3275911f * a);
  V p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const V r = 1.0f - p * t * Exp(-(a * a));
  return x < 0.0f ? -r : r;
}

}  // namespace plexus::cpu::PLEXUS_ISA
