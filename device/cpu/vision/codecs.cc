#include "device/cpu/vision/codecs.h"

#include <dlfcn.h>

#include "device/cpu/vision/vision_ops.h"

namespace plexus {
namespace {

// As declared in opencv2/imgcodecs.hpp; the symbol holds the parameter types.
using ImdecodeFunction = cv::Mat (*)(cv::InputArray, int, cv::Mat*);
constexpr char kImdecode[] = "_ZN2cv8imdecodeERKNS_11_InputArrayEiPNS_3MatE";

struct Codecs {
  ImdecodeFunction imdecode = nullptr;
  Status status;
};

const Codecs& GetCodecs() {
  static const auto* codecs = [] {
    auto* made = new Codecs;  // never destroyed, like the library
    void* library = dlopen(PLEXUS_IMGCODECS, RTLD_NOW | RTLD_LOCAL);
    void* symbol = library == nullptr ? nullptr : dlsym(library, kImdecode);
    if (symbol == nullptr) {
      const char* why = dlerror();
      made->status = UnavailableError("the image decoders cannot be loaded: " +
                                      std::string(why == nullptr ? PLEXUS_IMGCODECS : why));
    }
    made->imdecode = reinterpret_cast<ImdecodeFunction>(symbol);
    return made;
  }();
  return *codecs;
}

}  // namespace

Status LoadImageCodecs() { return GetCodecs().status; }

namespace vision {

Result<cv::Mat> Imdecode(const cv::Mat& file, int flags, cv::Mat* target) {
  PLEXUS_RETURN_IF_ERROR(GetCodecs().status);
  return GetCodecs().imdecode(file, flags, target);
}

}  // namespace vision
}  // namespace plexus
