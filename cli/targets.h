// What `plexus inspect` and `plexus compile` look at: a model file, a pipeline, or all of a folder;
// and the inputs they try it on.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "pipeline/runtime.h"
#include "serve/repository.h"

namespace plexus::cli {

struct Target {
  std::string name;
  Status status;  // why it was not loaded; says what and where
  ServablePtr servable;
  Duration load_time{0};
};

// `path`: FILE.onnx, pipelines/FILE.yaml, a model's folder, or a repository. What cannot be loaded
// is a Target with its status; kNotFound when there is nothing to load at `path`. Nothing is
// compiled yet, the shapes of warm_up neither.
Result<std::vector<Target>> LoadTargets(const std::string& path, Runtime& runtime);

// Whether there is something to load in a folder. One entry that looks like one is enough: then
// what is wrong with the others is told.
bool IsRepository(const std::filesystem::path& folder);

using Shapes = std::map<std::string, Shape>;  // by input; "" for a target's only one

// kInvalidArgument, listing the inputs that there are, when one of `given` fits none of them.
Status CheckShapes(const std::vector<Target>& targets, const Shapes& given);

// What to tell about a target: its name, unless the status says what and where itself.
std::string Complaint(const Target& target, const Status& status);

// "[-1,80]", "[N,3,224,224]"; "[-1]" where the rank is not known, as the server's metadata has it.
std::string ShapeText(const SymbolicShape& shape);

// A target once run, so that what it runs on a device is compiled.
struct Trial {
  Status status;       // not loaded, or does not run on the shapes that were given
  std::string shapes;  // what it ran on: "audio=64000"; "" without inputs of open size
  // Not empty: sizes were left open, and with 1 in their place nothing comes out. Says what to
  // give: "input 'audio' INT16[-1] has no fixed size: give --shape audio=64000".
  std::string advice;
  std::string wanted;  // the flags alone, "--shape audio=64000", whether they are needed or not
  std::vector<std::string> empty_outputs;  // outputs without an element
  std::vector<Tensor> inputs;
};

// Zeros, and for BYTES a text of 4 KiB: shapes as given, open dimensions 1. Compiles.
Trial Try(const Target& target, const Shapes& given, Runtime& runtime);

}  // namespace plexus::cli
