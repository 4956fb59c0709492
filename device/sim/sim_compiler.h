// Lowers static regions to programs for a simulated GPU: the kernels a GPU would launch, by
// roofline. Nothing of it can be executed; it has grids, resources, times and dependencies.
#pragma once

#include <memory>

#include "device/sim/roofline.h"
#include "device/sim/sim_gpu.h"
#include "program/compiler.h"

namespace plexus {

struct SimCompilerOptions {
  SimGpuOptions gpu;  // peak_flops and bytes_per_sec must be > 0
  RooflineOptions roofline;
};

// A compiler of device_kind "sim". One kernel per node of the optimised graph, or per fusion group
// where nodes carry the same Node::fusion_group; reshapes and identities are views and make none.
// Program::arena_bytes is the most that is alive at once in kernel order. Precision bf16 halves
// the bytes of f32 values; the arithmetic rate stays the f32 one.
//
// kInvalidArgument for options without rates. Compile: kInvalidArgument naming the node where a
// shape is not concrete. Thread-safe.
Result<std::unique_ptr<Compiler>> MakeSimCompiler(const SimCompilerOptions& options);

}  // namespace plexus
