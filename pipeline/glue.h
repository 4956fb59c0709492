// Pipeline operators ("glue"): what a stage with `op:` may be, as nodes of the pipeline's graph.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "yaml/yaml_reader.h"

namespace plexus {

// Where a glue operator adds its nodes.
struct GlueContext {
  Graph& graph;
  std::string stage;             // name; made nodes and values are named after it
  std::vector<ValueId> inputs;   // resolved, dtypes known
  std::filesystem::path folder;  // where side files (labels) may lie
  YamlMap& options;              // the stage's keys

  DType InputType(size_t i = 0) const { return graph.value(inputs[i]).dtype; }
  // Adds one node with one output of `dtype`; `shape` may be unknown.
  ValueId Add(std::string_view domain, std::string_view op, std::vector<ValueId> in, DType dtype,
              std::map<std::string, Attribute> attributes = {}, std::string suffix = "");
  // One more output of the node that was added last.
  ValueId AddOutput(DType dtype, const std::string& suffix);
  ValueId Constant(Tensor tensor, const std::string& suffix);
};

struct GlueOutput {
  std::string name;  // "" for an operator with one output
  ValueId value;
};

// A scalar of `dtype`, not BYTES; nothing where the type cannot hold `number`.
std::optional<Tensor> ScalarOf(DType dtype, double number);

// Adds operator `op`; kInvalidArgument names the stage and what it expected.
Result<std::vector<GlueOutput>> AddGlue(const std::string& op, GlueContext& context);

// All operator names, for messages and docs.
std::vector<std::string> GlueNames();

}  // namespace plexus
