// The table of memory-bound kernels' lowering rules, one span per file.
#include <vector>

#include "device/cpu/kernels/elementwise.h"
#include "device/cpu/lowering.h"

namespace plexus::cpu {

std::span<const LoweringEntry> KernelRules() {
  static const std::vector<LoweringEntry>& rules = *[] {
    auto* all = new std::vector<LoweringEntry>;
    for (auto family : {ElementwiseRules()}) {
      all->insert(all->end(), family.begin(), family.end());
    }
    return all;
  }();
  return rules;
}

Status LowerTransposeKernel(LoweringContext&, const Node&) {
  return UnimplementedError("no fast kernel for this permutation");
}

}  // namespace plexus::cpu
