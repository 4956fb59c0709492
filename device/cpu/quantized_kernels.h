// Elementwise loops on quantised tensors, built once per instruction set.
#pragma once

#include <cstdint>

namespace plexus::cpu {

// Quantised element i of `signed ? int8 : uint8`; every function handles `count` elements.
struct QuantizedKernels {
  // y = saturate(round(x · inverse_scale + zero_point)), to nearest even.
  void (*quantize)(const float* x, int64_t count, float scale, float zero_point, bool is_signed,
                   void* y);
  // y = (x − zero_point) · scale.
  void (*dequantize)(const void* x, int64_t count, float scale, float zero_point, bool is_signed,
                     float* y);
  // y = saturate(round(clamp(a · a_scale + b · b_scale + offset, low, high) + zero_point)): scales
  // in units of y; a's and b's zero points are in `offset`.
  void (*add)(const void* a, const void* b, int64_t count, float a_scale, float b_scale,
              float offset, float low, float high, float zero_point, bool a_signed, bool b_signed,
              bool y_signed, void* y);
  // y = max over `taps` pixels, as PoolKernels::max.
  void (*max)(const void* x, const int64_t* tap, int64_t taps, int64_t channels, bool is_signed,
              void* y);
};
const QuantizedKernels& BestQuantized();

}  // namespace plexus::cpu
