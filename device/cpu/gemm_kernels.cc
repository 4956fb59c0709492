// The inner loops of gemm.h, built once per instruction set (see vector.h for what may be
// included).
#include "device/cpu/gemm.h"
#include "device/cpu/vector.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

// Rows × vectors of the register tile: 6×4 of 32 AVX-512 registers, 6×2 of 16 AVX2, 3×4 of 16 SSE.
#if defined(__AVX512F__)
constexpr int kRows = 6, kVectors = 4;
#elif defined(__AVX2__)
constexpr int kRows = 6, kVectors = 2;
#else
constexpr int kRows = 3, kVectors = 4;
#endif

V Activate(V x, const GemmArgs& g) {
  switch (g.activation) {
    case GemmActivation::kNone:
      return x;
    case GemmActivation::kRelu:
      return Max(x, Splat(0));
    case GemmActivation::kLeakyRelu:
      return x > 0.0f ? x : x * g.p0;
    case GemmActivation::kSigmoid:
      return Sigmoid(x);
    case GemmActivation::kTanh:
      return Tanh(x);
    case GemmActivation::kGelu:
      return 0.5f * x * (1.0f + Erf(x * 0.70710678118654752f));
    case GemmActivation::kGeluTanh:
      return 0.5f * x * (1.0f + Tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case GemmActivation::kClip:
      return Min(Max(x, Splat(g.p0)), Splat(g.p1));
    case GemmActivation::kHardSigmoid:
      return Min(Max(x * g.p0 + g.p1, Splat(0)), Splat(1));
    case GemmActivation::kHardSwish:
      return x * Min(Max(x * (1.0f / 6) + 0.5f, Splat(0)), Splat(1));
    case GemmActivation::kSilu:
      return x * Sigmoid(x);
  }
  return x;
}

// One register tile: rows × (vectors · kLanes) columns from `column`; `valid` columns are stored.
template <int kM, int kN>
void Tile(const GemmArgs& g, int64_t row, const float* b, int64_t column, int64_t valid) {
  V acc[kM][kN];
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) acc[m][n] = V{};
  }
  const float* a = g.a + row * g.lda;
  const int64_t lda = g.lda;
  for (int64_t k = 0; k < g.depth; ++k) {
    V bv[kN];
    for (int n = 0; n < kN; ++n) bv[n] = Load(b + n * kLanes);
    if constexpr (kM <= 2) {
      // Few rows: the weights stream from memory or the last cache.
      for (int n = 0; n < kN; ++n) __builtin_prefetch(b + (24 * kN + n) * kLanes);
    }
    b += kN * kLanes;
    for (int m = 0; m < kM; ++m) {
      const V av = Splat(a[m * lda + k]);
      for (int n = 0; n < kN; ++n) acc[m][n] += av * bv[n];
    }
  }
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) {
      const int64_t at = n * kLanes;
      if (at >= valid) break;
      V v = acc[m][n] * g.alpha;
      float* c = g.c + (row + m) * g.ldc + column + at;
      const float* r = g.residual ? g.residual + (row + m) * g.ldc + column + at : nullptr;
      const float* bias = g.bias ? g.bias + column + at : nullptr;
      if (valid - at >= kLanes) {
        if (bias) v += Load(bias);
        if (r) v += Load(r);
        Store(c, Activate(v, g));
        continue;
      }
      float buffer[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        buffer[i] = at + i < valid ? (bias ? bias[i] : 0) + (r ? r[i] : 0) : 0;
      }
      Store(buffer, Activate(v + Load(buffer), g));
      for (int64_t i = 0; i < valid - at; ++i) c[i] = buffer[i];
    }
  }
}

using TileFunction = void (*)(const GemmArgs&, int64_t, const float*, int64_t, int64_t);

template <int kN>
TileFunction TileFor(int64_t rows) {
  switch (rows) {
    case 1:
      return Tile<1, kN>;
    case 2:
      return Tile<2, kN>;
    case 3:
      return Tile<3, kN>;
#if defined(__AVX2__)
    case 4:
      return Tile<4, kN>;
    case 5:
      return Tile<5, kN>;
    default:
      return Tile<6, kN>;
#else
    default:
      return Tile<3, kN>;
#endif
  }
}

TileFunction TileFor(int64_t rows, int64_t vectors) {
  switch (vectors) {
    case 1:
      return TileFor<1>(rows);
    case 2:
      return TileFor<2>(rows);
#if !defined(__AVX2__) || defined(__AVX512F__)
    case 3:
      return TileFor<3>(rows);
#endif
    default:
      return TileFor<kVectors>(rows);
  }
}

void Run(const GemmArgs& g) {
  constexpr int64_t kPanel = kVectors * kLanes;
  for (int64_t column = g.first_column; column < g.last_column; column += kPanel) {
    const int64_t left = g.last_column - column;
    const int64_t valid = left < kPanel ? left : kPanel;
    const int64_t vectors = (valid + kLanes - 1) / kLanes;
    const float* b = g.b + column * g.depth;
    const TileFunction full = TileFor(kRows, vectors);
    int64_t row = 0;
    for (; row + kRows <= g.rows; row += kRows) full(g, row, b, column, valid);
    if (row < g.rows) TileFor(g.rows - row, vectors)(g, row, b, column, valid);
  }
}

}  // namespace

extern const GemmKernel kGemm;
const GemmKernel kGemm = {kVectors * kLanes, kLanes, Run};

}  // namespace plexus::cpu::PLEXUS_ISA
