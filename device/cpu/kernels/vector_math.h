// Vector functions with the full range of their argument (infinities, NaN, denormals), for
// operators that the user sees as such. Relative error < 5e-7 unless stated. As vector.h: only for
// files built by plexus_multi_isa. The polynomials are weighted minimax fits made for these ranges.
#pragma once

#include <immintrin.h>  // always inlined: no copies outside the namespace

#include "device/cpu/vector.h"

namespace plexus::cpu::PLEXUS_ISA {

static inline bool FullVector(int64_t count) { return count >= kLanes; }

// The first `count` < kLanes floats at p, zeros behind.
static inline V LoadPartial(const float* p, int64_t count) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  return reinterpret_cast<V>(_mm512_maskz_loadu_ps(mask, p));
#else
  float buffer[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return Load(buffer);
#endif
}

static inline void StorePartial(float* p, V v, int64_t count) {
#if defined(__AVX512F__)
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  _mm512_mask_storeu_ps(p, mask, reinterpret_cast<__m512>(v));
#else
  float buffer[kLanes];
  Store(buffer, v);
  for (int64_t i = 0; i < count; ++i) p[i] = buffer[i];
#endif
}

static inline float SumLanes(V v) {
#if defined(__AVX512F__)
  V h = v + __builtin_shuffle(v, VI{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
  h += __builtin_shuffle(h, VI{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
  return (h[0] + h[1]) + (h[2] + h[3]);
#else
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
#endif
}

static inline float MaxLanes(V v) {
#if defined(__AVX512F__)
  V h = Max(v, __builtin_shuffle(v, VI{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}));
  h = Max(h, __builtin_shuffle(h, VI{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11}));
  const float a = h[0] > h[1] ? h[0] : h[1], b = h[2] > h[3] ? h[2] : h[3];
  return a > b ? a : b;
#else
  float most = v[0];
  for (int i = 1; i < kLanes; ++i) most = most > v[i] ? most : v[i];
  return most;
#endif
}

// The zero-masked forms: GCC 12 takes the plain ones for uses of uninitialised values.
static inline V Sqrt(V v) {
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(v)));
#elif defined(__AVX2__)
  return reinterpret_cast<V>(_mm256_sqrt_ps(reinterpret_cast<__m256>(v)));
#else
  return reinterpret_cast<V>(_mm_sqrt_ps(reinterpret_cast<__m128>(v)));
#endif
}

// kMode: 0 to nearest even, 1 down, 2 up.
template <int kMode>
static inline V RoundTo(V v) {
  constexpr int kFlags = (kMode == 0   ? _MM_FROUND_TO_NEAREST_INT
                          : kMode == 1 ? _MM_FROUND_TO_NEG_INF
                                       : _MM_FROUND_TO_POS_INF) |
                         _MM_FROUND_NO_EXC;
#if defined(__AVX512F__)
  return reinterpret_cast<V>(
      _mm512_maskz_roundscale_ps(0xffff, reinterpret_cast<__m512>(v), kFlags));
#elif defined(__AVX2__)
  return reinterpret_cast<V>(_mm256_round_ps(reinterpret_cast<__m256>(v), kFlags));
#else
  (void)kFlags;
  for (int i = 0; i < kLanes; ++i) {
    v[i] = kMode == 0   ? __builtin_nearbyintf(v[i])
           : kMode == 1 ? __builtin_floorf(v[i])
                        : __builtin_ceilf(v[i]);
  }
  return v;
#endif
}

// max(x, low) and min(x, high) that keep NaN.
static inline V AtLeast(V x, float low) {
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_maskz_max_ps(0xffff, reinterpret_cast<__m512>(Splat(low)),
                                                 reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<V>(
      _mm256_max_ps(reinterpret_cast<__m256>(Splat(low)), reinterpret_cast<__m256>(x)));
#else
  return x < low ? Splat(low) : x;
#endif
}
static inline V AtMost(V x, float high) {
#if defined(__AVX512F__)
  return reinterpret_cast<V>(_mm512_maskz_min_ps(0xffff, reinterpret_cast<__m512>(Splat(high)),
                                                 reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<V>(
      _mm256_min_ps(reinterpret_cast<__m256>(Splat(high)), reinterpret_cast<__m256>(x)));
#else
  return x > high ? Splat(high) : x;
#endif
}

// e^r for |r| <= ln(2) / 2.
static inline V ExpNear(V r) {
  V p = r * 1.3950485736e-3f + 8.3688879386e-3f;
  p = p * r + 4.1666205972e-2f;
  p = p * r + 1.6666518152e-1f;
  p = p * r + 0.5f;
  return p * (r * r) + (r + 1.0f);
}

static inline V ExpFull(V x) {
  x = AtMost(AtLeast(x, -104.0f), 89.0f);
#if defined(__AVX512F__)
  const V n = RoundTo<0>(x * 1.44269504088896341f);
  const V p = ExpNear(x - n * 0.693359375f - n * -2.12194440e-4f);
  return reinterpret_cast<V>(
      _mm512_maskz_scalef_ps(0xffff, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const V magic = Splat(12582912.0f);
  const V shifted = x * 1.44269504088896341f + magic;
  const V n = shifted - magic;
  const V p = ExpNear(x - n * 0.693359375f - n * -2.12194440e-4f);
  // 2^n in two factors reaches infinity and the denormals.
  const VI whole = Bits(shifted) - Bits(magic);
  const VI half = whole >> 1;
  return p * Bits((half + 127) << 23) * Bits((whole - half + 127) << 23);
#endif
}

// For -80 <= x <= 80 only.
static inline V ExpModerate(V x) {
#if defined(__AVX512F__)
  const V n = RoundTo<0>(x * 1.44269504088896341f);
  const V p = ExpNear(x - n * 0.693359375f - n * -2.12194440e-4f);
  return reinterpret_cast<V>(
      _mm512_maskz_scalef_ps(0xffff, reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
#else
  const V magic = Splat(12582912.0f);
  const V shifted = x * 1.44269504088896341f + magic;
  const V n = shifted - magic;
  const V p = ExpNear(x - n * 0.693359375f - n * -2.12194440e-4f);
  return Bits(Bits(p) + ((Bits(shifted) - Bits(magic)) << 23));
#endif
}

// e^x - 1 for x <= 0, accurate near 0 as well.
static inline V Expm1Negative(V x) {
  const V near = x * (1.0f + x * (0.5f + x * (1.0f / 6 + x * (1.0f / 24 + x * (1.0f / 120)))));
  return x > -0.125f ? near : ExpFull(x) - 1.0f;
}

static inline V LogFull(V x) {
  const VI tiny = x < 1.17549435e-38f;
  const V scaled = tiny ? x * 8388608.0f : x;
  // mantissa in [sqrt(1/2), sqrt(2)).
  // Unsigned arithmetic, since the bits of a negative x would overflow.
  using VU = uint32_t __attribute__((vector_size(sizeof(VI))));
  const VI shifted = reinterpret_cast<VI>(reinterpret_cast<VU>(scaled) - 0x3f3504f3u);
  const VI exponent = shifted >> 23;
  const V m =
      reinterpret_cast<V>(reinterpret_cast<VU>(scaled) - (reinterpret_cast<VU>(exponent) << 23));
  V e = __builtin_convertvector(exponent, V);
  e = tiny ? e - 23.0f : e;
  const V f = m - 1.0f;
  V p = f * 6.9153681397e-2f - 1.1789807677e-1f;
  p = p * f + 1.1872976273e-1f;
  p = p * f - 1.2384348363e-1f;
  p = p * f + 1.4218658209e-1f;
  p = p * f - 1.6669251025e-1f;
  p = p * f + 2.0002226532e-1f;
  p = p * f - 2.4999986589e-1f;
  p = p * f + 3.3333310485e-1f;
  V y = p * f * f * f + e * -2.12194440e-4f - 0.5f * f * f;
  y = f + y + e * 0.693359375f;
  const V infinity = Splat(__builtin_inff());
  y = x == infinity || x != x ? x : y;
  y = x == 0.0f ? -infinity : y;
  return x < 0.0f ? Splat(__builtin_nanf("")) : y;
}

static inline V SigmoidFull(V x) { return 1.0f / (1.0f + ExpFull(-x)); }

static inline V TanhFull(V x) {
  const V a = Abs(x);
  const V e = ExpModerate(AtMost(a, 20.0f) * -2.0f);
  const V big = (1.0f - e) / (1.0f + e);
  const V s = x * x;
  V p = s * -5.6724217720e-3f + 2.0603146404e-2f;
  p = p * s - 5.3725231439e-2f;
  p = p * s + 1.3331185281e-1f;
  p = p * s - 3.3333262801e-1f;
  const V near = p * s * x + x;
  const V far = Bits(Bits(big) | (Bits(x) & Bits(Splat(-0.0f))));
  return a < 0.625f ? near : far;
}

static inline V ErfFull(V x) {
  const V s = x * x;
  V p = s * -6.1112915864e-4f + 5.0162281841e-3f;
  p = p * s - 2.6781957597e-2f;
  p = p * s + 1.1282230169e-1f;
  p = p * s - 3.7612533569e-1f;
  p = p * s + 1.1283791065f;
  const V near = p * x;
  const V a = Abs(x);
  const V t = AtMost(a, 4.0f);
  V q = t * 1.0433114767e-5f - 3.1485810177e-4f;
  q = q * t + 3.6103420425e-3f;
  q = q * t - 2.3694565520e-2f;
  q = q * t + 1.0615904629e-1f;
  q = q * t + 6.3519805670e-1f;
  q = q * t + 1.1286370754f;
  const V big = 1.0f - ExpModerate(-(q * t));
  // The sign of x; NaN passes through t.
  const V far = Bits(Bits(big) | (Bits(x) & Bits(Splat(-0.0f))));
  return a < 0.9f ? near : far;
}

static inline V SoftplusFull(V x) {
  // max(x, 0) + log(1 + e^-|x|); log1p(e) by its ratio correction.
  const V e = ExpFull(-Abs(x));
  const V u = 1.0f + e;
  const V d = u - 1.0f;
  const V l = d == 0.0f ? e : LogFull(u) * (e / d);
  return (x > 0.0f ? x : (x != x ? x : Splat(0.0f))) + l;
}

// Calls a scalar function of the C library for each lane.
template <typename F>
static inline V PerLane(V x, F f) {
  for (int i = 0; i < kLanes; ++i) x[i] = f(x[i]);
  return x;
}

}  // namespace plexus::cpu::PLEXUS_ISA
