#include "device/cpu/cpu_features.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace plexus::cpu {

bool CpuHas(CpuFeature feature) {
  switch (feature) {
    case CpuFeature::kAvx512Bf16:
      return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw");
    case CpuFeature::kAvx512Vnni:
      return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
  }
  return false;
}

namespace {

Isa DetectIsa() {
  Isa isa = Isa::kBaseline;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isa = Isa::kAvx2;
  if (isa == Isa::kAvx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    isa = Isa::kAvx512;
  }
  const char* limit = std::getenv("PLEXUS_CPU_ISA");
  if (limit) {
    const std::string_view name = limit;
    if (name == "baseline") isa = Isa::kBaseline;
    if (name == "avx2") isa = std::min(isa, Isa::kAvx2);
  }
  return isa;
}

}  // namespace

Isa BestIsa() {
  static const Isa isa = DetectIsa();
  return isa;
}

}  // namespace plexus::cpu
