// One image operator as a sentence: VisionOp("ResizeImage").Set("size", {2, 3}).Run({image}).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "program/reference/reference.h"

namespace plexus::vision {

class VisionOp {
 public:
  explicit VisionOp(const std::string& op, size_t num_outputs = 1);

  VisionOp& Set(const std::string& name, Attribute value);
  VisionOp& Set(const std::string& name, std::initializer_list<int64_t> values) {
    return Set(name, Attribute(std::vector<int64_t>(values)));
  }
  VisionOp& Set(const std::string& name, int value) { return Set(name, Attribute(int64_t{value})); }
  VisionOp& Set(const std::string& name, double value) {
    return Set(name, Attribute(static_cast<float>(value)));
  }
  VisionOp& Set(const std::string& name, const char* value) {
    return Set(name, Attribute(std::string(value)));
  }

  Result<std::vector<Tensor>> Run(const std::vector<Tensor>& inputs) const;
  // The first output, or the status of the failure.
  Result<Tensor> Run1(const std::vector<Tensor>& inputs) const;
  // "" if it runs, else the message.
  std::string Error(const std::vector<Tensor>& inputs) const;

 private:
  Node node_;
};

// uint8[h, w, c] with the value f(y, x, channel).
template <typename F>
Tensor ImageOf(int64_t h, int64_t w, int64_t c, F f) {
  std::vector<uint8_t> pixels;
  for (int64_t y = 0; y < h; ++y) {
    for (int64_t x = 0; x < w; ++x) {
      for (int64_t k = 0; k < c; ++k) pixels.push_back(static_cast<uint8_t>(f(y, x, k)));
    }
  }
  return Tensor::Of<uint8_t>(DType::kUint8, {h, w, c}, pixels);
}

// Element (y, x, channel) of a uint8 or float32 image.
double PixelAt(const Tensor& image, int64_t y, int64_t x, int64_t channel = 0);

}  // namespace plexus::vision
