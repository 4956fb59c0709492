#include "device/sim/roofline.h"

#include <algorithm>
#include <cmath>

namespace plexus {
namespace {

constexpr int64_t kMaxGrid = int64_t{1} << 20;  // beyond: blocks take several tiles each

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

}  // namespace

void PlanKernel(const NodeWork& work, const SimGpuOptions& gpu, const RooflineOptions& options,
                Kernel* kernel) {
  const int64_t sms = gpu.sms;
  int64_t grid;
  BlockResources& r = kernel->resources;
  if (work.rows > 0) {
    const auto tiles = [&](int64_t tile) {
      return work.batch * CeilDiv(work.rows, tile) * CeilDiv(work.columns, tile);
    };
    const bool large = tiles(options.large_tile) >= sms;
    const int32_t tile = large ? options.large_tile : options.small_tile;
    grid = tiles(tile);
    r.threads = large ? options.large_threads : options.small_threads;
    r.registers_per_thread = large ? options.large_registers : options.small_registers;
    r.shared_bytes = 2 * 2 * tile * options.tile_depth * static_cast<int32_t>(sizeof(float));
    if (grid < sms) {
      grid *= std::clamp<int64_t>(work.depth / options.min_split_depth, 1, CeilDiv(sms, grid));
    }
  } else {
    grid = CeilDiv(std::max<int64_t>(1, work.elements), options.elements_per_block);
    r.threads = options.elementwise_threads;
    r.registers_per_thread = options.elementwise_registers;
    r.shared_bytes = 0;
  }
  grid = std::clamp<int64_t>(grid, 1, kMaxGrid);
  kernel->grid = static_cast<uint32_t>(grid);
  kernel->flops = work.flops;
  kernel->bytes = work.bytes;

  const BlockFootprint footprint = FootprintOf(gpu.sm, r);
  const int64_t per_sm = std::max<int64_t>(1, UnitPacking(1, gpu.sm).Room(footprint, 1u << 20));
  // How many blocks share an SM, and the device, at a time.
  const double on_sm = static_cast<double>(std::min(per_sm, CeilDiv(grid, sms)));
  const double on_device = static_cast<double>(std::min(per_sm * sms, grid));
  const double usable = std::min(
      1.0, static_cast<double>(footprint.threads) / std::max(1, options.threads_for_full_rate));
  const double flops_per_sec = gpu.peak_flops * options.compute_efficiency /
                               static_cast<double>(sms) * std::min(1.0 / on_sm, usable);
  const double bytes_per_sec =
      gpu.bytes_per_sec * options.memory_efficiency *
      std::min(1.0 / on_device, options.sm_bandwidth_share / static_cast<double>(sms) / on_sm);
  const double blocks = static_cast<double>(grid);
  const double seconds =
      std::max(work.flops / blocks / flops_per_sec, work.bytes / blocks / bytes_per_sec);
  const double ns = std::min(seconds * 1e9, 1e15);
  kernel->estimated_block_time =
      std::max(Duration{1}, options.block_overhead + Duration(static_cast<int64_t>(ns)));
}

}  // namespace plexus
