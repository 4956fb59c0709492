// Pools, resizing and other operators on [N, C, spatial...].
#include <cmath>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

std::span<const int64_t> Spatial(const Shape& shape) {
  return std::span<const int64_t>(shape).subspan(2);
}

Status Pool(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  c.Type(1, DType::kInt64);
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 3));
  const std::vector<int64_t> kernel = c.node().IntsAttr("kernel_shape");
  PLEXUS_ASSIGN_OR_RETURN(const auto extents, WindowExtents(c.node(), Spatial(*x), kernel));
  Shape out = {(*x)[0], (*x)[1]};
  out.insert(out.end(), extents.begin(), extents.end());
  c.Set(1, DType::kInt64, &out);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status GlobalPool(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2));
  Shape out(x->size(), 1);
  out[0] = (*x)[0];
  out[1] = (*x)[1];
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status MaxUnpool(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  if (c.Has(2)) {
    PLEXUS_ASSIGN_OR_RETURN(const auto shape, c.Ints(2));
    if (shape) c.SetShape(0, *shape);
    return OkStatus();
  }
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 3));
  const std::vector<int64_t> kernel = c.node().IntsAttr("kernel_shape");
  PLEXUS_ASSIGN_OR_RETURN(const WindowParams p, ReadWindow(c.node(), Spatial(*x), kernel));
  Shape out = {(*x)[0], (*x)[1]};
  for (size_t i = 0; i < kernel.size(); ++i) {
    const __int128 extent = (__int128{(*x)[2 + i]} - 1) * p.strides[i] + kernel[i] - p.pads[i] -
                            p.pads[kernel.size() + i];
    if (extent < 0 || extent > kMaxExtent) return c.Error("an output extent is out of range");
    out.push_back(static_cast<int64_t>(extent));
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// rois: [R, 4 or 5]; the output has one entry per region.
Status MaxRoiPool(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *x = c.ShapeOf(0), *rois = c.ShapeOf(1);
  if (!x || !rois) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 4, 4));
  PLEXUS_RETURN_IF_ERROR(c.WantRank(1, 2, 2));
  const std::vector<int64_t> pooled = c.node().IntsAttr("pooled_shape");
  if (pooled.size() != 2) return c.Error("pooled_shape must have two entries");
  c.SetShape(0, {(*rois)[0], (*x)[1], pooled[0], pooled[1]});
  return OkStatus();
}

Status RoiAlign(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *x = c.ShapeOf(0), *rois = c.ShapeOf(1);
  if (!x || !rois) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 4, 4));
  PLEXUS_RETURN_IF_ERROR(c.WantRank(1, 2, 2));
  c.SetShape(0, {(*rois)[0], (*x)[1], c.node().IntAttr("output_height", 1),
                 c.node().IntAttr("output_width", 1)});
  return OkStatus();
}

Result<int64_t> Scaled(int64_t extent, double scale) {
  const double scaled = std::floor(static_cast<double>(extent) * scale);
  if (!(scaled >= 0) || scaled > static_cast<double>(kMaxExtent)) {
    return InvalidArgumentError("scale " + std::to_string(scale) + " is out of range");
  }
  return static_cast<int64_t>(scaled);
}

// The axes that scales or sizes speak of, in order.
Result<std::vector<int64_t>> ResizeAxes(const Node& node, int64_t rank) {
  std::vector<int64_t> axes = node.IntsAttr("axes");
  if (axes.empty()) {
    for (int64_t i = 0; i < rank; ++i) axes.push_back(i);
  }
  for (int64_t& axis : axes) {
    PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(axis, rank));
  }
  return axes;
}

