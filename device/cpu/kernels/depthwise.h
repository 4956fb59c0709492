// Depthwise convolution.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// Conv or plexus.Conv with as many groups as input and output channels, float32, constant weights,
// one or two spatial dimensions; bias, residual and activation as plexus.Conv. Anything else,
// and what oneDNN does faster, is kUnimplemented before anything was read or written.
Status LowerDepthwiseConv(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
