// config.yaml beside a model: how it is loaded (docs/config.md is the reference).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/dtype.h"
#include "program/compiler.h"

namespace plexus {

struct ModelConfig {
  Precision precision = Precision::kFloat32;

  enum class Versions { kLatest, kAll, kListed };
  Versions versions = Versions::kLatest;
  std::vector<int64_t> listed_versions;  // kListed

  // What one request may hold in values outside arenas; 0: the server's default.
  size_t request_memory_bytes = 0;

  // Whether its requests may run as rows of a batch with others.
  bool batching = true;

  // While a trace is taken: one request in so many is recorded, 0 none; absent: the trace's rate.
  std::optional<uint32_t> trace_sample;

  // Shapes to compile for while loading: input name → shape, one entry per warm-up request.
  std::vector<std::map<std::string, Shape>> warm_up;
};

// YAML is untrusted; errors name the file and the key. Unknown keys are errors.
Result<ModelConfig> ParseModelConfig(std::string_view yaml, const std::string& file_name);

}  // namespace plexus
