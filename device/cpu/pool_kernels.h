// Channels-last pooling loops, built once per instruction set.
#pragma once

#include <cstdint>

namespace plexus::cpu {

// One window over a channels-last image: `taps` pixels at pixel indices tap[0..taps), each `stride`
// floats apart, reduced into y[0..channels).
struct PoolKernels {
  void (*max)(const float* x, const int64_t* tap, int64_t taps, int64_t stride, int64_t channels,
              float* y);
  // The sum times `scale`.
  void (*sum)(const float* x, const int64_t* tap, int64_t taps, int64_t stride, int64_t channels,
              float scale, float* y);
  // Sum (or maximum) over `pixels` consecutive pixels, for global pools.
  void (*global_sum)(const float* x, int64_t pixels, int64_t stride, int64_t channels, float scale,
                     float* y);
  void (*global_max)(const float* x, int64_t pixels, int64_t stride, int64_t channels, float* y);
};
const PoolKernels& BestPool();

}  // namespace plexus::cpu
