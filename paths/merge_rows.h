// MergeRowMaps: fan-outs over the same rows become one. Internal to paths/.
#pragma once

#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

// Where two plexus.MapRows walk the same rows in the same way and their bodies have work in common,
// one walks them for both: its body is both bodies with equal work once, its outputs are theirs.
// Each of these is what it was. `graph` has equal values as one (MakeUnits).
Status MergeRowMaps(Graph& graph);

}  // namespace plexus
