// Roofline: what a GPU would launch for an operator, and how long a block of it takes.
#pragma once

#include "base/clock.h"
#include "device/sim/sim_gpu.h"
#include "graph/work.h"
#include "program/program.h"

namespace plexus {

// All parameters of the lowering. None is fitted to a measurement: marked [inferred] where no
// source is named, and varied in the sensitivity table of the experiments that use them.
struct RooflineOptions {
  // Shares of the peak that large tiles and long streams reach. [inferred]
  double compute_efficiency = 0.7;
  double memory_efficiency = 0.8;
  // Threads that an SM needs for its full arithmetic rate; a block alone on an SM gets no more
  // than its threads' part of it. [inferred]
  int32_t threads_for_full_rate = 512;
  // One SM draws at most this many times its fair share of the memory bandwidth. [inferred]
  double sm_bandwidth_share = 3;
  // Of every block: start, pipeline fill, drain. [inferred]
  Duration block_overhead = std::chrono::microseconds(1);

  // Products of matrices, and convolutions as such: the large tile where it makes a block for every
  // SM, else the small one. Double-buffered tiles of 16 columns in f32.
  int32_t large_tile = 128, large_threads = 256, large_registers = 128;
  int32_t small_tile = 64, small_threads = 128, small_registers = 96;
  int32_t tile_depth = 16;
  // Where even small tiles leave SMs idle, the summed dimension is split, into parts of at least
  // this length.
  int64_t min_split_depth = 256;

  // Everything else: this many output elements per block.
  int64_t elements_per_block = 1024;
  int32_t elementwise_threads = 256, elementwise_registers = 32;
};

// Fills grid, resources, flops, bytes and estimated_block_time of `kernel`. `gpu` has peak_flops
// and bytes_per_sec > 0.
//
// A block's time assumes that its SM is shared with as many blocks of the kernel as there will be:
// grids that fill the device divide its rates, smaller ones get what their blocks can use.
void PlanKernel(const NodeWork& work, const SimGpuOptions& gpu, const RooflineOptions& options,
                Kernel* kernel);

}  // namespace plexus
