// Roofline: what a GPU would launch for an operator, and how long a block of it takes.
#pragma once

#include "base/clock.h"
#include "device/sim/sim_gpu.h"
#include "graph/graph.h"
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

// What one kernel does, independent of the device.
struct KernelWork {
  double flops = 0;
  double bytes = 0;  // read and written once each; tiles that are read again come from the cache
  // As a product of `batch` matrices [rows, depth] · [depth, columns]; rows 0: not one.
  int64_t batch = 1, rows = 0, columns = 0, depth = 0;
  int64_t elements = 0;  // otherwise: of the largest operand
};

// The work of one node but for its bytes. Shapes are concrete. Operators that are not products
// count one operation per element (plexus.Elementwise: per step).
KernelWork WorkOf(const Graph& graph, const Node& node);

// Fills grid, resources, flops, bytes and estimated_block_time of `kernel`. `gpu` has peak_flops
// and bytes_per_sec > 0.
//
// A block's time assumes that its SM is shared with as many blocks of the kernel as there will be:
// grids that fill the device divide its rates, smaller ones get what their blocks can use.
void PlanKernel(const KernelWork& work, const SimGpuOptions& gpu, const RooflineOptions& options,
                Kernel* kernel);

}  // namespace plexus
