// Tensors as JSON numbers, booleans and strings.
#pragma once

#include <simdjson.h>

#include <functional>
#include <string>

#include "base/json_writer.h"
#include "base/status.h"
#include "graph/tensor.h"

namespace plexus {

// `data`: all elements in row-major order, flat or nested as `shape` is. Messages begin with the
// reason and leave the input's name to the caller. The caller has checked that the elements fit
// the document's size.
Result<Tensor> TensorFromJson(DType dtype, const Shape& shape, simdjson::dom::element data);

// Writes the flat array of elements. `check`, where given, is asked every few thousand elements
// whether to go on; its error is returned.
Status TensorToJson(const Tensor& tensor, JsonWriter& json,
                    const std::function<Status()>& check = nullptr);

// BYTES tensors in binary: each element a u32 length (little-endian) and its bytes.
Result<Tensor> StringsFromBinary(const Shape& shape, const std::byte* data, size_t size_bytes);
std::string StringsToBinary(const Tensor& tensor);
size_t BinarySize(const Tensor& strings);  // of the above

}  // namespace plexus
