// Lowering of normalisations, softmax and reductions.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

std::span<const LoweringEntry> RowRules();

}  // namespace plexus::cpu
