#include "device/cpu/gemm.h"

#include <algorithm>

#include "device/cpu/cpu_features.h"
#include "device/cpu/kernels/box_copy.h"

namespace plexus::cpu {

namespace baseline {
extern const GemmKernel kGemm;
}
namespace avx2 {
extern const GemmKernel kGemm;
}
namespace avx512 {
extern const GemmKernel kGemm;
}

const GemmKernel& BestGemm() {
  switch (BestIsa()) {
    case Isa::kAvx512:
      return avx512::kGemm;
    case Isa::kAvx2:
      return avx2::kGemm;
    case Isa::kBaseline:
      break;
  }
  return baseline::kGemm;
}

bool GemmCanTake(const GemmWindows& windows) { return BestGemm().can_take(windows); }

namespace {

// Width in memory of the panel that starts at `column`.
int64_t PanelWidth(int64_t column, int64_t columns) {
  const GemmKernel& kernel = BestGemm();
  const int64_t left = std::min(kernel.panel, columns - column);
  return (left + kernel.column_multiple - 1) / kernel.column_multiple * kernel.column_multiple;
}

}  // namespace

int64_t PackedFloats(int64_t depth, int64_t columns) {
  const int64_t multiple = BestGemm().column_multiple;
  return (columns + multiple - 1) / multiple * multiple * depth;
}

void PackGemm(const float* b, int64_t row_stride, int64_t column_stride, int64_t depth,
              int64_t first, int64_t last, int64_t columns, float* packed) {
  for (int64_t column = first; column < last; column += BestGemm().panel) {
    const int64_t width = PanelWidth(column, columns);
    const int64_t valid = std::min(width, columns - column);
    float* panel = packed + column * depth;
    if (column_stride == 1) {
      for (int64_t k = 0; k < depth; ++k) {
        const float* source = b + k * row_stride + column;
        for (int64_t n = 0; n < valid; ++n) panel[k * width + n] = source[n];
        for (int64_t n = valid; n < width; ++n) panel[k * width + n] = 0;
      }
      continue;
    }
    if (row_stride == 1) {
      // Pieces of depth whose two tiles fit the first cache.
      constexpr int64_t kDepthTile = 64;
      for (int64_t k = 0; k < depth; k += kDepthTile) {
        TransposeFloats(b + column * column_stride + k, column_stride, panel + k * width, width,
                        std::min(kDepthTile, depth - k), valid);
      }
    } else {
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t n = 0; n < valid; ++n) {
          panel[k * width + n] = b[k * row_stride + (column + n) * column_stride];
        }
      }
    }
    for (int64_t k = 0; valid < width && k < depth; ++k) {
      std::fill(panel + k * width + valid, panel + (k + 1) * width, 0.0f);
    }
  }
}

void UnpackGemm(const float* packed, int64_t depth, int64_t columns, float* b, int64_t row_stride,
                int64_t column_stride) {
  for (int64_t column = 0; column < columns; column += BestGemm().panel) {
    const int64_t width = PanelWidth(column, columns);
    const int64_t valid = std::min(width, columns - column);
    const float* panel = packed + column * depth;
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t n = 0; n < valid; ++n) {
        b[k * row_stride + (column + n) * column_stride] = panel[k * width + n];
      }
    }
  }
}

}  // namespace plexus::cpu
