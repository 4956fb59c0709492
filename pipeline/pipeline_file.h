// Pipeline files: pipelines/NAME.yaml to a Graph (docs/pipelines.md describes the format).
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

// A stage as written, for people who look at a pipeline; what runs is the graph.
struct PipelineStage {
  std::string name;
  std::string model;                // "" for an operator
  std::string op;                   // "" for a model
  bool map_rows = false;            // the model runs once per row
  std::vector<std::string> inputs;  // "stage" or "stage.output", as written
  size_t nodes = 0;                 // of the model, control-flow bodies not counted
  size_t constant_bytes = 0;        // likewise
};

// What the pipeline keeps from one request of a session to the next. Its graph reads the state as
// inputs after those of the file and gives the next one as outputs after those of the file.
struct PipelineState {
  std::string name;
  SymbolicShape shape;  // that every value of it has
  Tensor initial;       // open sizes are 0
};

struct PipelineFile {
  std::string name;
  GraphPtr graph;                    // the static part: models and glue inlined into one graph
  std::vector<std::string> outputs;  // names, in the order of graph->outputs()
  std::vector<SymbolicShape> output_shapes;  // as declared; no rank where not
  std::vector<std::string> models;           // names of the models it uses
  std::vector<PipelineStage> stages;         // in the file's order
  std::string tenant;                        // "" for the default
  std::vector<PipelineState> states;         // none: requests have nothing to do with each other
  Duration session_idle = std::chrono::seconds(60);  // how long a session may stand unused
};

// Gives the graph of a model by name; kNotFound when there is none.
using ModelLookup = std::function<Result<GraphPtr>(const std::string& model)>;

// YAML is untrusted: size, depth and alias limits; every error names file, stage and reason
// (unknown key, missing model or output, cycle, type conflict). `folder` is where label files lie;
// they never come from outside it.
Result<PipelineFile> ParsePipeline(std::string_view yaml, const std::string& file_name,
                                   const std::filesystem::path& folder, const ModelLookup& models);

}  // namespace plexus
