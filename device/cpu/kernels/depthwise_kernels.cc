#include "device/cpu/kernels/depthwise_kernels.h"

#include "device/cpu/kernels/vector_math.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

// Vectors of channels and pixels that are computed together, as many as the registers hold.
#if defined(__AVX512F__)
constexpr int kVectors = 2, kFew = 4, kMany = 6;
#else
constexpr int kVectors = 1, kFew = 6, kMany = 6;
#endif

// kVecs vectors of channels from `channel`; if not kFull, kVecs is 1 and only `count` < kLanes of
// its lanes are real.
template <int kVecs, bool kFull>
struct Lane {
  static constexpr int kN = kVecs;
  int64_t channel, count;
  V Get(const float* p, int v) const {
    if constexpr (kFull) return Load(p + channel + v * kLanes);
    return LoadPartial(p + channel, count);
  }
  void Put(float* p, int v, V value) const {
    if constexpr (kFull) return Store(p + channel + v * kLanes, value);
    StorePartial(p + channel, value, count);
  }
};

template <typename Lane>
inline __attribute__((always_inline)) void Finish(const DepthwiseRow& r, const Lane& lane,
                                                  int64_t ox, int v, V value) {
  if (r.residual) value += lane.Get(r.residual + ox * r.channels, v);
  value = AtMost(AtLeast(value, r.low), r.high);
  if (r.hard_swish) {
    value *= AtMost(AtLeast(value * (1.0f / 6) + 0.5f, 0.0f), 1.0f);
    value = value * r.scale + r.shift;
  }
  lane.Put(r.y + ox * r.channels, v, value);
}

// Any kernel, one pixel, windows may hang over the sides.
template <typename Lane>
void Pixel(const DepthwiseRow& r, const Lane& lane, int64_t ox) {
  int64_t ix = ox * r.stride - r.pad_left, first = 0, last = r.kernel_width;
  for (; first < last && ix < 0; ix += r.dilation) ++first;
  while (last > first && ix + (last - 1 - first) * r.dilation >= r.in_width) --last;
  const int64_t step = r.dilation * r.channels;
  V acc[Lane::kN];
  for (int v = 0; v < Lane::kN; ++v) acc[v] = r.bias ? lane.Get(r.bias, v) : V{};
  for (int64_t ky = 0; ky < r.kernel_rows; ++ky) {
    const float* x = r.x + (ky * r.row_dilation * r.in_width + ix) * r.channels;
    const float* w = r.w + (ky * r.kernel_width + first) * r.channels;
    for (int64_t kx = first; kx < last; ++kx, x += step, w += r.channels) {
      for (int v = 0; v < Lane::kN; ++v) acc[v] += lane.Get(x, v) * lane.Get(w, v);
    }
  }
  for (int v = 0; v < Lane::kN; ++v) Finish(r, lane, ox, v, acc[v]);
}

// kPixels neighbours whose windows lie inside, of a kernel kWidth wide without dilation.
template <int kWidth, int kStride, int kPixels, typename Lane>
inline __attribute__((always_inline)) void Pixels(const DepthwiseRow& r, const Lane& lane,
                                                  int64_t ox) {
  V acc[kPixels][Lane::kN];
#pragma GCC unroll 16
  for (int v = 0; v < Lane::kN; ++v) {
    const V start = r.bias ? lane.Get(r.bias, v) : V{};
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) acc[p][v] = start;
  }
  const int64_t channels = r.channels;
  const float* row = r.x + (ox * kStride - r.pad_left) * channels;
  const float* w = r.w;
  for (int64_t ky = 0; ky < r.kernel_rows; ++ky) {
    V taps[kWidth][Lane::kN];
#pragma GCC unroll 16
    for (int kx = 0; kx < kWidth; ++kx) {
#pragma GCC unroll 4
      for (int v = 0; v < Lane::kN; ++v) taps[kx][v] = lane.Get(w + kx * channels, v);
    }
    const float* x = row;
#pragma GCC unroll 32
    for (int i = 0; i < (kPixels - 1) * kStride + kWidth; ++i, x += channels) {
#pragma GCC unroll 4
      for (int v = 0; v < Lane::kN; ++v) {
        const V value = lane.Get(x, v);
#pragma GCC unroll 16
        for (int kx = 0; kx < kWidth; ++kx) {
          const int at = i - kx;
          if (at >= 0 && at % kStride == 0 && at / kStride < kPixels) {
            acc[at / kStride][v] += value * taps[kx][v];
          }
        }
      }
    }
    row += r.row_dilation * r.in_width * channels;
    w += kWidth * channels;
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
    for (int v = 0; v < Lane::kN; ++v) Finish(r, lane, ox + p, v, acc[p][v]);
  }
}

template <int kWidth, int kStride, int kPixels, typename Lane>
void Inside(const DepthwiseRow& r, const Lane& lane, int64_t begin, int64_t end) {
  int64_t ox = begin;
  for (; ox + kPixels <= end; ox += kPixels) Pixels<kWidth, kStride, kPixels>(r, lane, ox);
  for (; ox + 2 <= end; ox += 2) Pixels<kWidth, kStride, 2>(r, lane, ox);
  if (ox < end) Pixels<kWidth, kStride, 1>(r, lane, ox);
}

template <typename Lane>
void Others(const DepthwiseRow& r, const Lane& lane, int64_t begin, int64_t end) {
  for (int64_t ox = begin; ox < end; ++ox) Pixel(r, lane, ox);
}

// The whole row for some channels (measured faster than all channels of some pixels, whose weights
// would not stay in the first cache); windows [first, last) lie inside.
template <typename Lane>
void Columns(const DepthwiseRow& r, const Lane& lane, int64_t first, int64_t last) {
  Others(r, lane, 0, first);
  switch (r.dilation == 1 ? r.kernel_width * 10 + r.stride : 0) {
    case 31:
      Inside<3, 1, kFew>(r, lane, first, last);
      break;
    case 32:
      Inside<3, 2, kMany>(r, lane, first, last);
      break;
    case 51:
      Inside<5, 1, kMany>(r, lane, first, last);
      break;
    case 52:
      Inside<5, 2, 4>(r, lane, first, last);
      break;
    default:
      Others(r, lane, first, last);
  }
  Others(r, lane, last, r.out_width);
}

void Row(const DepthwiseRow& r) {
  // Windows [first, last) lie inside.
  const int64_t reach = (r.kernel_width - 1) * r.dilation + 1;
  int64_t first = (r.pad_left + r.stride - 1) / r.stride;
  int64_t last =
      r.in_width + r.pad_left < reach ? 0 : (r.in_width + r.pad_left - reach) / r.stride + 1;
  last = last < r.out_width ? last : r.out_width;
  first = first < r.out_width ? first : r.out_width;
  if (last < first) last = first;
  int64_t c = 0;
  for (; c + kVectors * kLanes <= r.channels; c += kVectors * kLanes) {
    Columns(r, Lane<kVectors, true>{c, kLanes}, first, last);
  }
  for (; c + kLanes <= r.channels; c += kLanes) {
    Columns(r, Lane<1, true>{c, kLanes}, first, last);
  }
  if (c < r.channels) Columns(r, Lane<1, false>{c, r.channels - c}, first, last);
}

}  // namespace

extern const DepthwiseKernels kDepthwise;
const DepthwiseKernels kDepthwise = {Row};

}  // namespace plexus::cpu::PLEXUS_ISA
