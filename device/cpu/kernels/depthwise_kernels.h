// Rows of depthwise convolutions on channels-last data, built once per instruction set.
#pragma once

#include <cstdint>

namespace plexus::cpu {

struct DepthwiseRow {
  const float* x = nullptr;         // pixel (iy, 0) of the first kernel row that lies in the image
  const float* w = nullptr;         // [kernel_height · kernel_width][channels], from that row on
  const float* bias = nullptr;      // or null
  const float* residual = nullptr;  // or null; may be y
  float* y = nullptr;
  int64_t channels = 0, in_width = 0, out_width = 0;
  int64_t kernel_rows = 0, kernel_width = 0;  // rows that lie in the image
  int64_t stride = 1, row_dilation = 1, dilation = 1, pad_left = 0;
  float low = 0, high = 0;  // clip the result
  bool hard_swish = false;  // then v · clip(v / 6 + 1/2, 0, 1) · scale + shift
  float scale = 1, shift = 0;
};

struct DepthwiseKernels {
  void (*row)(const DepthwiseRow& row);
};
const DepthwiseKernels& BestDepthwiseKernels();

}  // namespace plexus::cpu
