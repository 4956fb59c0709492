// Runs a CPU Program without a device or dispatcher: for tests and benchmarks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"
#include "program/program.h"

namespace plexus::cpu {

struct RunOptions {
  uint32_t threads = 1;
  // 0: kernels and blocks in order. Otherwise: ready kernels and their blocks one by one in an
  // order drawn from this seed, in an arena filled with NaN patterns beforehand.
  uint64_t shuffle_seed = 0;
};

// `inputs` as program.inputs; the first error of any block.
Result<std::vector<Tensor>> RunProgram(const Program& program, std::span<const Tensor> inputs,
                                       const RunOptions& options = {});

}  // namespace plexus::cpu
