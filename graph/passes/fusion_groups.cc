// Which nodes will run as one kernel, told before anything is lowered or cut.
#include <numeric>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "graph/passes/passes.h"

namespace plexus {
namespace {

class DisjointSets {
 public:
  explicit DisjointSets(size_t size) : parent_(size) {
    std::iota(parent_.begin(), parent_.end(), 0u);
  }
  uint32_t Find(uint32_t x) {
    while (parent_[x] != x) x = parent_[x] = parent_[parent_[x]];
    return x;
  }
  void Join(uint32_t a, uint32_t b) { parent_[Find(a)] = Find(b); }

 private:
  std::vector<uint32_t> parent_;
};

using Names = std::unordered_set<std::string_view>;

// The values that fusion left: what fused nodes read and make.
Names ValuesLeft(const Graph& fused) {
  Names names;
  const auto add = [&](ValueId id) {
    if (id.valid() && !fused.value(id).IsConstant()) names.insert(fused.value(id).name);
  };
  for (const Node& node : fused.nodes()) {
    for (ValueId id : node.inputs) add(id);
    for (ValueId id : node.implicit_inputs) add(id);
    for (ValueId id : node.outputs) add(id);
  }
  for (ValueId id : fused.inputs()) add(id);
  for (ValueId id : fused.captures()) add(id);
  return names;
}

}  // namespace

Status MarkFusionGroups(Graph& graph) {
  Graph fused = graph;
  PLEXUS_RETURN_IF_ERROR(OptimizeWeights(fused));
  PLEXUS_RETURN_IF_ERROR(Optimize(fused));
  const Names left = ValuesLeft(fused);
  const std::vector<NodeId> producers = graph.Producers();
  std::unordered_map<std::string_view, ValueId> by_name;
  for (uint32_t v = 0; v < graph.num_values(); ++v) {
    by_name.emplace(graph.value(ValueId(v)).name, ValueId(v));
  }

  // What a fused node replaced lies between the values it makes and the next values left.
  DisjointSets groups(graph.num_nodes());
  for (const Node& node : fused.nodes()) {
    std::vector<ValueId> stack;
    std::unordered_set<ValueId> seen;
    NodeId first;
    const auto visit = [&](ValueId id) {
      if (id.valid() && producers[id.value()].valid() && seen.insert(id).second) {
        stack.push_back(id);
      }
    };
    for (ValueId id : node.outputs) {
      const auto it = id.valid() ? by_name.find(fused.value(id).name) : by_name.end();
      if (it != by_name.end()) visit(it->second);
    }
    while (!stack.empty()) {
      const NodeId made_by = producers[stack.back().value()];
      stack.pop_back();
      if (!first.valid()) first = made_by;
      groups.Join(made_by.value(), first.value());
      for (ValueId id : graph.node(made_by).inputs) {
        if (id.valid() && left.count(graph.value(id).name) == 0) visit(id);
      }
    }
  }

  std::vector<uint32_t> size(graph.num_nodes()), number(graph.num_nodes());
  for (uint32_t n = 0; n < graph.num_nodes(); ++n) ++size[groups.Find(n)];
  uint32_t next = 1;
  for (uint32_t n = 0; n < graph.num_nodes(); ++n) {
    const uint32_t group = groups.Find(n);
    if (size[group] > 1 && number[group] == 0) number[group] = next++;
    graph.nodes()[n].fusion_group = size[group] > 1 ? number[group] : 0;
  }
  return OkStatus();
}

}  // namespace plexus
