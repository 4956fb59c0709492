#include "device/cpu/kernels/row_kernels.h"

#include "device/cpu/kernels/vector_math.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

const float kLowest = -__builtin_inff();

// f(vector, from) over a row; the last, partial vector is filled up with `fill`.
template <typename F>
inline void ForEach(const float* x, int64_t n, float fill, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(Load(x + i));
  if (i < n) {
    V v = LoadPartial(x + i, n - i);
    for (int lane = static_cast<int>(n - i); lane < kLanes; ++lane) v[lane] = fill;
    f(v);
  }
}

// y = f(x) over a row.
template <typename F>
inline void Map(const float* x, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(y + i, f(Load(x + i), i));
  if (i < n) StorePartial(y + i, f(LoadPartial(x + i, n - i), i), n - i);
}

float RowMax(const float* x, int64_t n) {
  V m0 = Splat(kLowest), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    m0 = Max(Load(x + i), m0);
    m1 = Max(Load(x + i + kLanes), m1);
  }
  ForEach(x + i, n - i, kLowest, [&](V v) { m0 = Max(v, m0); });
  return MaxLanes(Max(m0, m1));
}

float RowSum(const float* x, int64_t n) {
  V s0 = V{}, s1 = V{}, s2 = V{}, s3 = V{};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 += Load(x + i);
    s1 += Load(x + i + kLanes);
    s2 += Load(x + i + 2 * kLanes);
    s3 += Load(x + i + 3 * kLanes);
  }
  ForEach(x + i, n - i, 0, [&](V v) { s0 += v; });
  return SumLanes((s0 + s1) + (s2 + s3));
}

void SoftmaxRow(const float* x, float* y, int64_t n, bool log) {
  const float most = RowMax(x, n);
  V sum = V{};
  if (log) {
    ForEach(x, n, kLowest, [&](V v) { sum += ExpFull(v - most); });
    const float offset = most + LogFull(Splat(SumLanes(sum)))[0];
    Map(x, y, n, [&](V v, int64_t) { return v - offset; });
    return;
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V e = ExpFull(Load(x + i) - most);
    sum += e;
    Store(y + i, e);
  }
  float total = SumLanes(sum);
  if (i < n) {
    const V e = ExpFull(LoadPartial(x + i, n - i) - most);
    for (int lane = 0; lane < n - i; ++lane) total += e[lane];
    StorePartial(y + i, e, n - i);
  }
  const V scale = Splat(1.0f / total);
  Map(y, y, n, [&](V v, int64_t) { return v * scale; });
}

void Softmax(const float* x, float* y, int64_t rows, int64_t n, bool log) {
  for (int64_t r = 0; r < rows; ++r) SoftmaxRow(x + r * n, y + r * n, n, log);
}

void SoftmaxColumns(const float* x, float* y, int64_t n, int64_t stride, int64_t columns,
                    bool log) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const int64_t left = columns - c;
    const bool full = left >= kLanes;
    auto load = [&](const float* p) { return full ? Load(p) : LoadPartial(p, left); };
    auto store = [&](float* p, V v) { full ? Store(p, v) : StorePartial(p, v, left); };
    V most = load(x + c);
    for (int64_t i = 1; i < n; ++i) most = Max(load(x + i * stride + c), most);
    V sum = V{};
    for (int64_t i = 0; i < n; ++i) {
      const V e = ExpFull(load(x + i * stride + c) - most);
      sum += e;
      if (!log) store(y + i * stride + c, e);
    }
    const V scale = log ? most + LogFull(sum) : 1.0f / sum;
    for (int64_t i = 0; i < n; ++i) {
      store(y + i * stride + c,
            log ? load(x + i * stride + c) - scale : load(y + i * stride + c) * scale);
    }
  }
}

// Mean (0 if not centred) and 1 / sqrt(variance + epsilon).
void Moments(const float* x, int64_t n, float epsilon, bool centred, float* mean, float* factor) {
  const float count = static_cast<float>(n);
  *mean = centred ? RowSum(x, n) / count : 0;
  const V m = Splat(*mean);
  V s0 = V{}, s1 = V{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const V a = Load(x + i) - m, b = Load(x + i + kLanes) - m;
    s0 += a * a;
    s1 += b * b;
  }
  ForEach(x + i, n - i, *mean, [&](V v) { s0 += (v - m) * (v - m); });
  *factor = 1.0f / Sqrt(Splat(SumLanes(s0 + s1) / count + epsilon))[0];
}

void Norm(const float* x, const float* scale, const float* bias, float* y, int64_t rows, int64_t n,
          float epsilon, bool centred) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    float mean, factor;
    Moments(x, n, epsilon, centred, &mean, &factor);
    const V m = Splat(mean), f = Splat(factor);
    int64_t i = 0;
    if (scale && bias) {
      for (; i + kLanes <= n; i += kLanes) {
        Store(y + i, (Load(x + i) - m) * f * Load(scale + i) + Load(bias + i));
      }
    }
    for (; i < n; i += kLanes) {
      const int64_t left = n - i < kLanes ? n - i : kLanes;
      const bool full = left == kLanes;
      auto load = [&](const float* p) { return full ? Load(p + i) : LoadPartial(p + i, left); };
      V v = (load(x) - m) * f;
      if (scale) v *= load(scale);
      if (bias) v += load(bias);
      full ? Store(y + i, v) : StorePartial(y + i, v, left);
    }
  }
}

