#include "device/cpu/kernels/depthwise_kernels.h"

#include "device/cpu/kernels/vector_math.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

// One vector of channels from `channel`; if not kFull, only `count` < kLanes of them are real.
template <bool kFull>
struct Lane {
  int64_t channel, count;
  V Get(const float* p) const {
    if constexpr (kFull) return Load(p + channel);
    return LoadPartial(p + channel, count);
  }
  void Put(float* p, V v) const {
    if constexpr (kFull) return Store(p + channel, v);
    StorePartial(p + channel, v, count);
  }
};

template <typename Lane>
inline void Finish(const DepthwiseRow& r, const Lane& lane, int64_t ox, V v) {
  if (r.residual) v += lane.Get(r.residual + ox * r.channels);
  v = Min(Max(v, Splat(r.low)), Splat(r.high));
  lane.Put(r.y + ox * r.channels, v);
}

// Any kernel, one pixel, windows may hang over the sides.
template <typename Lane>
inline void Pixel(const DepthwiseRow& r, const Lane& lane, int64_t ox) {
  V acc = r.bias ? lane.Get(r.bias) : V{};
  int64_t ix = ox * r.stride - r.pad_left, first = 0, last = r.kernel_width;
  for (; first < last && ix < 0; ix += r.dilation) ++first;
  while (last > first && ix + (last - 1 - first) * r.dilation >= r.in_width) --last;
  const int64_t step = r.dilation * r.channels;
  for (int64_t ky = 0; ky < r.kernel_rows; ++ky) {
    const float* x = r.x + (ky * r.row_dilation * r.in_width + ix) * r.channels;
    const float* w = r.w + (ky * r.kernel_width + first) * r.channels;
    for (int64_t kx = first; kx < last; ++kx, x += step, w += r.channels) {
      acc += lane.Get(x) * lane.Get(w);
    }
  }
  Finish(r, lane, ox, acc);
}

// kPixels neighbours whose windows lie inside, of a kernel kWidth wide without dilation.
template <int kWidth, int kStride, int kPixels, typename Lane>
inline void Pixels(const DepthwiseRow& r, const Lane& lane, int64_t ox) {
  V acc[kPixels];
  const V start = r.bias ? lane.Get(r.bias) : V{};
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) acc[p] = start;
  const float* row = r.x + (ox * kStride - r.pad_left) * r.channels;
  const float* w = r.w;
  for (int64_t ky = 0; ky < r.kernel_rows; ++ky) {
    V taps[kWidth];
#pragma GCC unroll 16
    for (int kx = 0; kx < kWidth; ++kx) taps[kx] = lane.Get(w + kx * r.channels);
#pragma GCC unroll 32
    for (int i = 0; i < (kPixels - 1) * kStride + kWidth; ++i) {
      const V v = lane.Get(row + i * r.channels);
#pragma GCC unroll 16
      for (int kx = 0; kx < kWidth; ++kx) {
        const int at = i - kx;
        if (at >= 0 && at % kStride == 0 && at / kStride < kPixels)
          acc[at / kStride] += v * taps[kx];
      }
    }
    row += r.row_dilation * r.in_width * r.channels;
    w += kWidth * r.channels;
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) Finish(r, lane, ox + p, acc[p]);
}

// All channels of one group of pixels, so that every pixel is read as a stream.
template <int kWidth, int kStride, int kPixels>
void Group(const DepthwiseRow& r, int64_t ox) {
  int64_t c = 0;
  for (; c + kLanes <= r.channels; c += kLanes) {
    Pixels<kWidth, kStride, kPixels>(r, Lane<true>{c, kLanes}, ox);
  }
  if (c < r.channels) {
    Pixels<kWidth, kStride, kPixels>(r, Lane<false>{c, r.channels - c}, ox);
  }
}

template <int kWidth, int kStride, int kPixels>
void Inside(const DepthwiseRow& r, int64_t begin, int64_t end) {
  int64_t ox = begin;
  for (; ox + kPixels <= end; ox += kPixels) Group<kWidth, kStride, kPixels>(r, ox);
  for (; ox + 4 <= end; ox += 4) Group<kWidth, kStride, 4>(r, ox);
  for (; ox + 2 <= end; ox += 2) Group<kWidth, kStride, 2>(r, ox);
  for (; ox < end; ++ox) Group<kWidth, kStride, 1>(r, ox);
}

void Others(const DepthwiseRow& r, int64_t begin, int64_t end) {
  for (int64_t ox = begin; ox < end; ++ox) {
    int64_t c = 0;
    for (; c + kLanes <= r.channels; c += kLanes) Pixel(r, Lane<true>{c, kLanes}, ox);
    if (c < r.channels) Pixel(r, Lane<false>{c, r.channels - c}, ox);
  }
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
  Others(r, 0, first);
  switch (r.dilation == 1 ? r.kernel_width * 10 + r.stride : 0) {
    case 31:
      Inside<3, 1, 8>(r, first, last);
      break;
    case 32:
      Inside<3, 2, 8>(r, first, last);
      break;
    case 51:
      Inside<5, 1, 8>(r, first, last);
      break;
    case 52:
      Inside<5, 2, 4>(r, first, last);
      break;
    default:
      Others(r, first, last);
  }
  Others(r, last, r.out_width);
}

}  // namespace

extern const DepthwiseKernels kDepthwise;
const DepthwiseKernels kDepthwise = {Row};

}  // namespace plexus::cpu::PLEXUS_ISA
