#include "device/cpu/kernels/depthwise_kernels.h"

#include "device/cpu/kernels/vector_math.h"

namespace plexus::cpu::PLEXUS_ISA {

namespace {

// One vector of channels; `count` < kLanes of them are real in the last one.
struct Lane {
  int64_t channel;
  int64_t count;
  bool full;
  V Get(const float* p) const { return full ? Load(p + channel) : LoadPartial(p + channel, count); }
  void Put(float* p, V v) const {
    full ? Store(p + channel, v) : StorePartial(p + channel, v, count);
  }
};

inline void Finish(const DepthwiseRow& r, const Lane& lane, int64_t ox, V v) {
  if (r.residual) v += lane.Get(r.residual + ox * r.channels);
  v = Min(Max(v, Splat(r.low)), Splat(r.high));
  lane.Put(r.y + ox * r.channels, v);
}

// Any kernel, one pixel, windows may hang over the sides.
void Pixel(const DepthwiseRow& r, const Lane& lane, int64_t ox) {
  V acc = r.bias ? lane.Get(r.bias) : V{};
  const int64_t left = ox * r.stride - r.pad_left;
  for (int64_t ky = 0; ky < r.kernel_rows; ++ky) {
    const float* row = r.x + ky * r.row_dilation * r.in_width * r.channels;
    for (int64_t kx = 0; kx < r.kernel_width; ++kx) {
      const int64_t ix = left + kx * r.dilation;
      if (ix < 0 || ix >= r.in_width) continue;
      acc +=
          lane.Get(row + ix * r.channels) * lane.Get(r.w + (ky * r.kernel_width + kx) * r.channels);
    }
  }
  Finish(r, lane, ox, acc);
}

// kPixels neighbours whose windows lie inside, of a kernel kWidth wide without dilation.
template <int kWidth, int kStride, int kPixels>
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

template <int kWidth, int kStride, int kPixels>
void Inside(const DepthwiseRow& r, const Lane& lane, int64_t begin, int64_t end) {
  int64_t ox = begin;
  for (; ox + kPixels <= end; ox += kPixels) Pixels<kWidth, kStride, kPixels>(r, lane, ox);
  for (; ox + 2 <= end; ox += 2) Pixels<kWidth, kStride, 2>(r, lane, ox);
  for (; ox < end; ++ox) Pixels<kWidth, kStride, 1>(r, lane, ox);
}

void Others(const DepthwiseRow& r, const Lane& lane, int64_t begin, int64_t end) {
  for (int64_t ox = begin; ox < end; ++ox) Pixel(r, lane, ox);
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
  auto inside = Others;
  if (r.dilation == 1 && r.stride == 1 && r.kernel_width == 3) inside = Inside<3, 1, 8>;
  if (r.dilation == 1 && r.stride == 2 && r.kernel_width == 3) inside = Inside<3, 2, 8>;
  if (r.dilation == 1 && r.stride == 1 && r.kernel_width == 5) inside = Inside<5, 1, 8>;
  if (r.dilation == 1 && r.stride == 2 && r.kernel_width == 5) inside = Inside<5, 2, 4>;
  for (int64_t c = 0; c < r.channels; c += kLanes) {
    const int64_t left = r.channels - c;
    const Lane lane{c, left, left >= kLanes};
    Others(r, lane, 0, first);
    inside(r, lane, first, last);
    Others(r, lane, last, r.out_width);
  }
}

}  // namespace

extern const DepthwiseKernels kDepthwise;
const DepthwiseKernels kDepthwise = {Row};

}  // namespace plexus::cpu::PLEXUS_ISA
