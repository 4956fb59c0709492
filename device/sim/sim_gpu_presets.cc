// The known GPUs. Sources: NVIDIA's data sheets (SMs, peak f32 rate without tensor cores, memory
// bandwidth and size) and the CUDA C++ Programming Guide's table of compute capabilities (what an
// SM holds); allocation granularities from NVIDIA's occupancy calculator. Launch latency: the 2.1
// to 2.2 us measured by third parties. What a data sheet does not tell is marked [inferred]; the
// sensitivity of results to those is reported beside them.
#include "device/sim/sim_gpu.h"

namespace plexus {
namespace {

struct Preset {
  const char* name;
  uint32_t sms;
  int32_t blocks, threads, shared_kib, shared_granularity;
  double tflops, gb_per_sec;
  int memory_gib;
  double copy_gb_per_sec;  // host link, one direction; [inferred]: about 3/4 of the nominal rate
};

constexpr Preset kPresets[] = {
    // T4 data sheet: 40 SMs (compute capability 7.5), 8.1 TFLOP/s, 320 GB/s, 16 GB, PCIe 3 x16.
    {"t4", 40, 16, 1024, 64, 256, 8.1, 320, 16, 12},
    // P100 SXM2 data sheet: 56 SMs (6.0), 10.6 TFLOP/s, 732 GB/s, 16 GB, PCIe 3 x16.
    {"p100", 56, 32, 2048, 64, 256, 10.6, 732, 16, 12},
    // V100 SXM2 data sheet: 80 SMs (7.0), 15.7 TFLOP/s, 900 GB/s, 16 GB, PCIe 3 x16.
    {"v100", 80, 32, 2048, 96, 256, 15.7, 900, 16, 12},
    // A100 SXM4 40 GB data sheet: 108 SMs (8.0), 19.5 TFLOP/s, 1555 GB/s, PCIe 4 x16.
    {"a100", 108, 32, 2048, 164, 128, 19.5, 1555, 40, 24},
    // H100 SXM5 data sheet: 132 SMs (9.0), 67 TFLOP/s, 3350 GB/s, 80 GB, PCIe 5 x16.
    {"h100", 132, 32, 2048, 228, 128, 67, 3350, 80, 48},
};

}  // namespace

Result<SimGpuOptions> SimGpuPreset(std::string_view name) {
  std::string known;
  for (const Preset& p : kPresets) {
    if (name != p.name) {
      known += (known.empty() ? "" : ", ") + std::string(p.name);
      continue;
    }
    SimGpuOptions o;
    o.name = p.name;
    o.sms = p.sms;
    o.sm.blocks = p.blocks;
    o.sm.threads = p.threads;
    o.sm.registers = 65536;  // all of these capabilities
    o.sm.shared_bytes = p.shared_kib * 1024;
    o.sm.register_granularity = 256;  // per warp
    o.sm.shared_granularity = p.shared_granularity;
    o.sm.warp_size = 32;
    o.queues = 32;                            // Hyper-Q
    o.launch_latency = Duration(2150);        // middle of 2.1 to 2.2 us
    o.kernel_gap = Duration(2000);            // middle of 1 to 3 us
    o.notification_latency = Duration(1500);  // [inferred] a posted write over the link, a poll
    o.completion_latency = Duration(4500);    // an event per launch: 4 to 5 us
    o.notification_group = 16;                // as Paella aggregates
    o.peak_flops = p.tflops * 1e12;
    o.bytes_per_sec = p.gb_per_sec * 1e9;
    o.memory_bytes = static_cast<size_t>(p.memory_gib) << 30;
    o.copy_bytes_per_sec = p.copy_gb_per_sec * 1e9;
    o.copy_latency =
        std::chrono::microseconds(8);  // [inferred] set-up of a small asynchronous copy
    return o;
  }
  return InvalidArgumentError("unknown device '" + std::string(name) + "'; known: " + known);
}

std::vector<std::string> SimGpuPresetNames() {
  std::vector<std::string> names;
  for (const Preset& p : kPresets) names.emplace_back(p.name);
  return names;
}

}  // namespace plexus
