// Lowering of operators that only move elements.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

std::span<const LoweringEntry> MoveRules();

}  // namespace plexus::cpu
