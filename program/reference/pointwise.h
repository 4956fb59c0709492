// The pointwise functions that plexus.Elementwise and the activations of fused operators name
// (graph/passes/fused_ops.md).
#pragma once

#include <span>
#include <string_view>

#include "program/reference/kernels_util.h"

namespace plexus::reference {

// x, y, z: operands (unused ones 0); p: at least three parameters, 0 where unused.
struct PointwiseFn {
  std::string_view name;
  int operands;
  int params;
  float (*apply)(float x, float y, float z, const float* p);
};

// nullptr when no function has this name.
const PointwiseFn* FindPointwise(std::string_view name);

// In place: the node's attributes activation and activation_params on a float32 tensor that the
// caller alone holds.
Status ApplyActivation(const Node& node, Tensor& y);

}  // namespace plexus::reference