void NormParts(const float* x, const float* scale, const float* bias, float* y, int64_t n,
               int64_t parts, float epsilon) {
  float mean, factor;
  Moments(x, n, epsilon, true, &mean, &factor);
  const int64_t part = n / parts;
  for (int64_t p = 0; p < parts; ++p, x += part, y += part) {
    const V f = Splat(factor * (scale ? scale[p] : 1)), m = Splat(mean);
    const V b = Splat(bias ? bias[p] : 0);
    Map(x, y, part, [&](V v, int64_t) { return (v - m) * f + b; });
  }
}

// Reductions: how a vector joins the accumulator, and what becomes of the result.
template <ReduceOp kOp>
struct Reduction {
  static constexpr bool kAdds =
      kOp != ReduceOp::kMax && kOp != ReduceOp::kMin && kOp != ReduceOp::kProd;
  static float Start() {
    return kOp == ReduceOp::kMax    ? -__builtin_inff()
           : kOp == ReduceOp::kMin  ? __builtin_inff()
           : kOp == ReduceOp::kProd ? 1.0f
                                    : 0.0f;
  }
  static V Join(V a, V v) {
    if (kOp == ReduceOp::kMax) return (v > a) | (v != v) ? v : a;
    if (kOp == ReduceOp::kMin) return (v < a) | (v != v) ? v : a;
    if (kOp == ReduceOp::kProd) return a * v;
    if (kOp == ReduceOp::kSumSquare || kOp == ReduceOp::kL2) return a + v * v;
    if (kOp == ReduceOp::kL1) return a + Abs(v);
    return a + v;
  }
  static V Merge(V a, V b) { return kAdds ? a + b : Join(a, b); }
  static V Finish(V a, int64_t n) {
    if (kOp == ReduceOp::kMean) return a / static_cast<float>(n);
    if (kOp == ReduceOp::kL2) return Sqrt(a);
    return a;
  }
};

template <ReduceOp kOp>
float ReduceRow(const float* x, int64_t n) {
  using R = Reduction<kOp>;
  V a0 = Splat(R::Start()), a1 = a0, a2 = a0, a3 = a0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a0 = R::Join(a0, Load(x + i));
    a1 = R::Join(a1, Load(x + i + kLanes));
    a2 = R::Join(a2, Load(x + i + 2 * kLanes));
    a3 = R::Join(a3, Load(x + i + 3 * kLanes));
  }
  ForEach(x + i, n - i, R::Start(), [&](V v) { a0 = R::Join(a0, v); });
  const V merged = R::Merge(R::Merge(a0, a1), R::Merge(a2, a3));
  V all = Splat(merged[0]);
  for (int lane = 1; lane < kLanes; ++lane) all = R::Merge(all, Splat(merged[lane]));
  return R::Finish(all, n)[0];
}

template <ReduceOp kOp>
void ReduceColumns(const float* x, float* y, int64_t n, int64_t stride, int64_t columns) {
  using R = Reduction<kOp>;
  int64_t c = 0;
  for (; c + 4 * kLanes <= columns; c += 4 * kLanes) {
    V a0 = Splat(R::Start()), a1 = a0, a2 = a0, a3 = a0;
    const float* p = x + c;
    for (int64_t i = 0; i < n; ++i, p += stride) {
      a0 = R::Join(a0, Load(p));
      a1 = R::Join(a1, Load(p + kLanes));
      a2 = R::Join(a2, Load(p + 2 * kLanes));
      a3 = R::Join(a3, Load(p + 3 * kLanes));
    }
    Store(y + c, R::Finish(a0, n));
    Store(y + c + kLanes, R::Finish(a1, n));
    Store(y + c + 2 * kLanes, R::Finish(a2, n));
    Store(y + c + 3 * kLanes, R::Finish(a3, n));
  }
  for (; c < columns; c += kLanes) {
    const int64_t left = columns - c;
    V a = Splat(R::Start());
    const float* p = x + c;
    for (int64_t i = 0; i < n; ++i, p += stride) {
      a = R::Join(a, left >= kLanes ? Load(p) : LoadPartial(p, left));
    }
    a = R::Finish(a, n);
    left >= kLanes ? Store(y + c, a) : StorePartial(y + c, a, left);
  }
}

void Blend(const float* const* x, const float* weight, float* y, int64_t n) {
  const V w0 = Splat(weight[0]), w1 = Splat(weight[1]), w2 = Splat(weight[2]);
  const V w3 = Splat(weight[3]);
  const float *a = x[0], *b = x[1], *c = x[2], *d = x[3];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Store(y + i, (Load(a + i) * w0 + Load(b + i) * w1) + (Load(c + i) * w2 + Load(d + i) * w3));
  }
  for (; i < n; ++i) {
    y[i] = (a[i] * weight[0] + b[i] * weight[1]) + (c[i] * weight[2] + d[i] * weight[3]);
  }
}

}  // namespace

extern const RowKernels kRowKernels;
const RowKernels kRowKernels = {
    Softmax,
    SoftmaxColumns,
    Norm,
    NormParts,
    {ReduceRow<ReduceOp::kSum>, ReduceRow<ReduceOp::kMean>, ReduceRow<ReduceOp::kMax>,
     ReduceRow<ReduceOp::kMin>, ReduceRow<ReduceOp::kProd>, ReduceRow<ReduceOp::kSumSquare>,
     ReduceRow<ReduceOp::kL2>, ReduceRow<ReduceOp::kL1>},
    {ReduceColumns<ReduceOp::kSum>, ReduceColumns<ReduceOp::kMean>, ReduceColumns<ReduceOp::kMax>,
     ReduceColumns<ReduceOp::kMin>, ReduceColumns<ReduceOp::kProd>,
     ReduceColumns<ReduceOp::kSumSquare>, ReduceColumns<ReduceOp::kL2>,
     ReduceColumns<ReduceOp::kL1>},
    Blend,
};

}  // namespace plexus::cpu::PLEXUS_ISA
