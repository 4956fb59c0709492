#include "device/cpu/vision/image_header.h"

#include <optional>

namespace plexus::vision {
namespace {

constexpr std::string_view kPngSignature("\x89PNG\r\n\x1a\n", 8);
constexpr std::string_view kJpegStart("\xff\xd8\xff", 3);
// Progressive files have about ten.
constexpr int kMaxScans = 64;

uint32_t BigEndian(std::string_view file, size_t at, size_t bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<uint8_t>(file[at + i]);
  return value;
}

Result<ImageHeader> ReadPng(std::string_view file) {
  // The first chunk is IHDR: length, name, width, height.
  if (file.size() < 24 || file.substr(12, 4) != "IHDR") {
    return InvalidArgumentError("the PNG file's header is cut off");
  }
  return ImageHeader{ImageFormat::kPng, BigEndian(file, 16, 4), BigEndian(file, 20, 4)};
}

bool IsFrameHeader(uint8_t marker) {  // SOF0 to SOF15 without DHT, JPG and DAC, which lie between
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

bool StandsAlone(uint8_t marker) { return marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8); }

Result<ImageHeader> ReadJpeg(std::string_view file) {
  constexpr uint8_t kEndOfImage = 0xd9, kStartOfScan = 0xda;
  const Status cut_off = InvalidArgumentError("the JPEG file is cut off");
  std::optional<ImageHeader> header;
  int scans = 0;
  size_t at = 2;
  while (true) {
    // A marker is 0xff, repeated at will, and a byte that is neither 0 nor 0xff; like decoders we
    // skip what lies before it. Pixel data is such: there 0 or a restart follows each 0xff.
    while (at < file.size() && static_cast<uint8_t>(file[at]) != 0xff) ++at;
    while (at < file.size() && static_cast<uint8_t>(file[at]) == 0xff) ++at;
    if (at >= file.size()) return cut_off;
    const auto marker = static_cast<uint8_t>(file[at++]);
    if (marker == 0 || StandsAlone(marker)) continue;
    if (marker == kEndOfImage && scans > 0) return *header;
    if (marker == kEndOfImage) return InvalidArgumentError("the JPEG file holds no image");
    if (file.size() - at < 2) return cut_off;
    const size_t length = BigEndian(file, at, 2);
    if (length < 2 || file.size() - at < length) return cut_off;
    if (IsFrameHeader(marker)) {
      if (length < 8 || header) return InvalidArgumentError("the JPEG file's header is damaged");
      header =
          ImageHeader{ImageFormat::kJpeg, BigEndian(file, at + 5, 2), BigEndian(file, at + 3, 2)};
    }
    at += length;
    if (marker != kStartOfScan) continue;
    if (!header) return InvalidArgumentError("the JPEG file's header is damaged");
    // A decoder goes over the whole image for each scan, however short that is.
    if (++scans > kMaxScans) {
      return InvalidArgumentError("the JPEG file has more than " + std::to_string(kMaxScans) +
                                  " scans");
    }
  }
}

}  // namespace

Result<ImageHeader> ReadImageHeader(std::string_view file) {
  Result<ImageHeader> header = InvalidArgumentError("the file is neither a PNG nor a JPEG image");
  if (file.substr(0, kPngSignature.size()) == kPngSignature) {
    header = ReadPng(file);
  } else if (file.substr(0, kJpegStart.size()) == kJpegStart) {
    header = ReadJpeg(file);
  }
  if (header.ok() && (header->width == 0 || header->height == 0)) {
    return InvalidArgumentError("the image has no pixels");
  }
  return header;
}

}  // namespace plexus::vision
