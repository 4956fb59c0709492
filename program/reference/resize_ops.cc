// Resize and Upsample: separable interpolation, one axis at a time.
#include <algorithm>
#include <cmath>
#include <limits>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

// How one axis is resized.
struct AxisPlan {
  int64_t in = 0, out = 0;
  float scale = 1;
  float roi_start = 0, roi_end = 1;
};

struct Settings {
  std::string mode, transform, nearest;
  float cubic_a = -0.75f, extrapolation = 0;
  bool exclude_outside = false, antialias = false;
};

// One output coordinate: the weighted input coordinates first, first + 1, ... (edges repeat).
struct Taps {
  int64_t per_output = 1;
  std::vector<int64_t> index;  // [out, per_output], inside the input
  std::vector<float> weight;   // likewise
  std::vector<bool> outside;   // [out]: takes the extrapolation value
};

Status CheckSettings(const Settings& s) {
  static constexpr const char* kModes[] = {"nearest", "linear", "cubic"};
  static constexpr const char* kTransforms[] = {
      "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",  "align_corners",
      "asymmetric", "tf_crop_and_resize",   "tf_half_pixel_for_nn"};
  static constexpr const char* kNearest[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                             "ceil"};
  auto known = [](const std::string& value, auto& list) {
    return std::find(std::begin(list), std::end(list), value) != std::end(list);
  };
  if (!known(s.mode, kModes)) return InvalidArgumentError("mode \"" + s.mode + "\" is unknown");
  if (!known(s.transform, kTransforms)) {
    return InvalidArgumentError("coordinate_transformation_mode \"" + s.transform +
                                "\" is unknown");
  }
  if (!known(s.nearest, kNearest)) {
    return InvalidArgumentError("nearest_mode \"" + s.nearest + "\" is unknown");
  }
  return OkStatus();
}

// Input coordinate of output coordinate `o`.
float SourceCoordinate(const Settings& s, const AxisPlan& a, int64_t o) {
  const float x = static_cast<float>(o);
  const float in = static_cast<float>(a.in);
  const float width = a.scale * in;  // before it was rounded to a.out
  if (s.transform == "asymmetric") return x / a.scale;
  if (s.transform == "tf_half_pixel_for_nn") return (x + 0.5f) / a.scale;
  if (s.transform == "align_corners") return width == 1 ? 0 : x * (in - 1) / (width - 1);
  if (s.transform == "tf_crop_and_resize") {
    const float span = (a.roi_end - a.roi_start) * (in - 1);
    return a.roi_start * (in - 1) + (width == 1 ? span / 2 : x * span / (width - 1));
  }
  if (s.transform == "pytorch_half_pixel" && width == 1) return -0.5f;
  const float centre = (x + 0.5f) / a.scale - 0.5f;
  if (s.transform == "half_pixel_symmetric") {
    return in / 2 * (1 - static_cast<float>(a.out) / width) + centre;
  }
  return centre;
}

float NearestCoordinate(const std::string& mode, float x) {
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  // Half-way cases decide the rounding; elsewhere both round alike.
  return mode == "round_prefer_floor" ? std::ceil(x - 0.5f) : std::floor(x + 0.5f);
}

float Cubic(float x, float a) {
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0.0f;
}

