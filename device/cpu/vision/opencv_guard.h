// Between OpenCV and the rest: exceptions become Status, tensors become cv::Mat. Internal to this
// folder.
#pragma once

#include <opencv2/core/mat.hpp>

#include "device/cpu/vision/vision_ops.h"
#include "program/reference/reference.h"

namespace plexus::vision {

// No threads, no OpenCL and no messages on stderr. Once per process, before the first operator.
void QuietOpenCv();

// Runs `function`; whatever OpenCV throws becomes a Status: kResourceExhausted when it is out of
// memory, else kInvalidArgument, since our own checks are meant to come first.
Status CatchOpenCv(OpFunction function, OpContext& c);

// An operator that lets no exception out, for the table.
template <OpFunction function>
Status Guarded(OpContext& c) {
  return CatchOpenCv(function, c);
}

// kInvalidArgument unless `image` is uint8[h, w, c], 1 <= h, w <= kMaxSide, c 1 or 3.
Status CheckImage(const Tensor& image);

// The tensor's storage as a matrix of h × w pixels of type `depth` (CV_8U, CV_32F): nothing is
// copied, the tensor must live on. For a checked image, or any [h, w, c] or [h, w] tensor.
cv::Mat MatOf(const Tensor& image, int depth);

}  // namespace plexus::vision
