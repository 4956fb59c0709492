// PerspectiveCrop and Rotate180.
#include <algorithm>
#include <array>
#include <cmath>
#include <opencv2/imgproc.hpp>

#include "device/cpu/vision/opencv_guard.h"
#include "device/cpu/vision/vision_op_list.h"
#include "program/reference/kernels_util.h"

namespace plexus::vision {
namespace {

constexpr int64_t kMaxCropPixels = 25'000'000;
constexpr float kMaxCoordinate = 1e6f;

using Quad = std::array<cv::Point2f, 4>;

Result<Quad> ReadBox(const Tensor& t) {
  if (t.dtype() != DType::kFloat32 || t.num_elements() != 8) {
    return InvalidArgumentError("needs a box, float32[4,2], got " +
                                std::string(DTypeName(t.dtype())) + ShapeToString(t.shape()));
  }
  Quad box;
  for (size_t i = 0; i < 4; ++i) {
    box[i] = {t.data<float>()[2 * i], t.data<float>()[2 * i + 1]};
    // Also false for what is no number.
    if (!(std::abs(box[i].x) <= kMaxCoordinate && std::abs(box[i].y) <= kMaxCoordinate)) {
      return InvalidArgumentError("corner " + std::to_string(i) + " of the box is no pixel");
    }
  }
  return box;
}

int64_t LongerOf(const cv::Point2f& a, const cv::Point2f& b, const cv::Point2f& c,
                 const cv::Point2f& d) {
  const float longer = std::max(std::hypot(a.x - b.x, a.y - b.y), std::hypot(c.x - d.x, c.y - d.y));
  return std::max<int64_t>(1, static_cast<int64_t>(longer));
}

}  // namespace

Status PerspectiveCrop(OpContext& c) {
  PLEXUS_RETURN_IF_ERROR(reference::RequireInputs(c, 2));
  const Tensor& image = c.Input(0);
  PLEXUS_RETURN_IF_ERROR(CheckImage(image));
  PLEXUS_ASSIGN_OR_RETURN(const Quad box, ReadBox(c.Input(1)));
  const float rotate_tall = c.node.FloatAttr("rotate_tall", 0);
  const int64_t width = LongerOf(box[0], box[1], box[2], box[3]);
  const int64_t height = LongerOf(box[0], box[3], box[1], box[2]);
  if (width > kMaxSide || height > kMaxSide || width * height > kMaxCropPixels) {
    return InvalidArgumentError("the box is " + std::to_string(width) + " x " +
                                std::to_string(height) + " pixels; at most " +
                                std::to_string(kMaxCropPixels) + " are allowed");
  }
  const auto w = static_cast<float>(width), h = static_cast<float>(height);
  const Quad corners = {cv::Point2f(0, 0), {w, 0}, {w, h}, {0, h}};
  const cv::Mat transform = cv::getPerspectiveTransform(box.data(), corners.data());
  const int64_t channels = image.shape()[2];
  PLEXUS_ASSIGN_OR_RETURN(Tensor crop,
                          reference::NewTensor(DType::kUint8, {height, width, channels}));
  cv::Mat pixels = MatOf(crop, CV_8U);
  cv::warpPerspective(MatOf(image, CV_8U), pixels, transform, pixels.size(), cv::INTER_CUBIC,
                      cv::BORDER_REPLICATE);
  if (rotate_tall > 0 && h >= rotate_tall * w) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor turned,
                            reference::NewTensor(DType::kUint8, {width, height, channels}));
    cv::Mat target = MatOf(turned, CV_8U);
    cv::rotate(pixels, target, cv::ROTATE_90_COUNTERCLOCKWISE);
    crop = std::move(turned);
  }
  c.outputs[0] = std::move(crop);
  return OkStatus();
}

Status Rotate180(OpContext& c) {
  PLEXUS_RETURN_IF_ERROR(reference::RequireInputs(c, 1));
  PLEXUS_RETURN_IF_ERROR(CheckImage(c.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(c.outputs[0], reference::NewTensor(DType::kUint8, c.Input(0).shape()));
  cv::Mat target = MatOf(c.outputs[0], CV_8U);
  cv::rotate(MatOf(c.Input(0), CV_8U), target, cv::ROTATE_180);
  return OkStatus();
}

}  // namespace plexus::vision
