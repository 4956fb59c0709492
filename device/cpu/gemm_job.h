// A matrix product or convolution on our own kernel (gemm.h), cut into blocks: what matmul.cc and
// conv.cc share.
#pragma once

#include <vector>

#include "device/cpu/dnnl_conv.h"
#include "device/cpu/gemm.h"
#include "device/cpu/lowering.h"

namespace plexus::cpu {

// Blocks of one matrix: row chunks × column chunks.
struct GemmCut {
  int64_t row_chunks = 1, rows_per_chunk = 0;
  int64_t column_chunks = 1, columns_per_chunk = 0;
};
// About `wanted` blocks. The larger of the operands is the one that is not read by every block:
// `a_floats` says how much memory the rows of a cover.
GemmCut CutGemm(int64_t rows, int64_t columns, int64_t depth, double a_floats, int64_t wanted);

// Sets the activation and its parameters; false if the kernel does not know it.
bool SetGemmActivation(const Activation& activation, GemmArgs& args);

// `constant` [.., depth, columns], or [columns, .., depth] if `transposed`, packed once per
// process; its plain bytes are given up. `taps` > 1 (transposed only): plain depth is [depth /
// taps, taps], packed depth is [taps, depth / taps].
Result<DerivedPtr> PackGemmConstant(const Constant& constant, int64_t depth, int64_t columns,
                                    bool transposed, int64_t taps);

// What a block needs. Operands: a, b (packed or plain), and where said bias and residual; one
// write.
struct GemmJob {
  GemmArgs base;  // sizes of one matrix, leading dimensions, epilogue; no addresses
  GemmCut cut;
  std::vector<int64_t> a_offsets{0}, b_offsets{0};  // per matrix, in elements
  bool packed = true;
  int64_t b_row_stride = 0, b_column_stride = 0;  // plain b only
  int bias_operand = -1, residual_operand = -1;
  bool windowed = false;
  GemmWindows windows;
  std::vector<float> zeros;  // for windows beyond the border

  uint32_t Grid() const {
    return static_cast<uint32_t>(a_offsets.size() * cut.row_chunks * cut.column_chunks);
  }
  // Plain b is packed panel by panel.
  size_t ScratchBytes() const;
};
// Sets kernel.grid, scratch_bytes and run.
void SetGemmKernel(GemmJob job, KernelSpec& kernel);

}  // namespace plexus::cpu
