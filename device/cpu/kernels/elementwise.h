// Lowering of pointwise operators.
#pragma once

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// plexus.Elementwise and the float32 ONNX operators that are steps of it.
std::span<const LoweringEntry> ElementwiseRules();
// The float32 path, for operators that share their name with integer ones; kUnimplemented for other
// types.
Status LowerElementwise(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
