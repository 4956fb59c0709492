// TensorProto and SparseTensorProto to Tensor.
#pragma once

#include <string>

#include "base/status.h"
#include "graph/onnx/external_data.h"
#include "graph/onnx/wire.h"
#include "graph/tensor.h"

namespace plexus::onnx {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

// What tensors may take, and where external ones lie. One per import. Thread-compatible.
struct TensorLimits {
  uint64_t max_tensor_bytes;
  ExternalData* external;
  // Sparse tensors grow when they become dense; together they may take 64 MiB and 4096 times what
  // they take in the file.
  uint64_t sparse_stored_bytes = 0;
  uint64_t sparse_dense_bytes = 0;
};

// kUnimplemented for element types that Plexus has no DType for.
Result<DType> DTypeFromOnnx(int64_t data_type);

// Both parse the message that `reader` stands in, to its end; on an error `reader` holds it and
// the tensor is undefined.
NamedTensor ParseTensor(WireReader& reader, TensorLimits& limits);
NamedTensor ParseSparseTensor(WireReader& reader, TensorLimits& limits);

}  // namespace plexus::onnx
