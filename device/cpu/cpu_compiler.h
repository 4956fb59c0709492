// Lowers static regions to CPU kernels: oneDNN for convolution, matmul and pooling, our own for the
// memory-bound rest, the reference for what is rare.
#pragma once

#include <memory>

#include "program/compiler.h"

namespace plexus {

struct CpuCompilerOptions {
  uint32_t workers = 1;  // grids are cut with this many in mind
  Duration target_block_time = std::chrono::microseconds(100);
};

// Thread-safe. Primitives are cached by tile shape across programs and models; prepacked weights
// are derived constants.
std::unique_ptr<Compiler> MakeCpuCompiler(const CpuCompilerOptions& options);

}  // namespace plexus
