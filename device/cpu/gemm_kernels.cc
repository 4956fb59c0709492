// The inner loops of gemm.h, built once per instruction set (see vector.h for what may be
// included).
#include "device/cpu/gemm.h"
#include "device/cpu/kernels/vector_math.h"
#include "device/cpu/vector.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

// The register tile: so many vectors wide (a panel), and as high as the registers allow for a tile
// of `vectors`: of 32 AVX-512 registers, 16 of AVX2 or SSE.
#if defined(__AVX512F__)
constexpr int kVectors = 4, kMaxRows = 12;
constexpr int RowsFor(int64_t vectors) { return vectors <= 2 ? 12 : vectors == 3 ? 8 : 6; }
#elif defined(__AVX2__)
constexpr int kVectors = 2, kMaxRows = 6;
constexpr int RowsFor(int64_t) { return 6; }
#else
constexpr int kVectors = 4, kMaxRows = 3;
constexpr int RowsFor(int64_t) { return 3; }
#endif
constexpr int64_t kPanel = kVectors * kLanes;

// A panel of so many rows of b stays in the second cache while all rows of a pass by.
constexpr int64_t kDepthChunk = 1024;
constexpr int64_t kMaxRuns = 128;         // per chunk
constexpr int64_t kMaxMergedDepth = 640;  // merged windows that cross a border are copied

// A contiguous piece of depth of one register tile: `runs` pieces of `length` elements, which row m
// finds at rows[run · kM + m].
struct TileArgs {
  const float* const* rows;
  int64_t runs, length;
  const float* b;
  float* c;
  int64_t ldc, valid;  // valid: columns to store
  const float* bias;
  const float* add;  // residual, or the sums so far
  int64_t ld_add;
  float alpha;
  bool leaky;
  float slope, low, high;  // leaky first, then clipped; infinities for no clipping
};

// NaN stays NaN.
V Clip(V v, V low, V high) {
  v = low > v ? low : v;
  return high < v ? high : v;
}

// The general end of a tile of `rows` × `vectors` sums.
void FinishTile(const TileArgs& t, const float* sums, int64_t rows, int64_t vectors) {
  const V slope = Splat(t.slope), low = Splat(t.low), high = Splat(t.high);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < vectors; ++n, sums += kLanes) {
      const int64_t at = n * kLanes, left = t.valid - at;
      if (left <= 0) continue;
      V v = Load(sums) * t.alpha;
      if (FullVector(left)) {
        if (t.bias) v += Load(t.bias + at);
        if (t.add) v += Load(t.add + m * t.ld_add + at);
      } else {
        if (t.bias) v += LoadPartial(t.bias + at, left);
        if (t.add) v += LoadPartial(t.add + m * t.ld_add + at, left);
      }
      if (t.leaky) v = v >= 0.0f ? v : v * slope;
      v = Clip(v, low, high);
      if (FullVector(left)) {
        Store(t.c + m * t.ldc + at, v);
      } else {
        StorePartial(t.c + m * t.ldc + at, v, left);
      }
    }
  }
}

template <int kM, int kN>
void Tile(const TileArgs& t) {
  V acc[kM][kN];
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) acc[m][n] = V{};
  }
  const float* b = t.b;
  const float* const* rows = t.rows;
  const int64_t length = t.length;
  for (int64_t run = 0; run < t.runs; ++run, rows += kM) {
    const float* a[kM];
    for (int m = 0; m < kM; ++m) a[m] = rows[m];
    for (int64_t k = 0; k < length; ++k) {
      V bv[kN];
      for (int n = 0; n < kN; ++n) bv[n] = Load(b + n * kLanes);
      if constexpr (kM <= 2) {
        // Few rows: the weights stream from memory or the last cache.
        for (int n = 0; n < kN; ++n) __builtin_prefetch(b + (24 * kN + n) * kLanes);
      }
      b += kN * kLanes;
      for (int m = 0; m < kM; ++m) {
        const V av = Splat(a[m][k]);
        for (int n = 0; n < kN; ++n) acc[m][n] += av * bv[n];
      }
    }
  }
  // Unrolled, or the accumulators would live in memory.
  if (t.valid < kN * kLanes || t.leaky) {
    float sums[kM * kN * kLanes];
#pragma GCC unroll 12
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 4
      for (int n = 0; n < kN; ++n) Store(sums + (m * kN + n) * kLanes, acc[m][n]);
    }
    FinishTile(t, sums, kM, kN);
    return;
  }
  const V low = Splat(t.low), high = Splat(t.high), alpha = Splat(t.alpha);
  V bias[kN];
