#include "device/cpu/vision/vision_ops.h"

#include "device/cpu/vision/opencv_guard.h"
#include "device/cpu/vision/vision_op_list.h"

namespace plexus {
namespace {

using vision::Guarded;

constexpr OpEntry kOps[] = {
    {"plexus", "DecodeImage", 1, kLatest, Guarded<vision::DecodeImage>},
    {"plexus", "ResizeImage", 1, kLatest, Guarded<vision::ResizeImage>},
    {"plexus", "DbBoxes", 1, kLatest, Guarded<vision::DbBoxes>},
    {"plexus", "PerspectiveCrop", 1, kLatest, Guarded<vision::PerspectiveCrop>},
    {"plexus", "Rotate180", 1, kLatest, Guarded<vision::Rotate180>},
};

}  // namespace

void RegisterVisionOps() {
  static const bool once = [] {
    vision::QuietOpenCv();
    RegisterOps(kOps);
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace plexus
