// What a graph computes, as a hash.
#pragma once

#include "base/hash.h"
#include "graph/graph.h"

namespace plexus {

// Operators, attributes, types, shapes, wiring and weights; names of nodes and values do not
// matter.
void HashGraph(const Graph& graph, ContentHasher& hasher);

}  // namespace plexus
