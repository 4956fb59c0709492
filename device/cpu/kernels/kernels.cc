// The table of memory-bound kernels' lowering rules, one span per file.
#include <vector>

#include "device/cpu/kernels/attention.h"
#include "device/cpu/kernels/elementwise.h"
#include "device/cpu/kernels/moves.h"
#include "device/cpu/kernels/recurrent.h"
#include "device/cpu/kernels/resize.h"
#include "device/cpu/kernels/rows.h"
#include "device/cpu/kernels/typed.h"
#include "device/cpu/lowering.h"

namespace plexus::cpu {

std::span<const LoweringEntry> KernelRules() {
  static const std::vector<LoweringEntry>& rules = *[] {
    auto* all = new std::vector<LoweringEntry>{{"plexus", "Attention", LowerAttention},
                                               {"", "Resize", LowerResize},
                                               {"", "LSTM", LowerLstm},
                                               {"", "GRU", LowerGru}};
    for (auto family : {ElementwiseRules(), MoveRules(), RowRules(), TypedRules()}) {
      all->insert(all->end(), family.begin(), family.end());
    }
    return all;
  }();
  return rules;
}

}  // namespace plexus::cpu
