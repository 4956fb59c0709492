// libFuzzer entry: any bytes as an inference request, as JSON alone and with binary tensors. The
// first byte chooses how much of the rest is JSON. Every error is fine; a crash, a sanitizer report
// or an allocation far beyond the input is a finding.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "serve/compression.h"
#include "serve/infer_codec.h"

namespace {

plexus::TensorMetadata Tensor(const char* name, plexus::DType dtype, std::vector<int64_t> dims) {
  plexus::TensorMetadata tensor{name, dtype, {}};
  tensor.shape.has_rank = true;
  for (const int64_t dim : dims) {
    tensor.shape.dims.push_back({dim < 0 ? std::nullopt : std::optional<int64_t>(dim), ""});
  }
  return tensor;
}

const plexus::Servable& MakeServable() {
  plexus::Servable& servable = *new plexus::Servable;  // for the process
  servable.name = "fuzz";
  servable.inputs = {Tensor("f", plexus::DType::kFloat32, {-1, 2}),
                     Tensor("s", plexus::DType::kString, {-1}),
                     Tensor("b", plexus::DType::kBool, {-1})};
  servable.outputs = {Tensor("o", plexus::DType::kFloat32, {-1, 2})};
  return servable;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  static const plexus::Servable& servable = MakeServable();
  if (size_bytes == 0) return 0;
  const size_t rest = size_bytes - 1;
  const size_t json_bytes = rest * data[0] / 255;
  auto body = plexus::AllocateBody(rest, json_bytes);
  if (!body.ok()) return 0;
  if (rest > 0) std::memcpy(body->data, data + 1, rest);
  plexus::CodecLimits limits;
  limits.max_tensor_bytes = 16 << 20;
  for (const auto& header : {std::optional<size_t>(), std::optional<size_t>(json_bytes)}) {
    auto request = plexus::DecodeInferRequest(servable, *body, header, limits);
    if (!request.ok()) continue;
    // What was accepted can be written back.
    const std::vector<plexus::Tensor> outputs = {request->inputs[0]};
    if (request->inputs.size() == servable.inputs.size()) {
      (void)plexus::EncodeInferResponse(servable, *request, outputs);
    }
  }
  (void)plexus::DecodeBody(*body, "gzip", 1 << 20, json_bytes);
  return 0;
}
