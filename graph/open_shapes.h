// Shapes of operators' outputs where some of the inputs' sizes are open: what holds for every
// size that a request may bring.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "graph/shape_inference.h"

namespace plexus {

// One size per dimension, kOpenSize where it is not fixed; nothing where not even the rank is.
inline constexpr int64_t kOpenSize = -1;
using OpenShape = std::optional<Shape>;

OpenShape ToOpenShape(const SymbolicShape& shape);

// What holds for both: the sizes that they have alike.
OpenShape CommonSizes(const OpenShape& a, const OpenShape& b);

// What is known of the shapes of `node`'s outputs, from `sizes`, one per input (nothing for inputs
// left out), and from the types and contents in `inputs`. A size that is told is that of every run
// that gets through the operator; operators whose sizes follow no simple rule tell nothing.
// kInvalidArgument, naming the node, where no choice of the open sizes lets the operator run.
Result<std::vector<OpenShape>> InferOpenShapes(const Graph& graph, const Node& node,
                                               std::span<const KnownValue> inputs,
                                               std::span<const OpenShape> sizes);

}  // namespace plexus
