// Tensor data that lies in files beside the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "base/status.h"
#include "graph/tensor.h"

namespace plexus::onnx {

// Reads byte ranges of files in one folder, and never of anything outside it. Equal ranges
// share a Buffer as long as somebody holds it. Thread-compatible.
class ExternalData {
 public:
  explicit ExternalData(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Bytes [offset, offset + length) of `location`, a path relative to the folder. kInvalidArgument:
  // the path leaves the folder (directly or through a link), is no regular file, or the range is
  // not in it; kNotFound; kPermissionDenied; kFailedPrecondition: no folder was given;
  // kResourceExhausted: overlapping ranges ask for several times the file's size.
  Result<std::shared_ptr<Buffer>> Read(const std::string& location, uint64_t offset,
                                       uint64_t length);

 private:
  Result<std::filesystem::path> Resolve(const std::string& location) const;
  Result<std::shared_ptr<Buffer>> ReadRange(const std::filesystem::path& file, uint64_t offset,
                                            uint64_t length, bool first_time);

  std::filesystem::path folder_;
  std::map<std::tuple<std::string, uint64_t, uint64_t>, std::weak_ptr<Buffer>> ranges_;
  std::map<std::string, uint64_t> read_bytes_;  // by resolved file
};

}  // namespace plexus::onnx