#pragma GCC unroll 4
  for (int n = 0; n < kN; ++n) bias[n] = t.bias ? Load(t.bias + n * kLanes) : V{};
  if (t.add) {
#pragma GCC unroll 12
    for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 4
      for (int n = 0; n < kN; ++n) {
        const V v = acc[m][n] * alpha + bias[n] + Load(t.add + m * t.ld_add + n * kLanes);
        Store(t.c + m * t.ldc + n * kLanes, Clip(v, low, high));
      }
    }
    return;
  }
#pragma GCC unroll 12
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 4
    for (int n = 0; n < kN; ++n) {
      Store(t.c + m * t.ldc + n * kLanes, Clip(acc[m][n] * alpha + bias[n], low, high));
    }
  }
}

using TileFunction = void (*)(const TileArgs&);

template <int kN, int kM>
TileFunction TileFor(int64_t rows) {
  if constexpr (kM > 1) {
    if (rows < kM) return TileFor<kN, kM - 1>(rows);
  }
  return Tile<kM, kN>;
}

TileFunction TileFor(int64_t rows, int64_t vectors) {
  switch (vectors) {
    case 1:
      return TileFor<1, RowsFor(1)>(rows);
    case 2:
      return TileFor<2, RowsFor(2)>(rows);
#if !defined(__AVX2__) || defined(__AVX512F__)
    case 3:
      return TileFor<3, RowsFor(3)>(rows);
#endif
    default:
      return TileFor<kVectors, RowsFor(kVectors)>(rows);
  }
}

// f(element) on a tile that was just stored.
template <typename F>
void ForTile(float* c, int64_t ldc, int64_t rows, int64_t columns, F f) {
  for (int64_t m = 0; m < rows; ++m, c += ldc) {
    for (int64_t n = 0; n < columns; n += kLanes) {
      const int64_t left = columns - n;
      if (FullVector(left)) {
        Store(c + n, f(Load(c + n)));
      } else {
        StorePartial(c + n, f(LoadPartial(c + n, left)), left);
      }
    }
  }
}

// Activations that the tile does not do itself.
void Activate(const GemmArgs& g, float* c, int64_t rows, int64_t columns) {
  const float p0 = g.p0, p1 = g.p1;
  auto apply = [&](auto f) { ForTile(c, g.ldc, rows, columns, f); };
  const auto hard_swish = [](V x) {
    return x * Min(Max(x * (1.0f / 6) + 0.5f, Splat(0)), Splat(1));
  };
  switch (g.activation) {
    case GemmActivation::kNone:
    case GemmActivation::kRelu:
    case GemmActivation::kClip:
    case GemmActivation::kLeakyRelu:
    case GemmActivation::kLeakyReluClip:
      return;  // in the tile
    case GemmActivation::kSigmoid:
      return apply([](V x) { return Sigmoid(x); });
    case GemmActivation::kTanh:
      return apply([](V x) { return Tanh(x); });
    case GemmActivation::kGelu:
      return apply([](V x) { return 0.5f * x * (1.0f + Erf(x * 0.70710678118654752f)); });
    case GemmActivation::kGeluTanh:
      return apply([](V x) {
        return 0.5f * x * (1.0f + Tanh(0.7978845608028654f * (x + 0.044715f * x * x * x)));
      });
    case GemmActivation::kHardSigmoid:
      return apply([=](V x) { return Min(Max(x * p0 + p1, Splat(0)), Splat(1)); });
    case GemmActivation::kHardSwish:
      return apply(hard_swish);
    case GemmActivation::kHardSwishAffine:
      return apply([=](V x) { return hard_swish(x) * p0 + p1; });
    case GemmActivation::kSilu:
      return apply([](V x) { return x * Sigmoid(x); });
    case GemmActivation::kElu:
      return apply([=](V x) { return x >= 0.0f ? x : Expm1Negative(Min(x, Splat(0))) * p0; });
    case GemmActivation::kSoftplus:
      return apply([](V x) { return SoftplusFull(x); });
  }
}

// How depth is cut: equal runs, and so many runs at a time.
struct Runs {
  int64_t count, length, per_chunk;
  int64_t parts;  // runs per tap (channels-last windows with many channels) or per plain row
};

