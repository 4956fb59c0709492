// DecodeImage.
#include <algorithm>
#include <cstring>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "base/memory_budget.h"
#include "device/cpu/vision/codecs.h"
#include "device/cpu/vision/image_header.h"
#include "device/cpu/vision/opencv_guard.h"
#include "device/cpu/vision/vision_op_list.h"
#include "program/reference/kernels_util.h"

namespace plexus::vision {
namespace {

constexpr int64_t kDefaultMaxPixels = 25'000'000;
constexpr int64_t kDefaultMaxBytes = int64_t{64} << 20;
// What decoders hold per pixel beside the result: a progressive JPEG's coefficients, 16-bit rows.
constexpr size_t kDecoderBytesPerPixel = 8;

Status CheckLimits(const OpContext& c, std::string_view file, const ImageHeader& header) {
  const int64_t max_pixels = c.node.IntAttr("max_pixels", kDefaultMaxPixels);
  if (header.width > kMaxSide || header.height > kMaxSide ||
      header.width * header.height > max_pixels) {
    return InvalidArgumentError("the image has " + std::to_string(header.width) + " x " +
                                std::to_string(header.height) + " pixels; at most " +
                                std::to_string(max_pixels) + " are allowed, sides at most " +
                                std::to_string(kMaxSide));
  }
  // Pixels beyond any plausible compression: refuse before their memory is touched.
  constexpr int64_t kMaxPixelsPerByte = 16'384;
  if (header.width * header.height / kMaxPixelsPerByte > static_cast<int64_t>(file.size())) {
    return InvalidArgumentError("the image claims more pixels than its file can hold");
  }
  return OkStatus();
}

// Decodes into `image`, whose pixels all are `fill` before: a decoder that gives up early may leave
// rows unwritten. False when nothing came. `turned` receives an image that its orientation tag gave
// storage of its own.
Result<bool> DecodeOver(const cv::Mat& file, uint8_t fill, Tensor& image, cv::Mat* turned) {
  std::memset(image.raw_mutable(), fill, image.size_bytes());
  cv::Mat pixels = MatOf(image, CV_8U);
  const uchar* const ours = pixels.data;
  PLEXUS_ASSIGN_OR_RETURN(const cv::Mat decoded, Imdecode(file, cv::IMREAD_COLOR, &pixels));
  if (decoded.empty() || decoded.type() != CV_8UC3 || !decoded.isContinuous() ||
      decoded.total() * 3 != image.size_bytes()) {
    return false;
  }
  if (decoded.data != ours) {
    *turned = decoded;
    return true;
  }
  // A decoder that refuses the header leaves the target alone and does not say so.
  const auto written = image.data<uint8_t>();
  return std::any_of(written.begin(), written.end(), [&](uint8_t v) { return v != fill; });
}

}  // namespace

Status DecodeImage(OpContext& c) {
  PLEXUS_RETURN_IF_ERROR(reference::RequireInputs(c, 1));
  const Tensor& input = c.Input(0);
  if (input.dtype() != DType::kString || input.num_elements() != 1) {
    return InvalidArgumentError("needs one file (BYTES)");
  }
  const std::string order = c.node.StringAttr("order", "rgb");
  if (order != "rgb" && order != "bgr") {
    return InvalidArgumentError("attribute 'order' is '" + order + "'");
  }
  const std::string& file = input.strings()[0];
  const int64_t max_bytes =
      std::min<int64_t>(c.node.IntAttr("max_bytes", kDefaultMaxBytes), int64_t{1} << 30);
  if (static_cast<int64_t>(file.size()) > max_bytes) {
    return InvalidArgumentError("the image file has " + std::to_string(file.size()) +
                                " bytes; at most " + std::to_string(max_bytes) + " are allowed");
  }
  PLEXUS_ASSIGN_OR_RETURN(const ImageHeader header, ReadImageHeader(file));
  PLEXUS_RETURN_IF_ERROR(CheckLimits(c, file, header));

  MemoryCharge decoder(HostScope::Memory());
  PLEXUS_RETURN_IF_ERROR(
      decoder.Grow(kDecoderBytesPerPixel * static_cast<size_t>(header.width * header.height)));
  PLEXUS_ASSIGN_OR_RETURN(Tensor image,
                          reference::NewTensor(DType::kUint8, {header.height, header.width, 3}));
  const cv::Mat bytes(1, static_cast<int>(file.size()), CV_8U,
                      const_cast<char*>(file.data()));  // only read
  cv::Mat turned;
  // A black image is one that white turns black.
  PLEXUS_ASSIGN_OR_RETURN(bool decoded, DecodeOver(bytes, 0, image, &turned));
  if (!decoded) {
    PLEXUS_ASSIGN_OR_RETURN(decoded, DecodeOver(bytes, 255, image, &turned));
  }
  if (!decoded) return InvalidArgumentError("the image file is damaged");
  if (!turned.empty()) {
    image = image.Reshaped({turned.rows, turned.cols, 3});
    std::memcpy(image.raw_mutable(), turned.data, image.size_bytes());
  }
  if (order == "rgb") {
    cv::Mat swapped = MatOf(image, CV_8U);
    cv::cvtColor(swapped, swapped, cv::COLOR_BGR2RGB);
  }
  c.outputs[0] = std::move(image);
  return OkStatus();
}

}  // namespace plexus::vision
