// Files: whole, and those that hold tensors.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"
#include "graph/tensor.h"

namespace plexus::cli {

Result<std::string> ReadFile(const std::string& path);
// Whether `path` can be written: to be asked before long work, whose result it takes, begins.
Status CheckWritable(const std::string& path);
// kPermissionDenied where it cannot be written, all of it.
Status WriteFile(const std::string& path, std::string_view bytes);

// Mono 16-bit PCM: INT16[samples]. kInvalidArgument for another format.
Result<Tensor> ParseWav(std::string_view file);
// NumPy's format, versions 1 to 3, C order, little-endian; numbers and booleans.
Result<Tensor> ParseNpy(std::string_view file);
// kUnimplemented for types that NumPy does not have (BF16, BYTES).
Result<std::string> WriteNpy(const Tensor& tensor);

}  // namespace plexus::cli
