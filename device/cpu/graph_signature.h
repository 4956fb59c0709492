// The profile store's key of a compiled region: its operators, attributes, shapes and weights.
#pragma once

#include "base/hash.h"
#include "graph/graph.h"
#include "program/compiler.h"

namespace plexus::cpu {

// Equal for regions that compile to the same kernels; names of nodes and values do not matter.
ContentHash SignatureOf(const Graph& region, const CompileOptions& options, uint32_t workers);

}  // namespace plexus::cpu
