// What of a model's faults shows without a request.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "graph/open_shapes.h"
#include "graph/shape_inference.h"

namespace plexus {

// What is known of a value. `sizes` is there wherever `known.shape` is, and where only the rank
// and perhaps some sizes are known.
struct StaticValue {
  KnownValue known;
  OpenShape sizes;
};

// Infers types and shapes from what `graph` itself says: its inputs' types, their ranks and the
// sizes that are fixed, its constants. Returns what is known of each graph output. An error is a
// fault that every request would meet, whatever it brings for the open dimensions, and names the
// node: inputs or attributes that contradict the operator (kInvalidArgument), a value of over
// `max_value_bytes` (kResourceExhausted). What depends on data or on the branch taken is left to
// the requests, and what nothing reads is not looked at; but the nested stages of a pipeline are
// checked, whether every request comes there or not.
Result<std::vector<StaticValue>> InferStatically(const Graph& graph, size_t max_value_bytes);

// A stage of a pipeline's graph as written.
struct WiredStage {
  struct Input {
    std::string reference;  // as the file says
    ValueId value;          // of the graph that the stage stands in
    std::string name;       // of the model's input
    OpenShape declared;     // by the model
  };
  std::string model;  // "" for an operator
  GraphPtr graph;     // the model's
  std::vector<Input> inputs;
};
// By the full name that its nodes' names begin with: "lines/read".
using WiredStages = std::map<std::string, WiredStage, std::less<>>;

// InferStatically's errors for a pipeline as it was put together, by stage and input. The sizes
// that a model declares may be an example's: that others come is an error only where the model's
// nodes cannot run with them. A model that contradicts itself is left to its own check.
Status CheckStages(const Graph& graph, const WiredStages& stages);

// kInvalidArgument names both shapes where a declared output cannot be what the stages give;
// `shape` may hold kOpenSize.
Status CheckDeclaredShape(const SymbolicShape& declared, const Shape& shape);

}  // namespace plexus
