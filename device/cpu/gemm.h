// Our own float32 matrix multiplication on packed weights: no primitive to make, so a new number of
// rows costs nothing, and any range of rows and columns is a block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace plexus::cpu {

// What happens to a finished element: activations of passes/fused_ops.h, with their parameters p0,
// p1, p2 in the order given there.
enum class GemmActivation : uint8_t {
  kNone,
  kRelu,
  kLeakyRelu,
  kLeakyReluClip,
  kSigmoid,
  kTanh,
  kGelu,
  kGeluTanh,
  kClip,
  kHardSigmoid,
  kHardSwish,
  kHardSwishAffine,
  kSilu,
  kElu,
  kSoftplus,
};

// The rows of `a` as windows over channels-last images: row r is the window of output pixel r
// (image, then y, then x). Its `depth` elements are the channels of tap after tap.
struct GemmWindows {
  // The taps of one line of the filter are read as one piece: for few channels.
  bool merged = false;
  int64_t channels = 0;
  int64_t in_height = 1, in_width = 1, out_height = 1, out_width = 1;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_height = 1, stride_width = 1;
  int64_t dilation_height = 1, dilation_width = 1;
  int64_t pad_top = 0, pad_left = 0;
  int64_t pixel_stride = 0;      // elements from one pixel to the next
  int64_t image_stride = 0;      // elements from one image to the next
  const float* zeros = nullptr;  // at least `channels` (merged: times kernel_width) zeros
};
// What the kernels can take.
bool GemmCanTake(const GemmWindows& windows);

// c[m, n] = activation(alpha · a[m, k] · b[k, n] + bias[n] + residual[m, n]).
struct GemmArgs {
  const float* a = nullptr;  // row 0; or pixel 0 of image 0 with `windows`
  int64_t lda = 0;           // elements between rows
  const GemmWindows* windows = nullptr;
  int64_t first_row = 0;     // with `windows`: which row is row 0 of c and residual
  const float* b = nullptr;  // packed panels, from column 0 of the packed matrix
  float* c = nullptr;        // must not overlap a
  int64_t ldc = 0;
  int64_t rows = 0, depth = 0;
  // Columns [first_column, last_column) of c: from one panel's first to another's last.
  int64_t first_column = 0, last_column = 0;
  const float* bias = nullptr;      // or null
  const float* residual = nullptr;  // or null; may be c
  int64_t ld_residual = 0;          // 0: ldc
  float alpha = 1;
  GemmActivation activation = GemmActivation::kNone;
  float p0 = 0, p1 = 0, p2 = 0;
};

// The build for one instruction set. b is packed as panels of `panel` columns: panel j holds
// b[0..depth, j·panel ..], row by row; the last panel is as wide as its columns rounded up to
// `column_multiple`, zero-filled.
struct GemmKernel {
  int64_t panel = 0, column_multiple = 0;
  void (*run)(const GemmArgs& args) = nullptr;
  bool (*can_take)(const GemmWindows& windows) = nullptr;
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
