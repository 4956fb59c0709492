#include "device/cpu/kernels/recurrent_kernels.h"

#include "device/cpu/kernels/vector_math.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

void MultiplyAdd(const float* w, const float* x, float* y, int64_t rows, int64_t n) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const float* p = w + r * n;
    V a0 = V{}, a1 = V{}, a2 = V{}, a3 = V{};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const V v = Load(x + i);
      a0 += v * Load(p + i);
      a1 += v * Load(p + n + i);
      a2 += v * Load(p + 2 * n + i);
      a3 += v * Load(p + 3 * n + i);
    }
    if (i < n) {
      const int64_t left = n - i;
      const V v = LoadPartial(x + i, left);
      a0 += v * LoadPartial(p + i, left);
      a1 += v * LoadPartial(p + n + i, left);
      a2 += v * LoadPartial(p + 2 * n + i, left);
      a3 += v * LoadPartial(p + 3 * n + i, left);
    }
    y[r] += SumLanes(a0);
    y[r + 1] += SumLanes(a1);
    y[r + 2] += SumLanes(a2);
    y[r + 3] += SumLanes(a3);
  }
  for (; r < rows; ++r) {
    V a = V{};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) a += Load(x + i) * Load(w + r * n + i);
    if (i < n) a += LoadPartial(x + i, n - i) * LoadPartial(w + r * n + i, n - i);
    y[r] += SumLanes(a);
  }
}

// f(i, count): lanes [i, i + count).
template <typename F>
inline void Lanes(int64_t n, F f) {
  for (int64_t i = 0; i < n; i += kLanes) f(i, n - i < kLanes ? n - i : int64_t{kLanes});
}
inline V Get(const float* p, int64_t count) {
  return count == kLanes ? Load(p) : LoadPartial(p, count);
}
inline void Put(float* p, V v, int64_t count) {
  count == kLanes ? Store(p, v) : StorePartial(p, v, count);
}

void LstmCell(const float* gates, float* c, float* h, int64_t n) {
  Lanes(n, [=](int64_t i, int64_t count) {
    const V in = SigmoidFull(Get(gates + i, count));
    const V out = SigmoidFull(Get(gates + n + i, count));
    const V forget = SigmoidFull(Get(gates + 2 * n + i, count));
    const V cell = TanhFull(Get(gates + 3 * n + i, count));
    const V next = forget * Get(c + i, count) + in * cell;
    Put(c + i, next, count);
    Put(h + i, out * TanhFull(next), count);
  });
}

void GruCell(const float* z, const float* r, const float* xh, const float* rh, float* h,
             int64_t n) {
  Lanes(n, [=](int64_t i, int64_t count) {
    const V update = SigmoidFull(Get(z + i, count));
    const V reset = SigmoidFull(Get(r + i, count));
    const V candidate = TanhFull(Get(xh + i, count) + reset * Get(rh + i, count));
    Put(h + i, (1.0f - update) * candidate + update * Get(h + i, count), count);
  });
}

}  // namespace

extern const RecurrentKernels kRecurrent;
const RecurrentKernels kRecurrent = {MultiplyAdd, LstmCell, GruCell};

}  // namespace plexus::cpu::PLEXUS_ISA
