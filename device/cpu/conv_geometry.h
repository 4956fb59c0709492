// Geometry of convolutions and pools: ONNX attributes to explicit two-dimensional numbers.
#pragma once

#include <string>

#include "device/cpu/lowering.h"

namespace plexus::cpu {

// One- and two-dimensional windows alike; one-dimensional data is one row of `width` pixels.
struct WindowGeometry {
  int64_t images = 1;
  int64_t in_channels = 1, out_channels = 1;
  int64_t in_height = 1, in_width = 1, out_height = 1, out_width = 1;
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_height = 1, stride_width = 1;
  int64_t dilation_height = 1, dilation_width = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  bool one_dimensional = false;  // split along the width instead of the height
};

// From x's and y's shapes and the node's kernel_shape (or w's shape, if w is valid), strides,
// dilations, pads and auto_pad. kUnimplemented for more than two spatial dimensions.
Result<WindowGeometry> GeometryOf(const LoweringContext& context, const Node& node, ValueId x,
                                  ValueId w, ValueId y);

// The part of a window operation that makes output rows (or columns, if one_dimensional)
// [begin, begin + count) of one image from a contiguous part of its channels-last input.
struct WindowTile {
  WindowGeometry geometry;  // images = 1, sizes and paddings of the tile
  int64_t in_offset = 0;    // pixels from the image's first
  int64_t out_offset = 0;   // pixels from the image's first
};
WindowTile TileOf(const WindowGeometry& whole, int64_t begin, int64_t count);

// All numbers, for cache keys.
std::string GeometryKey(const WindowGeometry& geometry);

}  // namespace plexus::cpu
