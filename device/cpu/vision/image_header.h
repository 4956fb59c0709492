// What a PNG or JPEG file says about itself in its header, without decoding it.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace plexus::vision {

enum class ImageFormat { kPng, kJpeg };

struct ImageHeader {
  ImageFormat format;
  int64_t width;   // pixels as stored, before a JPEG's orientation tag
  int64_t height;  // likewise
};

// kInvalidArgument for other formats, for a header that is damaged or cut off, and for a JPEG
// without an end (some decoders would invent the missing rows).
Result<ImageHeader> ReadImageHeader(std::string_view file);

}  // namespace plexus::vision
