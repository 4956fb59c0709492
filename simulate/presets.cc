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

constexpr WorkloadPresetText kTexts[] = {{"fig2", kFig2}};

}  // namespace

const std::span<const WorkloadPresetText> kWorkloadPresets = kTexts;

}  // namespace plexus
