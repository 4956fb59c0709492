// Lowering of Resize.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// Nearest and linear interpolation of the spatial axes of float32 data of rank 3 or 4, with
// constant scales or sizes.
Status LowerResize(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
