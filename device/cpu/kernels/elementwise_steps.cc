#include "device/cpu/kernels/elementwise_steps.h"

#include "device/cpu/kernels/vector_math.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

template <typename F>
void Map1(const StepArgs& s, F f) {
  const float* a = s.in[0];
  float* out = s.out;
  if (s.advance[0] == 0) {
    const V v = f(Load(a));
    int64_t i = 0;
    for (; i + kLanes <= s.n; i += kLanes) Store(out + i, v);
    if (i < s.n) StorePartial(out + i, v, s.n - i);
    return;
  }
  int64_t i = 0;
#pragma GCC unroll 4
  for (; i + kLanes <= s.n; i += kLanes) Store(out + i, f(Load(a + i)));
  if (i < s.n) StorePartial(out + i, f(LoadPartial(a + i, s.n - i)), s.n - i);
}

template <typename F>
void Map2(const StepArgs& s, F f) {
  const float* a = s.in[0];
  const float* b = s.in[1];
  float* out = s.out;
  int64_t i = 0;
  const bool va = s.advance[0] != 0, vb = s.advance[1] != 0;
  if (va && vb) {
#pragma GCC unroll 4
    for (; i + kLanes <= s.n; i += kLanes) Store(out + i, f(Load(a + i), Load(b + i)));
  } else if (va) {
    const V bv = Load(b);
#pragma GCC unroll 4
    for (; i + kLanes <= s.n; i += kLanes) Store(out + i, f(Load(a + i), bv));
  } else {
    const V av = Load(a);
    const int64_t db = s.advance[1];
    for (; i + kLanes <= s.n; i += kLanes) Store(out + i, f(av, Load(b + i * db)));
  }
  if (i < s.n) {
    const int64_t left = s.n - i;
    const V av = va ? LoadPartial(a + i, left) : Load(a);
    const V bv = vb ? LoadPartial(b + i, left) : Load(b);
    StorePartial(out + i, f(av, bv), left);
  }
}

template <typename F>
void Map3(const StepArgs& s, F f) {
  const float* a = s.in[0];
  const float* b = s.in[1];
  const float* c = s.in[2];
  float* out = s.out;
  int64_t i = 0;
  const bool va = s.advance[0] != 0, vb = s.advance[1] != 0, vc = s.advance[2] != 0;
  if (va && !vb && !vc) {
    const V bv = Load(b), cv = Load(c);
#pragma GCC unroll 4
    for (; i + kLanes <= s.n; i += kLanes) Store(out + i, f(Load(a + i), bv, cv));
  } else {
    const int64_t da = s.advance[0], db = s.advance[1], dc = s.advance[2];
#pragma GCC unroll 2
    for (; i + kLanes <= s.n; i += kLanes) {
      Store(out + i, f(Load(a + i * da), Load(b + i * db), Load(c + i * dc)));
    }
  }
  if (i < s.n) {
    const int64_t left = s.n - i;
    const V av = va ? LoadPartial(a + i, left) : Load(a);
    const V bv = vb ? LoadPartial(b + i, left) : Load(b);
    const V cv = vc ? LoadPartial(c + i, left) : Load(c);
    StorePartial(out + i, f(av, bv, cv), left);
  }
}

