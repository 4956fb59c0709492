// ONNX files to Graph, opsets 7 and later, without trusting a byte of them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

struct ImportOptions {
  uint64_t max_file_bytes = uint64_t{4} << 30;    // model file
  uint64_t max_tensor_bytes = uint64_t{8} << 30;  // one constant, external ones included
  int max_graph_depth = 32;                       // subgraphs in subgraphs
  int64_t max_nodes = 1'000'000;
};

// Reads `path`. External tensor data is read from files beside the model and never from outside
// its folder (no "..", no absolute path, no link that leaves it). The file is streamed: constants
// are read straight into their own storage, so the peak is the constants and no more.
// Model-local functions are inlined. Errors name file, node and reason: kNotFound, kInvalidArgument
// (malformed, cyclic, duplicate names), kUnimplemented (domain or opset), kResourceExhausted.
Result<GraphPtr> ImportOnnxFile(const std::filesystem::path& path,
                                const ImportOptions& options = {});

// The same from memory (tests, fuzzers, uploads); `folder` is where external data may lie, empty
// forbids it.
Result<GraphPtr> ImportOnnxBytes(std::span<const std::byte> bytes,
                                 const std::filesystem::path& folder = {},
                                 const ImportOptions& options = {});

// One serialised TensorProto (the .pb files of ONNX's own test cases).
Result<Tensor> ReadTensorProto(std::span<const std::byte> bytes);

}  // namespace plexus