Status ResizeTo(RuleContext& c, const std::vector<int64_t>& sizes) {
  const Shape& x = *c.ShapeOf(0);
  PLEXUS_ASSIGN_OR_RETURN(const auto axes, ResizeAxes(c.node(), static_cast<int64_t>(x.size())));
  if (axes.size() != sizes.size()) return c.Error("sizes has the wrong number of entries");
  const std::string policy = c.node().StringAttr("keep_aspect_ratio_policy", "stretch");
  Shape out = x;
  if (policy == "stretch") {
    for (size_t i = 0; i < axes.size(); ++i) out[axes[i]] = sizes[i];
  } else {
    double scale = 0;
    for (size_t i = 0; i < axes.size(); ++i) {
      if (x[axes[i]] == 0) return c.Error("cannot keep the aspect ratio of an empty input");
      const double s = static_cast<double>(sizes[i]) / static_cast<double>(x[axes[i]]);
      if (i == 0 || (policy == "not_larger" ? s < scale : s > scale)) scale = s;
    }
    for (int64_t axis : axes) {
      const double extent = std::floor(scale * static_cast<double>(x[axis]) + 0.5);
      if (!(extent >= 0) || extent > static_cast<double>(kMaxExtent)) return c.Error("bad sizes");
      out[axis] = static_cast<int64_t>(extent);
    }
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status ResizeBy(RuleContext& c, const std::vector<double>& scales) {
  Shape out = *c.ShapeOf(0);
  PLEXUS_ASSIGN_OR_RETURN(const auto axes, ResizeAxes(c.node(), static_cast<int64_t>(out.size())));
  if (axes.size() != scales.size()) return c.Error("scales has the wrong number of entries");
  // In the crop mode the region of interest scales along: [starts..., ends...].
  std::vector<double> roi;
  if (c.node().StringAttr("coordinate_transformation_mode", "") == "tf_crop_and_resize") {
    PLEXUS_ASSIGN_OR_RETURN(const auto values, c.Doubles(1));
    if (!values) return OkStatus();
    if (values->size() != 2 * axes.size()) return c.Error("roi has the wrong number of entries");
    roi = *values;
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    const double crop = roi.empty() ? 1.0 : roi[axes.size() + i] - roi[i];
    PLEXUS_ASSIGN_OR_RETURN(out[axes[i]], Scaled(out[axes[i]], crop * scales[i]));
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Resize(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  if (!c.ShapeOf(0)) return OkStatus();
  if (c.node().version == 10) {
    PLEXUS_ASSIGN_OR_RETURN(const auto scales, c.Doubles(1));
    return scales ? ResizeBy(c, *scales) : OkStatus();
  }
  if (c.Has(3)) {
    PLEXUS_ASSIGN_OR_RETURN(const auto sizes, c.Ints(3));
    if (!sizes) return OkStatus();
    if (!sizes->empty()) return ResizeTo(c, *sizes);
  }
  PLEXUS_ASSIGN_OR_RETURN(const auto scales, c.Doubles(2));
  return scales ? ResizeBy(c, *scales) : OkStatus();
}

Status Upsample(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  if (!c.ShapeOf(0)) return OkStatus();
  if (c.node().HasAttr("scales")) {
    const std::vector<float> scales = c.node().FloatsAttr("scales");
    return ResizeBy(c, std::vector<double>(scales.begin(), scales.end()));
  }
  PLEXUS_ASSIGN_OR_RETURN(const auto scales, c.Doubles(1));
  return scales ? ResizeBy(c, *scales) : OkStatus();
}

Status DepthToSpace(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 4, 4));
  const int64_t block = c.node().IntAttr("blocksize", 0);
  if (block < 1 || block > (1 << 20) || (*x)[1] % (block * block) != 0) {
    return c.Error("blocksize " + std::to_string(block) + " does not divide the channels");
  }
  c.SetShape(0, {(*x)[0], (*x)[1] / (block * block), (*x)[2] * block, (*x)[3] * block});
  return OkStatus();
}

Status SpaceToDepth(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 4, 4));
  const int64_t block = c.node().IntAttr("blocksize", 0);
  if (block < 1 || block > (1 << 20) || (*x)[2] % block != 0 || (*x)[3] % block != 0) {
    return c.Error("blocksize " + std::to_string(block) + " does not divide the extents");
  }
  c.SetShape(0, {(*x)[0], (*x)[1] * block * block, (*x)[2] / block, (*x)[3] / block});
  return OkStatus();
}

// x: [N,C,spatial...], grid: [N,spatial out..., dims]
Status GridSample(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *x = c.ShapeOf(0), *grid = c.ShapeOf(1);
  if (!x || !grid) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 3));
  if (grid->size() != x->size() || (*grid)[0] != (*x)[0] ||
      grid->back() != static_cast<int64_t>(x->size()) - 2) {
    return c.Error("the grid does not match x");
  }
  Shape out = {(*x)[0], (*x)[1]};
  out.insert(out.end(), grid->begin() + 1, grid->end() - 1);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status AffineGrid(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto size, c.Ints(1));
  if (!size) return OkStatus();
  if (size->size() < 4 || size->size() > 5) return c.Error("size must have four or five entries");
  Shape out = {(*size)[0]};
  out.insert(out.end(), size->begin() + 2, size->end());
  out.push_back(static_cast<int64_t>(size->size()) - 2);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"MaxPool", Pool},
    {"AveragePool", Pool},
    {"LpPool", Pool},
    {"GlobalAveragePool", GlobalPool},
    {"GlobalMaxPool", GlobalPool},
    {"GlobalLpPool", GlobalPool},
    {"MaxUnpool", MaxUnpool},
    {"MaxRoiPool", MaxRoiPool},
    {"RoiAlign", RoiAlign},
    {"Resize", Resize},
    {"Upsample", Upsample},
    {"DepthToSpace", DepthToSpace},
    {"SpaceToDepth", SpaceToDepth},
    {"GridSample", GridSample},
    {"AffineGrid", AffineGrid},
};

}  // namespace

std::span<const RuleEntry> PoolRules() { return kRules; }

}  // namespace plexus::shape_rules
