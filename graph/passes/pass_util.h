// Small helpers that several passes share. Internal to graph/passes.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "graph/graph.h"

namespace plexus {

// Operators whose result is not a function of their inputs (random numbers): never folded, never
// merged.
bool IsNondeterministic(const Node& node);

// False also for DequantizeLinear: its quantised constants are smaller, and the quantised fusions
// look for them.
bool MayFold(const Node& node);

// The first subgraph attribute; nullptr when there is none.
const Graph* FirstSubgraph(const Node& node);
bool HasSubgraph(const Node& node);

// A constant's integers; nullopt when `id` is left out, no constant, or not a small one.
std::optional<std::vector<int64_t>> ConstantInts(const Graph& graph, ValueId id);

// Names that are free in a graph; keeps what it hands out.
class NameTable {
 public:
  explicit NameTable(const Graph& graph);
  std::string Fresh(const std::string& wanted);

 private:
  std::unordered_set<std::string> taken_;
};

}  // namespace plexus
