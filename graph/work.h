// Work: how much arithmetic a node is.
#pragma once

#include <cstdint>

#include "graph/graph.h"

namespace plexus {

// What one node, or a kernel of several, does: independent of the device.
struct NodeWork {
  double flops = 0;
  // Read and written once each; tiles that are read again come from the cache. WorkOf leaves it 0.
  double bytes = 0;
  // As a product of `batch` matrices [rows, depth] · [depth, columns]; rows 0: not one.
  int64_t batch = 1, rows = 0, columns = 0, depth = 0;
  int64_t elements = 0;  // otherwise: of the largest operand
};

// The work of one node but for its bytes. Shapes are concrete. Operators that are not products
// count one operation per element (plexus.Elementwise: per step).
NodeWork WorkOf(const Graph& graph, const Node& node);

}  // namespace plexus
