// Lowering of pointwise operators on other types than float32, comparisons, Where and Cast.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

std::span<const LoweringEntry> TypedRules();

}  // namespace plexus::cpu
