// How the graph layer runs an operator on known values without knowing any operator's code.
#pragma once

#include <span>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

// Implemented by program/reference; injected into folding and specialisation. Thread-safe.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  // True when Evaluate can run this node (known operator and version).
  virtual bool Supports(const Node& node) const = 0;
  // `inputs[i]` is undefined where node.inputs[i] is left out; `captures` feed subgraphs.
  // Returns one tensor per node.outputs entry (undefined where the output is unused).
  virtual Result<std::vector<Tensor>> Evaluate(const Graph& graph, const Node& node,
                                               std::span<const Tensor> inputs,
                                               std::span<const Tensor> captures) const = 0;
};

}  // namespace plexus
