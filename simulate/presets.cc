#include "simulate/presets.h"

namespace plexus {
namespace {

// Head-of-line blocking (Paella, SOSP 2023, figure 2): short jobs of dependent one-block kernels.
constexpr char kFig2[] = R"(name: fig2
device: {preset: t4}
jobs: 10000
arrivals: {kind: poisson, mean_gap_ms: 0.2}
models:
  - name: chain
    kernels: [{grid: 1, block_us: 600, threads: 128, repeat: 8}]
)";

// bench/workloads/fig11.yaml without the files: each network as that many equal kernels with its
// mean number of blocks, scaled to the same service time.
constexpr char kMix8[] = R"(name: mix8
device: {preset: t4, jitter: 0.1}
jobs: 3000
arrivals: {kind: lognormal, sigma: 1.5, mean_gap_ms: 2.5}
models:
  - name: mobilenetv2
    share: 0.257
    service_time_ms: 1.696
    kernels: [{grid: 89, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 54}]
  - name: densenet121
    share: 0.0706
    service_time_ms: 6.24
    kernels: [{grid: 101, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 246}]
  - name: googlenet
    share: 0.0546
    service_time_ms: 8.0
    kernels: [{grid: 65, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 81}]
  - name: inceptionv3
    share: 0.0138
    service_time_ms: 31.52
    kernels: [{grid: 92, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 124}]
  - name: resnet18
    share: 0.272
    service_time_ms: 1.6
    kernels: [{grid: 76, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 23}]
  - name: resnet34
    share: 0.168
    service_time_ms: 2.592
    kernels: [{grid: 64, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 39}]
  - name: resnet50
    share: 0.0745
    service_time_ms: 5.92
    kernels: [{grid: 72, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 56}]
  - name: squeezenet1.1
    share: 0.0895
    service_time_ms: 4.8
    kernels: [{grid: 95, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 38}]
)";

// The shortest and the longest of mix8 (figures 12 and 13).
constexpr char kExtremes[] = R"(name: extremes
device: {preset: t4, jitter: 0.1}
jobs: 3000
arrivals: {kind: lognormal, sigma: 1.5, mean_gap_ms: 2}
models:
  - name: resnet18
    share: 0.952
    service_time_ms: 1.6
    kernels: [{grid: 76, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 23}]
  - name: inceptionv3
    share: 0.048
    service_time_ms: 31.52
    kernels: [{grid: 92, block_us: 20, threads: 128, registers: 96, shared_bytes: 16384, repeat: 124}]
)";

constexpr WorkloadPresetText kTexts[] = {{"fig2", kFig2}, {"mix8", kMix8}, {"extremes", kExtremes}};

}  // namespace

const std::span<const WorkloadPresetText> kWorkloadPresets = kTexts;

}  // namespace plexus
