// What `plexus inspect` and `plexus compile` look at: a model file, a pipeline, or all of a folder.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "pipeline/runtime.h"
#include "serve/repository.h"

namespace plexus::cli {

struct Target {
  std::string name;
  Status status;  // why it was not loaded
  ServablePtr servable;
  Duration load_time{0};
};

// `path`: FILE.onnx, pipelines/FILE.yaml, a model's folder, or a repository. What cannot be loaded
// is a Target with its status; kNotFound when there is nothing at `path`.
Result<std::vector<Target>> LoadTargets(const std::string& path, Runtime& runtime);

// Zeros for every input: shapes from `given` (by name, or "" for the first one), open dimensions 1.
Result<std::vector<Tensor>> ZeroInputs(const Servable& servable,
                                       const std::map<std::string, Shape>& given);

}  // namespace plexus::cli
