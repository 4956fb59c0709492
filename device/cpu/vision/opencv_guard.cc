#include "device/cpu/vision/opencv_guard.h"

#include <opencv2/core.hpp>
#include <opencv2/core/ocl.hpp>

namespace plexus::vision {
namespace {

int KeepQuiet(int, const char*, const char*, const char*, int, void*) { return 0; }

}  // namespace

void QuietOpenCv() {
  cv::setNumThreads(1);
  cv::ocl::setUseOpenCL(false);
  cv::redirectError(KeepQuiet);  // what it would print is in the exception
}

Status CatchOpenCv(OpFunction function, OpContext& c) {
  try {
    return function(c);
  } catch (const cv::Exception& e) {
    if (e.code == cv::Error::StsNoMem) return ResourceExhaustedError("out of memory");
    return InvalidArgumentError("the image library refuses: " + std::string(e.err));
  }
}

Status CheckImage(const Tensor& image) {
  const Shape& shape = image.shape();
  const bool fine = image.dtype() == DType::kUint8 && shape.size() == 3 && shape[0] >= 1 &&
                    shape[1] >= 1 && shape[0] <= kMaxSide && shape[1] <= kMaxSide &&
                    (shape[2] == 1 || shape[2] == 3);
  if (fine) return OkStatus();
  return InvalidArgumentError("needs an image, uint8[h,w,c] with sides from 1 to " +
                              std::to_string(kMaxSide) + " and 1 or 3 channels, got " +
                              std::string(DTypeName(image.dtype())) + ShapeToString(shape));
}

cv::Mat MatOf(const Tensor& image, int depth) {
  const int channels = image.rank() == 3 ? static_cast<int>(image.shape()[2]) : 1;
  // Operators read their inputs only; cv::Mat has no form for constant data.
  return cv::Mat(static_cast<int>(image.shape()[0]), static_cast<int>(image.shape()[1]),
                 CV_MAKETYPE(depth, channels), const_cast<std::byte*>(image.raw()));
}

}  // namespace plexus::vision
