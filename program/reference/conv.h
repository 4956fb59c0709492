// The convolution that Conv, ConvInteger and QLinearConv share.
#pragma once

#include "program/reference/window.h"

namespace plexus::reference {

struct ConvGeometry {
  int64_t batch = 0, in_channels = 0, out_channels = 0, groups = 1;
  Window window;
  Shape OutputShape() const;
};

// x: [N, C, d1, ...], w: [M, C/group, k1, ...]. kInvalidArgument where they or the node's
// attributes contradict each other.
Result<ConvGeometry> MakeConvGeometry(const Node& node, const Shape& x, const Shape& w);

// y [N, M, out...] += x * w. T is float or double; integers up to 2^53 are exact in double.
template <typename T>
void ConvolveAdd(const ConvGeometry& g, const T* x, const T* w, T* y);

}  // namespace plexus::reference