Result<Taps> MakeTaps(const Settings& s, const AxisPlan& a) {
  Taps taps;
  const bool nearest = s.mode == "nearest";
  const bool linear = s.mode == "linear";
  // Antialiasing widens the kernel where it shrinks the image.
  const float squeeze = s.antialias && !nearest ? std::min(a.scale, 1.0f) : 1.0f;
  const float radius = (linear ? 1.0f : 2.0f) / squeeze;
  if (!(radius < 1e9f)) return InvalidArgumentError("the scale is too small");
  const int64_t start = static_cast<int64_t>(std::floor(-radius)) + 1;
  taps.per_output = nearest ? 1 : 2 - 2 * start;
  PLEXUS_ASSIGN_OR_RETURN(const int64_t count, NumElements({a.out, taps.per_output}));
  if (count > kMaxResultBytes / 8) return ResourceExhaustedError("the kernel is too large");
  taps.index.resize(count);
  taps.weight.assign(count, 1.0f);
  taps.outside.assign(a.out, false);
  for (int64_t o = 0; o < a.out; ++o) {
    const float x = SourceCoordinate(s, a, o);
    if (!(std::abs(x) < 1e15f)) return InvalidArgumentError("a source coordinate is not finite");
    if (s.transform == "tf_crop_and_resize") {
      taps.outside[o] = x < 0 || x > static_cast<float>(a.in - 1);
    }
    int64_t* index = taps.index.data() + o * taps.per_output;
    if (nearest) {
      const int64_t i = static_cast<int64_t>(NearestCoordinate(s.nearest, x));
      index[0] = std::clamp<int64_t>(i, 0, a.in - 1);
      continue;
    }
    float* weight = taps.weight.data() + o * taps.per_output;
    const int64_t base = static_cast<int64_t>(std::ceil(x)) - 1;  // left of x, even at a pixel
    const float ratio = x - static_cast<float>(base);
    float sum = 0;
    for (int64_t k = 0; k < taps.per_output; ++k) {
      const int64_t i = base + start + k;
      const float distance = (static_cast<float>(start + k) - ratio) * squeeze;
      weight[k] = linear ? std::max(0.0f, 1 - std::abs(distance)) : Cubic(distance, s.cubic_a);
      if (s.exclude_outside && (i < 0 || i >= a.in)) weight[k] = 0;
      sum += weight[k];
      index[k] = std::clamp<int64_t>(i, 0, a.in - 1);
    }
    if (!s.exclude_outside && !s.antialias) continue;
    for (int64_t k = 0; k < taps.per_output && sum != 0; ++k) weight[k] /= sum;
  }
  return taps;
}

// y [outer, out, inner] from x [outer, in, inner].
template <typename T>
void ResizeAxis(const T* x, int64_t outer, int64_t in, int64_t inner, const Taps& taps,
                T extrapolation, T* y) {
  const int64_t out = static_cast<int64_t>(taps.outside.size());
  for (int64_t b = 0; b < outer; ++b, x += in * inner) {
    for (int64_t o = 0; o < out; ++o, y += inner) {
      if (taps.outside[o]) {
        std::fill(y, y + inner, extrapolation);
        continue;
      }
      const int64_t* index = taps.index.data() + o * taps.per_output;
      const float* weight = taps.weight.data() + o * taps.per_output;
      if (taps.per_output == 1) {
        std::copy_n(x + index[0] * inner, inner, y);
        continue;
      }
      std::fill(y, y + inner, T{0});
      for (int64_t k = 0; k < taps.per_output; ++k) {
        const T w = static_cast<T>(weight[k]);
        if (w == 0) continue;
        const T* from = x + index[k] * inner;
        for (int64_t i = 0; i < inner; ++i) y[i] += w * from[i];
      }
    }
  }
}

// Interpolated values of an integer type stay within it.
template <typename T>
void ClampTo(DType dtype, std::vector<T>* values) {
  double low, high;
  switch (dtype) {
    case DType::kUint8:
      low = 0, high = 255;
      break;
    case DType::kInt8:
      low = -128, high = 127;
      break;
    case DType::kUint16:
      low = 0, high = 65535;
      break;
    case DType::kInt16:
      low = -32768, high = 32767;
      break;
    case DType::kUint32:
      low = 0, high = 4294967295.0;
      break;
    case DType::kInt32:
      low = -2147483648.0, high = 2147483647.0;
      break;
    default:
      return;
  }
  for (T& v : *values) v = static_cast<T>(std::clamp(static_cast<double>(v), low, high));
}