Runs RunsOf(const GemmArgs& g) {
  Runs runs;
  runs.parts = 1;
  if (g.windows && g.windows->merged) {
    runs.length = g.windows->kernel_width * g.windows->channels;
  } else {
    runs.length = g.windows ? g.windows->channels : g.depth;
    // Equal parts of at most kDepthChunk, if there are such.
    int64_t parts = (runs.length + kDepthChunk - 1) / kDepthChunk;
    while (parts < 64 && runs.length % parts != 0) ++parts;
    if (runs.length % parts == 0) {
      runs.length /= parts;
      runs.parts = parts;
    }
  }
  runs.count = g.depth / runs.length;
  // With few rows everything is read once anyway.
  const int64_t chunk = g.rows > 2 * kMaxRows ? kDepthChunk : g.depth;
  const int64_t chunks = (g.depth + chunk - 1) / chunk;
  runs.per_chunk = (runs.count + chunks - 1) / chunks;
  if (runs.per_chunk > kMaxRuns) runs.per_chunk = kMaxRuns;
  return runs;
}

// The windows of consecutive rows.
class WindowRows {
 public:
  // For runs [first, last).
  WindowRows(const GemmArgs& g, const Runs& runs, int64_t first, int64_t last)
      : w_(*g.windows), a_(g.a), first_(first), last_(last), runs_(runs) {
    for (int64_t run = first; run < last; ++run) {
      int64_t ky = run, kx = 0, part = 0;
      if (!w_.merged) {
        part = run % runs.parts;
        kx = run / runs.parts % w_.kernel_width;
        ky = run / runs.parts / w_.kernel_width;
      }
      offsets_[run - first] =
          (ky * w_.dilation_height * w_.in_width + kx * w_.dilation_width) * w_.pixel_stride +
          part * runs.length;
    }
  }

  // rows[(run - first) · count + m] for `count` rows from `row`.
  void Fill(int64_t row, int64_t count, const float** rows) {
    const int64_t pixels = w_.out_height * w_.out_width;
    int64_t image = row / pixels, at = row % pixels;
    int64_t y = at / w_.out_width, x = at % w_.out_width;
    const int64_t reach_y = (w_.kernel_height - 1) * w_.dilation_height;
    const int64_t reach_x = (w_.kernel_width - 1) * w_.dilation_width;
    for (int64_t m = 0; m < count; ++m) {
      const float* base = a_ + image * w_.image_stride;
      const int64_t top = y * w_.stride_height - w_.pad_top;
      const int64_t left = x * w_.stride_width - w_.pad_left;
      if (top >= 0 && top + reach_y < w_.in_height && left >= 0 && left + reach_x < w_.in_width) {
        const float* origin = base + (top * w_.in_width + left) * w_.pixel_stride;
        const float** to = rows + m;
        for (int64_t i = 0; i < last_ - first_; ++i, to += count) *to = origin + offsets_[i];
      } else if (w_.merged) {
        FillMergedBorder(base, top, left, copies_ + m * kMaxMergedDepth, rows + m, count);
      } else {
        FillBorder(base, top, left, rows + m, count);
      }
      if (++x == w_.out_width) {
        x = 0;
        if (++y == w_.out_height) y = 0, ++image;
      }
    }
  }

 private:
  void FillBorder(const float* base, int64_t top, int64_t left, const float** to, int64_t step) {
    int64_t part = first_ % runs_.parts;
    int64_t kx = first_ / runs_.parts % w_.kernel_width;
    int64_t ky = first_ / runs_.parts / w_.kernel_width;
    for (int64_t run = first_; run < last_; ++run, to += step) {
      const int64_t iy = top + ky * w_.dilation_height, ix = left + kx * w_.dilation_width;
      const bool inside = iy >= 0 && iy < w_.in_height && ix >= 0 && ix < w_.in_width;
      *to = (inside ? base + (iy * w_.in_width + ix) * w_.pixel_stride : w_.zeros) +
            part * runs_.length;
      if (++part == runs_.parts) {
        part = 0;
        if (++kx == w_.kernel_width) kx = 0, ++ky;
      }
    }
  }

  void FillMergedBorder(const float* base, int64_t top, int64_t left, float* copy, const float** to,
                        int64_t step) {
    const int64_t channels = w_.channels;
    const bool inside = left >= 0 && left + w_.kernel_width <= w_.in_width;
    for (int64_t ky = first_; ky < last_; ++ky, to += step) {
      const int64_t iy = top + ky * w_.dilation_height;
      const float* from = base + (iy * w_.in_width + left) * channels;
      if (iy < 0 || iy >= w_.in_height) {
        *to = w_.zeros;
      } else if (inside) {
        *to = from;
      } else {
        *to = copy;
        for (int64_t ix = left; ix < left + w_.kernel_width; ++ix) {
          const bool there = ix >= 0 && ix < w_.in_width;
          for (int64_t c = 0; c < channels; ++c, ++from) *copy++ = there ? *from : 0;
        }
      }
    }
  }

