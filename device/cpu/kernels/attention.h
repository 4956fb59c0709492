// Lowering of plexus.Attention.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

Status LowerAttention(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