template <typename T>
Status ResizeAs(OpContext& ctx, const Settings& s, const std::vector<AxisPlan>& plan,
                const Shape& out_shape) {
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), out_shape));
  if (y.size() == 0) return std::move(y).FinishInto(&ctx.outputs[0]);
  if (xs.empty()) return InvalidArgumentError("cannot resize an empty input to something");
  // Shrinking axes first: no intermediate is larger than both the input and the output.
  std::vector<size_t> axes;
  for (size_t d = 0; d < plan.size(); ++d) {
    const bool identity = plan[d].in == plan[d].out && plan[d].scale == 1 &&
                          s.transform != "tf_crop_and_resize" &&
                          s.transform != "tf_half_pixel_for_nn";
    if (!identity) axes.push_back(d);
  }
  std::stable_partition(axes.begin(), axes.end(),
                        [&](size_t d) { return plan[d].out <= plan[d].in; });
  std::vector<T> current(xs.begin(), xs.end());
  Shape shape = x.shape();
  for (size_t d : axes) {
    PLEXUS_ASSIGN_OR_RETURN(const Taps taps, MakeTaps(s, plan[d]));
    const int64_t outer = DimsProduct(shape, 0, d);
    const int64_t inner = DimsProduct(shape, d + 1, shape.size());
    std::vector<T> next(outer * plan[d].out * inner);
    ResizeAxis(current.data(), outer, plan[d].in, inner, taps, static_cast<T>(s.extrapolation),
               next.data());
    shape[d] = plan[d].out;
    current = std::move(next);
  }
  ClampTo(x.dtype(), &current);
  std::copy(current.begin(), current.end(), y.data());
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

Status RunResize(OpContext& ctx, const Settings& s, const std::vector<AxisPlan>& plan) {
  PLEXUS_RETURN_IF_ERROR(CheckSettings(s));
  Shape out_shape;
  for (const AxisPlan& a : plan) out_shape.push_back(a.out);
  const DType compute = ComputeType(ctx.Input(0).dtype());
  if (s.mode == "nearest") {
    return VisitCompute(
        compute, [&](auto zero) { return ResizeAs<decltype(zero)>(ctx, s, plan, out_shape); });
  }
  if (compute == DType::kFloat32) return ResizeAs<float>(ctx, s, plan, out_shape);
  return ResizeAs<double>(ctx, s, plan, out_shape);
}

// out = floor(in · scale), kInvalidArgument unless scale > 0.
Status ApplyScale(float scale, AxisPlan* a) {
  if (!(scale > 0)) return InvalidArgumentError("a scale is not greater than 0");
  const double out = std::floor(static_cast<double>(static_cast<float>(a->in) * scale));
  if (!(out < 4e9)) return ResourceExhaustedError("a scaled dimension is too large");
  a->out = static_cast<int64_t>(out);
  a->scale = scale;
  return OkStatus();
}

Status ApplySizes(const Node& node, const std::vector<int64_t>& axes,
                  const std::vector<int64_t>& sizes, std::vector<AxisPlan>* plan) {
  const std::string policy = node.StringAttr("keep_aspect_ratio_policy", "stretch");
  if (policy != "stretch" && policy != "not_larger" && policy != "not_smaller") {
    return InvalidArgumentError("keep_aspect_ratio_policy \"" + policy + "\" is unknown");
  }
  double common = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    AxisPlan& a = (*plan)[axes[i]];
    PLEXUS_RETURN_IF_ERROR(CheckRange("a size", sizes[i], 0, int64_t{1} << 31));
    if (a.in == 0 && sizes[i] != 0) return InvalidArgumentError("cannot resize an empty dimension");
    const double scale =
        a.in == 0 ? 1.0 : static_cast<double>(sizes[i]) / static_cast<double>(a.in);
    a.out = sizes[i];
    a.scale = static_cast<float>(scale);
    const bool first = i == 0;
    if (policy == "not_larger") common = first ? scale : std::min(common, scale);
    if (policy == "not_smaller") common = first ? scale : std::max(common, scale);
  }
  if (policy == "stretch") return OkStatus();
  for (int64_t axis : axes) {
    AxisPlan& a = (*plan)[axis];
    a.scale = static_cast<float>(common);
    a.out = static_cast<int64_t>(common * static_cast<double>(a.in) + 0.5);
    PLEXUS_RETURN_IF_ERROR(CheckRange("a size", a.out, 0, int64_t{1} << 31));
  }
  return OkStatus();
}

std::vector<AxisPlan> IdentityPlan(const Shape& shape) {
  std::vector<AxisPlan> plan;
  for (int64_t d : shape) plan.push_back({d, d, 1, 0, 1});
  return plan;
}

