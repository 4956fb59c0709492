#include "device/cpu/vision/vision_tester.h"

#include "device/cpu/vision/vision_ops.h"

namespace plexus::vision {

VisionOp::VisionOp(const std::string& op, size_t num_outputs) {
  RegisterVisionOps();
  node_.op = op;
  node_.domain = "plexus";
  node_.version = 1;
  node_.name = "tested";
  for (size_t i = 0; i < num_outputs; ++i) node_.outputs.emplace_back(static_cast<uint32_t>(i));
}

VisionOp& VisionOp::Set(const std::string& name, Attribute value) {
  node_.attributes[name] = std::move(value);
  return *this;
}

Result<std::vector<Tensor>> VisionOp::Run(const std::vector<Tensor>& inputs) const {
  return ReferenceEvaluator::Get().Evaluate(Graph(), node_, inputs, {});
}

Result<Tensor> VisionOp::Run1(const std::vector<Tensor>& inputs) const {
  PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, Run(inputs));
  return outputs[0];
}

std::string VisionOp::Error(const std::vector<Tensor>& inputs) const {
  const Result<std::vector<Tensor>> outputs = Run(inputs);
  return outputs.ok() ? "" : outputs.status().message();
}

double PixelAt(const Tensor& image, int64_t y, int64_t x, int64_t channel) {
  const size_t at = (y * image.shape()[1] + x) * image.shape()[2] + channel;
  return image.dtype() == DType::kUint8 ? image.data<uint8_t>()[at] : image.data<float>()[at];
}

}  // namespace plexus::vision
