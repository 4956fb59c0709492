// Convolution of a long one-channel signal with many filters.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// Conv or plexus.Conv on one input channel and one spatial dimension, without padding or dilation:
// short-time Fourier transforms and the like. It is a matrix product whose left rows are
// overlapping windows of the signal. kUnimplemented otherwise, before anything was read or written.
Status LowerSlidingConv(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
