#include "device/cpu/conv_geometry.h"

#include <algorithm>

namespace plexus::cpu {

namespace {

struct Axis {
  int64_t in, out, kernel, stride, dilation, pad_begin, pad_end;
};

// The end padding is whatever makes the last window fit: it may differ from the node's where
// ceil_mode asks for more. A stride that leaves input over needs none.
void FixEnd(Axis& axis) {
  const int64_t reach = (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
  axis.pad_end = std::max<int64_t>(0, reach - axis.in - axis.pad_begin);
}

}  // namespace

Result<WindowGeometry> GeometryOf(const LoweringContext& context, const Node& node, ValueId x,
                                  ValueId w, ValueId y) {
  const Shape& in = context.shape(x);
  const Shape& out = context.shape(y);
  if (in.size() != out.size() || in.size() < 3 || in.size() > 4) {
    return UnimplementedError("only one and two spatial dimensions have a fast kernel");
  }
  const size_t spatial = in.size() - 2;
  std::vector<int64_t> kernel = node.IntsAttr("kernel_shape");
  if (w.valid()) kernel.assign(context.shape(w).begin() + 2, context.shape(w).end());
  auto per_axis = [&](const char* name, int64_t fallback, size_t count) {
    std::vector<int64_t> values = node.IntsAttr(name);
    if (values.empty()) values.assign(count, fallback);
    return values;
  };
  const auto strides = per_axis("strides", 1, spatial);
  const auto dilations = per_axis("dilations", 1, spatial);
  const auto pads = per_axis("pads", 0, 2 * spatial);
  if (kernel.size() != spatial || strides.size() != spatial || dilations.size() != spatial ||
      pads.size() != 2 * spatial) {
    return InvalidArgumentError("kernel_shape, strides, dilations or pads do not fit the input");
  }
  const std::string auto_pad = node.StringAttr("auto_pad", "NOTSET");
  std::vector<Axis> axes;
  for (size_t i = 0; i < spatial; ++i) {
    Axis axis{in[i + 2], out[i + 2], kernel[i], strides[i], dilations[i], pads[i], 0};
    if (auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER") {
      const int64_t total = std::max<int64_t>(
          0, (axis.out - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1 - axis.in);
      axis.pad_begin = auto_pad == "SAME_UPPER" ? total / 2 : total - total / 2;
    } else if (auto_pad == "VALID") {
      axis.pad_begin = 0;
    }
    FixEnd(axis);
    axes.push_back(axis);
  }
  WindowGeometry g;
  g.images = in[0];
  g.in_channels = in[1];
  g.out_channels = out[1];
  g.one_dimensional = spatial == 1;
  const Axis& width = axes.back();
  g.in_width = width.in, g.out_width = width.out, g.kernel_width = width.kernel;
  g.stride_width = width.stride, g.dilation_width = width.dilation;
  g.pad_left = width.pad_begin, g.pad_right = width.pad_end;
  if (spatial == 2) {
    const Axis& height = axes.front();
    g.in_height = height.in, g.out_height = height.out, g.kernel_height = height.kernel;
    g.stride_height = height.stride, g.dilation_height = height.dilation;
    g.pad_top = height.pad_begin, g.pad_bottom = height.pad_end;
  }
  return g;
}

WindowTile TileOf(const WindowGeometry& whole, int64_t begin, int64_t count) {
  WindowTile tile;
  WindowGeometry& g = tile.geometry;
  g = whole;
  g.images = 1;
  const bool columns = whole.one_dimensional;
  const int64_t in = columns ? whole.in_width : whole.in_height;
  const int64_t kernel = columns ? whole.kernel_width : whole.kernel_height;
  const int64_t stride = columns ? whole.stride_width : whole.stride_height;
  const int64_t dilation = columns ? whole.dilation_width : whole.dilation_height;
  const int64_t pad = columns ? whole.pad_left : whole.pad_top;
  // Input positions [first, last) that the tile's windows reach, before clipping.
  const int64_t first = begin * stride - pad;
  const int64_t last = (begin + count - 1) * stride - pad + (kernel - 1) * dilation + 1;
  const int64_t clipped_first = std::clamp<int64_t>(first, 0, in - 1);
  const int64_t clipped_last = std::clamp<int64_t>(last, clipped_first + 1, in);
  const int64_t pad_begin = clipped_first - first, pad_end = last - clipped_last;
  if (columns) {
    g.in_width = clipped_last - clipped_first, g.out_width = count;
    g.pad_left = pad_begin, g.pad_right = pad_end;
    tile.in_offset = clipped_first;
    tile.out_offset = begin;
  } else {
    g.in_height = clipped_last - clipped_first, g.out_height = count;
    g.pad_top = pad_begin, g.pad_bottom = pad_end;
    tile.in_offset = clipped_first * whole.in_width;
    tile.out_offset = begin * whole.out_width;
  }
  return tile;
}

std::string GeometryKey(const WindowGeometry& g) {
  std::string key;
  for (int64_t v :
       {g.images, g.in_channels, g.out_channels, g.in_height, g.in_width, g.out_height, g.out_width,
        g.kernel_height, g.kernel_width, g.stride_height, g.stride_width, g.dilation_height,
        g.dilation_width, g.pad_top, g.pad_left, g.pad_bottom, g.pad_right}) {
    key += std::to_string(v) + ",";
  }
  return key;
}

}  // namespace plexus::cpu
