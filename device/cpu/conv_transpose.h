#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// ConvTranspose with constant float32 weights whose kernel is as large as its stride, without
// padding or groups; kUnimplemented declines, before the context is touched.
Status LowerConvTranspose(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
