// ResizeImage.
#include <algorithm>
#include <cmath>
#include <map>
#include <opencv2/imgproc.hpp>

#include "device/cpu/vision/opencv_guard.h"
#include "device/cpu/vision/vision_op_list.h"
#include "program/reference/kernels_util.h"

namespace plexus::vision {
namespace {

struct Size {
  int64_t height;
  int64_t width;
};

// The resized image lies at the top left of the canvas.
struct Geometry {
  Size image;
  Size canvas;
};

Status CheckSide(int64_t side, const char* attribute) {
  if (side >= 1 && side <= kMaxSide) return OkStatus();
  return InvalidArgumentError("attribute '" + std::string(attribute) + "': a side of " +
                              std::to_string(side) + " pixels is outside 1 to " +
                              std::to_string(kMaxSide));
}

int64_t AtLeastOne(double side) { return std::max<int64_t>(1, static_cast<int64_t>(side)); }

Result<Geometry> FixedSize(const Node& node, Size from) {
  const std::vector<int64_t> size = node.IntsAttr("size");
  if (size.size() != 2) return InvalidArgumentError("attribute 'size' holds height and width");
  PLEXUS_RETURN_IF_ERROR(CheckSide(size[0], "size"));
  PLEXUS_RETURN_IF_ERROR(CheckSide(size[1], "size"));
  const Size canvas{size[0], size[1]};
  if (node.IntAttr("keep_aspect", 0) == 0) return Geometry{canvas, canvas};
  const double scale = std::min(static_cast<double>(canvas.height) / from.height,
                                static_cast<double>(canvas.width) / from.width);
  // Rounded up, so that nothing vanishes, but never beyond the canvas.
  const Size image{std::min(canvas.height, AtLeastOne(std::ceil(from.height * scale))),
                   std::min(canvas.width, AtLeastOne(std::ceil(from.width * scale)))};
  return Geometry{image, canvas};
}

Result<Geometry> Limits(const Node& node, Size from) {
  const int64_t min_side = node.IntAttr("min_side", 0), max_side = node.IntAttr("max_side", 0);
  const int64_t multiple = node.IntAttr("multiple", 1);
  if (min_side != 0) PLEXUS_RETURN_IF_ERROR(CheckSide(min_side, "min_side"));
  if (max_side != 0) PLEXUS_RETURN_IF_ERROR(CheckSide(max_side, "max_side"));
  PLEXUS_RETURN_IF_ERROR(CheckSide(multiple, "multiple"));
  const auto shorter = static_cast<double>(std::min(from.height, from.width));
  const auto longer = static_cast<double>(std::max(from.height, from.width));
  double scale = min_side == 0 ? 1.0 : std::max(1.0, min_side / shorter);
  if (max_side != 0) scale = std::min(scale, max_side / longer);
  const auto side = [&](int64_t length) {
    const auto scaled = static_cast<int64_t>(static_cast<double>(length) * scale);
    const auto steps = static_cast<int64_t>(std::nearbyint(static_cast<double>(scaled) / multiple));
    return std::max<int64_t>(1, steps) * multiple;
  };
  const Size size{side(from.height), side(from.width)};
  if (std::max(size.height, size.width) > kMaxSide) {
    return InvalidArgumentError("an image of " + std::to_string(from.width) + " x " +
                                std::to_string(from.height) +
                                " pixels would become too long; give 'max_side'");
  }
  return Geometry{size, size};
}

Result<Geometry> Buckets(const Node& node, Size from) {
  const int64_t height = node.IntAttr("height", 0);
  const std::vector<int64_t> widths = node.IntsAttr("widths");
  PLEXUS_RETURN_IF_ERROR(CheckSide(height, "height"));
  if (widths.empty() || !std::is_sorted(widths.begin(), widths.end())) {
    return InvalidArgumentError("attribute 'widths' holds ascending widths");
  }
  for (int64_t width : widths) PLEXUS_RETURN_IF_ERROR(CheckSide(width, "widths"));
  const double natural =
      std::ceil(static_cast<double>(height) * (static_cast<double>(from.width) / from.height));
  const int64_t width = std::min(widths.back(), AtLeastOne(natural));
  const int64_t bucket = *std::lower_bound(widths.begin(), widths.end(), width);
  return Geometry{{height, width}, {height, bucket}};
}

Result<Geometry> PlanResize(const Node& node, Size from) {
  if (node.HasAttr("size")) return FixedSize(node, from);
  if (node.HasAttr("widths")) return Buckets(node, from);
  return Limits(node, from);
}

Result<int> Interpolation(const Node& node) {
  static const std::map<std::string, int> known = {{"linear", cv::INTER_LINEAR},
                                                   {"area", cv::INTER_AREA},
                                                   {"cubic", cv::INTER_CUBIC},
                                                   {"nearest", cv::INTER_NEAREST}};
  const auto found = known.find(node.StringAttr("interpolation", "linear"));
  if (found == known.end()) {
    return InvalidArgumentError("attribute 'interpolation' is '" +
                                node.StringAttr("interpolation", "") + "'");
  }
  return found->second;
}

}  // namespace

Status ResizeImage(OpContext& c) {
  PLEXUS_RETURN_IF_ERROR(reference::RequireInputs(c, 1));
  const Tensor& input = c.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckImage(input));
  PLEXUS_ASSIGN_OR_RETURN(const int interpolation, Interpolation(c.node));
  PLEXUS_ASSIGN_OR_RETURN(const Geometry to,
                          PlanResize(c.node, {input.shape()[0], input.shape()[1]}));
  const bool to_float = c.node.IntAttr("float", 0) != 0;
  const int64_t channels = input.shape()[2];
  PLEXUS_ASSIGN_OR_RETURN(Tensor output,
                          reference::NewTensor(to_float ? DType::kFloat32 : DType::kUint8,
                                               {to.canvas.height, to.canvas.width, channels}));
  const bool pads = to.image.height < to.canvas.height || to.image.width < to.canvas.width;
  cv::Mat canvas = MatOf(output, to_float ? CV_32F : CV_8U);
  if (pads) canvas.setTo(cv::Scalar::all(c.node.FloatAttr("pad_value", 0)));
  cv::Mat place(
      canvas, cv::Rect(0, 0, static_cast<int>(to.image.width), static_cast<int>(to.image.height)));
  // Interpolated in whole steps of brightness also where the result is float32: as models that
  // read 8-bit images were trained.
  if (!to_float) {
    cv::resize(MatOf(input, CV_8U), place, place.size(), 0, 0, interpolation);
  } else {
    PLEXUS_ASSIGN_OR_RETURN(
        Tensor small,
        reference::NewTensor(DType::kUint8, {to.image.height, to.image.width, channels}));
    cv::Mat bytes = MatOf(small, CV_8U);
    cv::resize(MatOf(input, CV_8U), bytes, bytes.size(), 0, 0, interpolation);
    bytes.convertTo(place, CV_32F);
  }
  c.outputs[0] = std::move(output);
  return OkStatus();
}

}  // namespace plexus::vision
