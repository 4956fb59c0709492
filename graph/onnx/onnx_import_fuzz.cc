// libFuzzer entry: any bytes as a model and as a tensor. A crash, a sanitizer report or an
// allocation far beyond the input is a finding; every error is fine.
#include <cstddef>
#include <cstdint>

#include "graph/onnx/onnx_import.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size_bytes) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size_bytes);
  plexus::ImportOptions options;
  options.max_tensor_bytes = 16 << 20;
  options.max_nodes = 10'000;
  auto graph = plexus::ImportOnnxBytes(bytes, {}, options);
  if (graph.ok()) {
    PLEXUS_CHECK((*graph)->Validate().ok());
    (void)(*graph)->ToString();
  }
  auto tensor = plexus::ReadTensorProto(bytes);
  if (tensor.ok()) (void)plexus::TensorToString(*tensor);
  return 0;
}
