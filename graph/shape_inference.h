// Output types and shapes of operators, for concrete input shapes.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

// What is known of one value while shapes are inferred: its type, perhaps its shape, perhaps all
// of its contents (small integer tensors that hold shapes, axes, sizes; any constant).
struct KnownValue {
  DType dtype = DType::kUndefined;
  std::optional<Shape> shape;
  std::optional<Tensor> contents;
};

// Infers the outputs of one node. An output without a shape is one that depends on data that is not
// known (NonZero, a Reshape to a computed shape): the caller cuts a region there. kInvalidArgument,
// naming the node, when the inputs contradict the operator; kUnimplemented for an operator without
// a rule (also a region cut, run by the reference).
Result<std::vector<KnownValue>> InferNode(const Graph& graph, const Node& node,
                                          std::span<const KnownValue> inputs);

// True for operators that have a rule.
bool HasShapeRule(const Node& node);

}  // namespace plexus
