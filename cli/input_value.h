// What `--input NAME=...` holds, as it goes into a request.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/dtype.h"

namespace plexus::cli {

// An input as the model's metadata describes it.
struct InputSpec {
  std::string name;
  DType dtype = DType::kUndefined;
  std::vector<int64_t> dims;  // −1: open
};

// JSON data, or bytes that travel behind the JSON.
struct InputValue {
  Shape shape;
  std::string json;  // "": binary
  std::string bytes;
};

// `text` is "@FILE" (.wav, .npy, .json, else raw bytes) or a value (JSON, or text for BYTES).
// `given` is the --shape, or null: then the model's own shape with one open dimension filled in.
// kInvalidArgument when the value does not fit; errors do not name the input.
Result<InputValue> ReadValue(const InputSpec& input, const Shape* given, const std::string& text);

}  // namespace plexus::cli
