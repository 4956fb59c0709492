#include "paths/merge.h"

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "paths/merge_rows.h"
#include "paths/unit.h"

namespace plexus {
namespace {

class Merger {
 public:
  Status Add(const MergePart& part) {
    const Graph& from = *part.graph;
    std::vector<ValueId> map(from.num_values());
    for (ValueId id : from.inputs()) {
      PLEXUS_ASSIGN_OR_RETURN(map[id.value()], Input(part.name, from.value(id)));
    }
    const auto wire = [&](ValueId id) {
      if (!id.valid() || map[id.value()].valid()) return id.valid() ? map[id.value()] : id;
      Value value = from.value(id);
      value.name = part.name + "/" + value.name;
      return map[id.value()] = merged_.AddValue(std::move(value));
    };
    std::map<uint32_t, uint32_t> groups;
    for (Node node : from.nodes()) {
      node.name = part.name + "/" + node.name;
      for (ValueId& id : node.inputs) id = wire(id);
      for (ValueId& id : node.implicit_inputs) id = wire(id);
      for (ValueId& id : node.outputs) id = wire(id);
      if (node.fusion_group != 0) {
        const auto [it, is_new] = groups.emplace(node.fusion_group, next_group_);
        next_group_ += is_new ? 1 : 0;
        node.fusion_group = it->second;
      }
      merged_.AddNode(std::move(node));
    }
    for (ValueId id : from.outputs()) merged_.outputs().push_back(wire(id));
    return OkStatus();
  }

  Result<Graph> Finish(const std::string& name) && {
    merged_.name = name;
    const UnitGraph units = MakeUnits(name, std::make_shared<const Graph>(std::move(merged_)));
    Graph graph = *units.graph;
    graph.RemoveDead();
    PLEXUS_RETURN_IF_ERROR(graph.SortTopologically());
    PLEXUS_RETURN_IF_ERROR(MergeRowMaps(graph));
    return graph;
  }

 private:
  Result<ValueId> Input(const std::string& part, const Value& wanted) {
    const auto [it, is_new] = inputs_.emplace(wanted.name, std::pair(ValueId(), part));
    auto& [id, first] = it->second;
    if (is_new) return id = merged_.AddInput(wanted);
    Value& there = merged_.value(id);
    if (there.dtype == wanted.dtype && Narrow(wanted.shape, &there.shape)) return id;
    const auto type = [](const Value& value) {
      return std::string(DTypeName(value.dtype)) + value.shape.ToString();
    };
    return InvalidArgumentError("input '" + wanted.name + "' is " + type(there) + " in '" + first +
                                "' and " + type(wanted) + " in '" + part +
                                "': they cannot be asked for at once");
  }

  // `shape` becomes what satisfies both; false when nothing does. What one leaves open the other
  // may fix. Names of open sizes are the first part's: those of another may mean something else.
  static bool Narrow(const SymbolicShape& wanted, SymbolicShape* shape) {
    if (!wanted.has_rank) return true;
    if (!shape->has_rank) {
      *shape = wanted;
      for (SymbolicDim& dim : shape->dims) dim.symbol.clear();
      return true;
    }
    if (shape->dims.size() != wanted.dims.size()) return false;
    for (size_t d = 0; d < wanted.dims.size(); ++d) {
      SymbolicDim& dim = shape->dims[d];
      if (dim.value && wanted.dims[d].value && *dim.value != *wanted.dims[d].value) return false;
      if (!dim.value) dim.value = wanted.dims[d].value;
    }
    return true;
  }

  Graph merged_;
  std::map<std::string, std::pair<ValueId, std::string>>
      inputs_;  // by name; and whose it was first
  uint32_t next_group_ = 1;
};

}  // namespace

Result<Graph> MergeGraphs(const std::string& name, std::span<const MergePart> parts) {
  Merger merger;
  for (const MergePart& part : parts) PLEXUS_RETURN_IF_ERROR(merger.Add(part));
  return std::move(merger).Finish(name);
}

}  // namespace plexus