// Inputs X, roi, scales, sizes (version 11 on); one of scales and sizes.
Status Resize(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Node& node = ctx.node;
  const Tensor& x = ctx.Input(0);
  std::vector<AxisPlan> plan = IdentityPlan(x.shape());
  std::vector<int64_t> axes = node.IntsAttr("axes");
  if (axes.empty()) {
    for (int64_t d = 0; d < x.rank(); ++d) axes.push_back(d);
  } else {
    PLEXUS_RETURN_IF_ERROR(NormalizeAxes(axes, x.rank()).status());  // range and duplicates
    for (int64_t& a : axes) a = a < 0 ? a + x.rank() : a;
  }
  auto present = [&](size_t i) { return ctx.HasInput(i) && ctx.Input(i).num_elements() > 0; };
  if (present(2) == present(3)) {
    return InvalidArgumentError("exactly one of scales and sizes must be given");
  }
  const int64_t count = static_cast<int64_t>(axes.size());
  if (present(2)) {
    PLEXUS_RETURN_IF_ERROR(CheckShape("scales", ctx.Input(2), {count}));
    PLEXUS_ASSIGN_OR_RETURN(auto scales, Elements<float>::Load(ctx.Input(2)));
    for (int64_t i = 0; i < count; ++i) {
      PLEXUS_RETURN_IF_ERROR(ApplyScale(scales[i], &plan[axes[i]]));
    }
  } else {
    PLEXUS_RETURN_IF_ERROR(CheckShape("sizes", ctx.Input(3), {count}));
    PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> sizes, IntsInput(ctx, 3));
    PLEXUS_RETURN_IF_ERROR(ApplySizes(node, axes, sizes, &plan));
  }
  Settings s;
  s.mode = node.StringAttr("mode", "nearest");
  s.transform = node.StringAttr("coordinate_transformation_mode", "half_pixel");
  s.nearest = node.StringAttr("nearest_mode", "round_prefer_floor");
  s.cubic_a = node.FloatAttr("cubic_coeff_a", -0.75f);
  s.extrapolation = node.FloatAttr("extrapolation_value", 0.0f);
  s.exclude_outside = node.IntAttr("exclude_outside", 0) != 0;
  s.antialias = node.IntAttr("antialias", 0) != 0;
  if (s.transform == "tf_crop_and_resize") {
    PLEXUS_RETURN_IF_ERROR(CheckShape("roi", ctx.Input(1), {2 * count}));
    PLEXUS_ASSIGN_OR_RETURN(auto roi, Elements<float>::Load(ctx.Input(1)));
    for (int64_t i = 0; i < count; ++i) {
      plan[axes[i]].roi_start = roi[i];
      plan[axes[i]].roi_end = roi[count + i];
    }
  }
  return RunResize(ctx, s, plan);
}

// Resize-10 and Upsample: scales only, corner-aligned coordinates, nearest rounds down.
Status ResizeByScales(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Node& node = ctx.node;
  const Tensor& x = ctx.Input(0);
  std::vector<AxisPlan> plan = IdentityPlan(x.shape());
  std::vector<float> scales = node.FloatsAttr("scales");
  if (node.HasAttr("height_scale") || node.HasAttr("width_scale")) {  // Upsample-1
    scales = {1, 1, node.FloatAttr("height_scale", 1), node.FloatAttr("width_scale", 1)};
  }
  if (ctx.HasInput(1)) {
    PLEXUS_ASSIGN_OR_RETURN(auto values, Elements<float>::Load(ctx.Input(1)));
    scales.assign(values.begin(), values.end());
  }
  if (static_cast<int64_t>(scales.size()) != x.rank()) {
    return InvalidArgumentError("scales has " + std::to_string(scales.size()) +
                                " values for an input " + ShapeToString(x.shape()));
  }
  for (size_t d = 0; d < plan.size(); ++d) {
    PLEXUS_RETURN_IF_ERROR(ApplyScale(scales[d], &plan[d]));
  }
  Settings s;
  s.mode = node.StringAttr("mode", "nearest");
  if (s.mode == "bilinear") s.mode = "linear";
  s.transform = "asymmetric";
  s.nearest = "floor";
  return RunResize(ctx, s, plan);
}

constexpr OpEntry kOps[] = {
    {"", "Resize", 10, 11, ResizeByScales},
    {"", "Resize", 11, kLatest, Resize},
    {"", "Upsample", 1, 10, ResizeByScales},
};

}  // namespace

std::span<const OpEntry> ResizeOps() { return kOps; }

}  // namespace plexus::reference