  const GemmWindows& w_;
  const float* a_;
  int64_t first_, last_;
  const Runs& runs_;
  int64_t offsets_[kMaxRuns];
  float copies_[kMaxRows * kMaxMergedDepth];
};

bool CanTake(const GemmWindows& w) {
  if (!w.merged) return true;
  return w.dilation_width == 1 && w.pixel_stride == w.channels &&
         w.kernel_height * w.kernel_width * w.channels <= kMaxMergedDepth;
}

void SetEpilogue(const GemmArgs& g, bool first, bool last, TileArgs& t) {
  t.alpha = g.alpha;
  t.bias = first ? g.bias : nullptr;
  t.leaky = false;
  t.slope = g.p0;
  t.low = -__builtin_inff();
  t.high = __builtin_inff();
  if (!last) return;
  switch (g.activation) {
    case GemmActivation::kRelu:
      t.low = 0;
      return;
    case GemmActivation::kClip:
      t.low = g.p0;
      t.high = g.p1;
      return;
    case GemmActivation::kLeakyReluClip:
      t.leaky = true;
      t.low = g.p1;
      t.high = g.p2;
      return;
    case GemmActivation::kLeakyRelu:
      t.leaky = true;
      return;
    default:
      return;
  }
}

// One panel, one chunk of depth, all rows. `fill(row, count, rows)` finds the rows' runs.
template <typename Fill>
void RunPanel(const GemmArgs& g, int64_t column, const float* b, TileArgs t, bool first, bool last,
              Fill fill) {
  const float* pointers[kMaxRows * kMaxRuns];
  const int64_t left = g.last_column - column;
  t.valid = left < kPanel ? left : kPanel;
  const int64_t vectors = (t.valid + kLanes - 1) / kLanes;
  t.b = b;
  t.rows = pointers;
  t.ldc = g.ldc;
  if (t.bias) t.bias += column;
  const int64_t ld_residual = g.ld_residual ? g.ld_residual : g.ldc;
  const int64_t height = RowsFor(vectors);
  const TileFunction full = TileFor(height, vectors);
  for (int64_t row = 0; row < g.rows;) {
    int64_t count = g.rows - row;
    // Two tiles of about the same height rather than a full and a very low one.
    if (count > height && count < height + 3) count = (count + 1) / 2;
    if (count > height) count = height;
    fill(row, count, pointers);
    t.c = g.c + row * g.ldc + column;
    if (!first) {
      t.add = t.c;
      t.ld_add = g.ldc;
    } else if (g.residual) {
      t.add = g.residual + row * ld_residual + column;
      t.ld_add = ld_residual;
    } else {
      t.add = nullptr;
    }
    (count == height ? full : TileFor(count, vectors))(t);
    if (last) Activate(g, t.c, count, t.valid);
    row += count;
  }
}

void Run(const GemmArgs& g) {
  const Runs runs = RunsOf(g);
  TileArgs t;
  for (int64_t run = 0; run < runs.count; run += runs.per_chunk) {
    const int64_t end = run + runs.per_chunk < runs.count ? run + runs.per_chunk : runs.count;
    const bool first = run == 0, last = end == runs.count;
    SetEpilogue(g, first, last, t);
    t.runs = end - run;
    t.length = runs.length;
    for (int64_t column = g.first_column; column < g.last_column; column += kPanel) {
      // The last panel may be narrower.
      const int64_t left = g.last_column - column < kPanel ? g.last_column - column : kPanel;
      const int64_t width = (left + kLanes - 1) / kLanes * kLanes;
      const float* b = g.b + column * g.depth + run * runs.length * width;
      if (g.windows) {
        WindowRows windows(g, runs, run, end);
        RunPanel(g, column, b, t, first, last, [&](int64_t row, int64_t count, const float** p) {
          windows.Fill(g.first_row + row, count, p);
        });
      } else {
        RunPanel(g, column, b, t, first, last, [&](int64_t row, int64_t count, const float** p) {
          for (int64_t r = run; r < end; ++r) {
            for (int64_t m = 0; m < count; ++m) {
              *p++ = g.a + (row + m) * g.lda + r * runs.length;
            }
          }
        });
      }
    }
  }
}

}  // namespace

extern const GemmKernel kGemm;
const GemmKernel kGemm = {kPanel, kLanes, Run, CanTake};

}  // namespace plexus::cpu::PLEXUS_ISA
