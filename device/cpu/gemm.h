// Our own float32 matrix multiplication on packed weights: no primitive to make, so a new number of
// rows costs nothing, and any range of rows and columns is a block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plexus::cpu {

// What happens to a finished element: activations of passes/fused_ops.h.
enum class GemmActivation : uint8_t {
  kNone,
  kRelu,
  kLeakyRelu,
  kSigmoid,
  kTanh,
  kGelu,
  kGeluTanh,
  kClip,
  kHardSigmoid,
  kHardSwish,
  kSilu,
};

// c[m, n] = activation(alpha · a[m, k] · b[k, n] + bias[n] + residual[m, n]).
struct GemmArgs {
  const float* a = nullptr;
  int64_t lda = 0;           // elements between rows
  const float* b = nullptr;  // packed panels, from column 0 of the packed matrix
  float* c = nullptr;
  int64_t ldc = 0;
  int64_t rows = 0, depth = 0;
  // Columns [first_column, last_column) of c; first_column is a multiple of panel().
  int64_t first_column = 0, last_column = 0;
  const float* bias = nullptr;      // or null
  const float* residual = nullptr;  // or null; leading dimension ldc
  float alpha = 1;
  GemmActivation activation = GemmActivation::kNone;
  float p0 = 0, p1 = 0;
};

// The build for one instruction set. b is packed as panels of `panel` columns: panel j holds
// b[0..depth, j·panel ..], row by row; the last panel is as wide as its columns rounded up to
// `column_multiple`, zero-filled.
struct GemmKernel {
  int64_t panel = 0, column_multiple = 0;
  void (*run)(const GemmArgs& args) = nullptr;
};
const GemmKernel& BestGemm();

// Floats of a packed matrix.
int64_t PackedFloats(int64_t depth, int64_t columns);
// Packs columns [first, last) (first a multiple of panel) of b, whose element (k, n) is
// b[k · row_stride + n · column_stride], into `packed` (from its column 0).
void PackGemm(const float* b, int64_t row_stride, int64_t column_stride, int64_t depth,
              int64_t first, int64_t last, int64_t columns, float* packed);
// The inverse, for the whole matrix.
void UnpackGemm(const float* packed, int64_t depth, int64_t columns, float* b, int64_t row_stride,
                int64_t column_stride);

}  // namespace plexus::cpu
