// What this CPU can do, and the widest instruction set our own kernels are built for.
#pragma once

namespace plexus::cpu {

enum class CpuFeature { kAvx512Bf16, kAvx512Vnni };
bool CpuHas(CpuFeature feature);

// Own kernels exist in three builds (plexus_multi_isa in CMakeLists.txt). Ordered.
enum class Isa { kBaseline, kAvx2, kAvx512 };
// The best that CPU and operating system support; PLEXUS_CPU_ISA=baseline|avx2|avx512 lowers it
// (for tests and comparisons). Constant during a process.
Isa BestIsa();

}  // namespace plexus::cpu
