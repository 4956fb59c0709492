#include "device/cpu/pool_kernels.h"

#include "device/cpu/vector.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

struct MaxOf {
  static V Vector(V a, V b) { return Max(a, b); }
  static float Scalar(float a, float b) { return a > b ? a : b; }
};
struct SumOf {
  static V Vector(V a, V b) { return a + b; }
  static float Scalar(float a, float b) { return a + b; }
};

// `offset(t)` gives the first float of pixel t; four vectors of channels at a time.
template <typename Op, typename Offset>
inline void Reduce(const float* x, int64_t taps, Offset offset, int64_t channels, float scale,
                   float* y) {
  int64_t c = 0;
  for (; c + 4 * kLanes <= channels; c += 4 * kLanes) {
    const float* p = x + offset(0) + c;
    V a0 = Load(p), a1 = Load(p + kLanes), a2 = Load(p + 2 * kLanes), a3 = Load(p + 3 * kLanes);
    for (int64_t t = 1; t < taps; ++t) {
      p = x + offset(t) + c;
      a0 = Op::Vector(a0, Load(p));
      a1 = Op::Vector(a1, Load(p + kLanes));
      a2 = Op::Vector(a2, Load(p + 2 * kLanes));
      a3 = Op::Vector(a3, Load(p + 3 * kLanes));
    }
    Store(y + c, a0 * scale);
    Store(y + c + kLanes, a1 * scale);
    Store(y + c + 2 * kLanes, a2 * scale);
    Store(y + c + 3 * kLanes, a3 * scale);
  }
  for (; c + kLanes <= channels; c += kLanes) {
    V a = Load(x + offset(0) + c);
    for (int64_t t = 1; t < taps; ++t) a = Op::Vector(a, Load(x + offset(t) + c));
    Store(y + c, a * scale);
  }
  for (; c < channels; ++c) {
    float a = x[offset(0) + c];
    for (int64_t t = 1; t < taps; ++t) a = Op::Scalar(a, x[offset(t) + c]);
    y[c] = a * scale;
  }
}

void WindowMax(const float* x, const int64_t* tap, int64_t taps, int64_t stride, int64_t channels,
               float* y) {
  Reduce<MaxOf>(
      x, taps, [=](int64_t t) { return tap[t] * stride; }, channels, 1, y);
}

void WindowSum(const float* x, const int64_t* tap, int64_t taps, int64_t stride, int64_t channels,
               float scale, float* y) {
  Reduce<SumOf>(
      x, taps, [=](int64_t t) { return tap[t] * stride; }, channels, scale, y);
}

void GlobalSum(const float* x, int64_t pixels, int64_t stride, int64_t channels, float scale,
               float* y) {
  Reduce<SumOf>(
      x, pixels, [=](int64_t t) { return t * stride; }, channels, scale, y);
}

void GlobalMax(const float* x, int64_t pixels, int64_t stride, int64_t channels, float* y) {
  Reduce<MaxOf>(
      x, pixels, [=](int64_t t) { return t * stride; }, channels, 1, y);
}

}  // namespace

extern const PoolKernels kPool;
const PoolKernels kPool = {WindowMax, WindowSum, GlobalSum, GlobalMax};

}  // namespace plexus::cpu::PLEXUS_ISA