V OneIf(VI condition) { return Bits(condition & Bits(Splat(1.0f))); }
V ClipTo(V x, V low, V high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}
V HardSwish(V x) { return x * ClipTo(x * (1.0f / 6) + 0.5f, Splat(0), Splat(1)); }
V Gelu(V x) { return 0.5f * x * (1.0f + ErfFull(x * 0.70710678118654752f)); }
V GeluTanh(V x) {
  return 0.5f * x * (1.0f + TanhFull(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
V Elu(V x, float alpha) { return x < 0.0f ? alpha * Expm1Negative(x) : x; }

#define ONE(name, expression)                      \
  void name(const StepArgs& s) {                   \
    Map1(s, [&](V x) -> V { return expression; }); \
  }
#define TWO(name, expression)                           \
  void name(const StepArgs& s) {                        \
    Map2(s, [&](V x, V y) -> V { return expression; }); \
  }
#define THREE(name, expression)                              \
  void name(const StepArgs& s) {                             \
    Map3(s, [&](V x, V y, V z) -> V { return expression; }); \
  }

ONE(StepAbs, Abs(x))
ONE(StepNeg, -x)
ONE(StepExp, ExpFull(x))
ONE(StepLog, LogFull(x))
ONE(StepSqrt, Sqrt(x))
ONE(StepReciprocal, 1.0f / x)
ONE(StepErf, ErfFull(x))
ONE(StepSigmoid, SigmoidFull(x))
ONE(StepTanh, TanhFull(x))
ONE(StepSin, PerLane(x, [](float v) { return __builtin_sinf(v); }))
ONE(StepCos, PerLane(x, [](float v) { return __builtin_cosf(v); }))
ONE(StepFloor, RoundTo<1>(x))
ONE(StepCeil, RoundTo<2>(x))
ONE(StepRound, RoundTo<0>(x))
ONE(StepSign, x > 0.0f ? Splat(1.0f) : (x < 0.0f ? Splat(-1.0f) : x))
ONE(StepRelu, x < 0.0f ? Splat(0.0f) : x)
ONE(StepSoftplus, SoftplusFull(x))
ONE(StepSoftsign, x / (1.0f + Abs(x)))
ONE(StepHardSwish, HardSwish(x))
ONE(StepSilu, x* SigmoidFull(x))
ONE(StepGelu, Gelu(x))
ONE(StepGeluTanh, GeluTanh(x))
ONE(StepMish, x* TanhFull(SoftplusFull(x)))
ONE(StepNot, OneIf(x == 0.0f))
ONE(StepLeakyRelu, x < 0.0f ? x * s.p0 : x)
ONE(StepElu, Elu(x, s.p0))
ONE(StepCelu, x < 0.0f ? s.p0 * Expm1Negative(x / s.p0) : x)
ONE(StepSelu, s.p1* Elu(x, s.p0))
ONE(StepThresholdedRelu, x > s.p0 ? x : Splat(0.0f))
ONE(StepHardSigmoid, ClipTo(x* s.p0 + s.p1, Splat(0), Splat(1)))
ONE(StepClip, ClipTo(x, Splat(s.p0), Splat(s.p1)))
TWO(StepAdd, x + y)
TWO(StepSub, x - y)
TWO(StepMul, x* y)
TWO(StepDiv, x / y)
TWO(StepMin, (x != x) | (x < y) ? x : y)
TWO(StepMax, (x != x) | (x > y) ? x : y)
TWO(StepPRelu, x < 0.0f ? y * x : x)
TWO(StepEqual, OneIf(x == y))
TWO(StepLess, OneIf(x < y))
TWO(StepLessOrEqual, OneIf(x <= y))
TWO(StepGreater, OneIf(x > y))
TWO(StepGreaterOrEqual, OneIf(x >= y))
TWO(StepAnd, OneIf((x != 0.0f) & (y != 0.0f)))
TWO(StepOr, OneIf((x != 0.0f) | (y != 0.0f)))
TWO(StepXor, OneIf((x != 0.0f) ^ (y != 0.0f)))
THREE(StepWhere, x != 0.0f ? y : z)
ONE(StepCopy, x)
TWO(StepAddRelu, (x + y < 0.0f) ? Splat(0.0f) : x + y)
THREE(StepMulAdd, x* y + z)
THREE(StepMulAddRelu, (x * y + z < 0.0f) ? Splat(0.0f) : x* y + z)

void StepPow(const StepArgs& s) {
  Map2(s, [](V x, V y) -> V {
    for (int i = 0; i < kLanes; ++i) x[i] = __builtin_powf(x[i], y[i]);
    return x;
  });
}

}  // namespace

extern const StepKernels kSteps;
const StepKernels kSteps = {{
    StepAbs,
    StepNeg,
    StepExp,
    StepLog,
    StepSqrt,
    StepReciprocal,
    StepErf,
    StepSigmoid,
    StepTanh,
    StepSin,
    StepCos,
    StepFloor,
    StepCeil,
    StepRound,
    StepSign,
    StepRelu,
    StepSoftplus,
    StepSoftsign,
    StepHardSwish,
    StepSilu,
    StepGelu,
    StepGeluTanh,
    StepMish,
    StepNot,
    StepLeakyRelu,
    StepElu,
    StepCelu,
    StepSelu,
    StepThresholdedRelu,
    StepHardSigmoid,
    StepClip,
    StepAdd,
    StepSub,
    StepMul,
    StepDiv,
    StepPow,
    StepMin,
    StepMax,
    StepPRelu,
    StepEqual,
    StepLess,
    StepLessOrEqual,
    StepGreater,
    StepGreaterOrEqual,
    StepAnd,
    StepOr,
    StepXor,
    StepWhere,
    StepCopy,
    StepAddRelu,
    StepMulAdd,
    StepMulAddRelu,
}};

}  // namespace plexus::cpu::PLEXUS_ISA
