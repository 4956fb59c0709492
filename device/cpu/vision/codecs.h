// OpenCV's image decoders, loaded when first needed: they bring over a hundred libraries along,
// which would cost every process 40 MB and a slow start. Internal to this folder; see vision_ops.h
// for LoadImageCodecs.
#pragma once

#include <opencv2/core/mat.hpp>

#include "base/status.h"

namespace plexus::vision {

// cv::imdecode(file, flags, target), once LoadImageCodecs() has succeeded.
Result<cv::Mat> Imdecode(const cv::Mat& file, int flags, cv::Mat* target);

}  // namespace plexus::vision
