// Normalisations and reductions of rows and columns of floats, built once per instruction set.
#pragma once

#include <cstdint>

namespace plexus::cpu {

enum class ReduceOp : uint8_t { kSum, kMean, kMax, kMin, kProd, kSumSquare, kL2, kL1 };
inline constexpr int kNumReduceOps = 8;

// All matrices are dense rows of n floats unless a stride says otherwise; y may be x.
struct RowKernels {
  // y = softmax of each row, or its logarithm.
  void (*softmax)(const float* x, float* y, int64_t rows, int64_t n, bool log);
  // The same along the first axis of x[n, stride], for columns [0, columns).
  void (*softmax_columns)(const float* x, float* y, int64_t n, int64_t stride, int64_t columns,
                          bool log);
  // y = (x - mean) / sqrt(variance + epsilon) · scale[i] + bias[i]; either may be null. Without
  // `centred` the mean is taken as 0.
  void (*norm)(const float* x, const float* scale, const float* bias, float* y, int64_t rows,
               int64_t n, float epsilon, bool centred);
  // One row with one scale and bias for each run of n / parts elements.
  void (*norm_parts)(const float* x, const float* scale, const float* bias, float* y, int64_t n,
                     int64_t parts, float epsilon);
  // One number for each row.
  float (*reduce_row[kNumReduceOps])(const float* x, int64_t n);
  // y[c] over n rows of x[n, stride], c < columns.
  void (*reduce_columns[kNumReduceOps])(const float* x, float* y, int64_t n, int64_t stride,
                                        int64_t columns);
  // y[i] = sum over k < 4 of weight[k] · x[k][i], i < n.
  void (*blend)(const float* const* x, const float* weight, float* y, int64_t n);
};
const RowKernels& BestRowKernels();

}  // namespace plexus::cpu
