// What of a model's faults shows without a request.
#pragma once

#include <cstddef>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "graph/shape_inference.h"

namespace plexus {

// Infers types and shapes from what `graph` itself says: its inputs' types, their sizes where they
// are fixed, its constants. Returns what is known of each graph output. An error is a fault that
// every request would meet, and names the node: inputs or attributes that contradict the operator
// (kInvalidArgument), a value of over `max_value_bytes` (kResourceExhausted). What depends on open
// dimensions, on data, or on the branch taken is left to the requests; but the nested stages of a
// pipeline are checked, whether every request comes there or not.
Result<std::vector<KnownValue>> InferStatically(const Graph& graph, size_t max_value_bytes);

// kInvalidArgument names both shapes where a declared output cannot be what was inferred.
Status CheckDeclaredShape(const SymbolicShape& declared, const Shape& shape);

}  // namespace plexus
