#include "paths/merge_rows.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/passes/fused_ops.h"
#include "paths/merge.h"

namespace plexus {
namespace {

bool IsRowMap(const Node& node) {
  return node.op == "MapRows" && node.domain == kPlexusDomain && node.fusion_group == 0 &&
         node.GraphAttr("body") != nullptr;
}

bool WalkAlike(const Node& a, const Node& b) {
  return a.inputs == b.inputs && a.version == b.version &&
         a.HasAttr("stage") == b.HasAttr("stage") &&
         a.IntAttr("limit", -1) == b.IntAttr("limit", -1) &&
         a.IntAttr("concurrency", -1) == b.IntAttr("concurrency", -1);
}

// Whether node `to` needs what node `from` makes, `from` standing before it.
bool DependsOn(const Graph& graph, size_t to, size_t from) {
  std::vector<bool> made(graph.num_values(), false);
  const auto reads = [&](const std::vector<ValueId>& ids) {
    return std::any_of(ids.begin(), ids.end(),
                       [&](ValueId id) { return id.valid() && made[id.value()]; });
  };
  for (size_t n = from; n <= to; ++n) {
    const Node& node = graph.nodes()[n];
    if (n != from && !reads(node.inputs) && !reads(node.implicit_inputs)) continue;
    if (n == to) return true;
    for (ValueId id : node.outputs) {
      if (id.valid()) made[id.value()] = true;
    }
  }
  return false;
}

// The body with a name for each row and each captured value, by which both bodies know them.
Graph WithCommonInputs(const Node& node) {
  Graph body = *node.GraphAttr("body");
  for (size_t i = 0; i < body.inputs().size(); ++i) {
    body.value(body.inputs()[i]).name = "row " + std::to_string(i);
  }
  for (size_t i = 0; i < body.captures().size(); ++i) {
    const ValueId id = body.captures()[i];
    if (!id.valid()) continue;
    body.value(id).name = "outer " + std::to_string(node.implicit_inputs[i].value());
    body.inputs().push_back(id);
  }
  body.captures().clear();
  return body;
}

// Attributes that belong to one output each, moved behind the `joined` outputs of another body.
void MoveOutputAttributes(const Node& from, int64_t joined, Node* to) {
  const auto count = static_cast<int64_t>(from.GraphAttr("body")->outputs().size());
  for (int64_t i = 0; i < count; ++i) {
    if (const Tensor* pad = from.TensorAttr("pad_" + std::to_string(i))) {
      to->attributes["pad_" + std::to_string(joined + i)] = *pad;
    }
  }
  std::vector<int64_t> sizes = to->IntsAttr("sizes");
  for (int64_t i : from.IntsAttr("sizes")) sizes.push_back(joined + i);
  if (!sizes.empty()) to->attributes["sizes"] = std::move(sizes);
}

// One node for both; nothing where their bodies have nothing in common.
Result<std::optional<Node>> MergeTwo(const Node& a, const Node& b) {
  const size_t rows = a.inputs.size();
  const Graph *body_a = a.GraphAttr("body"), *body_b = b.GraphAttr("body");
  const size_t joined_a = body_a->outputs().size(), joined_b = body_b->outputs().size();
  if (body_a->inputs().size() != rows || body_b->inputs().size() != rows ||
      joined_a + a.IntsAttr("sizes").size() != a.outputs.size() ||
      joined_b + b.IntsAttr("sizes").size() != b.outputs.size()) {
    return std::optional<Node>();
  }
  const MergePart parts[] = {{a.name, std::make_shared<const Graph>(WithCommonInputs(a))},
                             {b.name, std::make_shared<const Graph>(WithCommonInputs(b))}};
  Result<Graph> merged = MergeGraphs(body_a->name, parts);
  if (merged.status().code() == StatusCode::kInvalidArgument) return std::optional<Node>();
  PLEXUS_RETURN_IF_ERROR(merged.status());
  if (merged->num_nodes() == body_a->num_nodes() + body_b->num_nodes()) {
    return std::optional<Node>();
  }
  std::map<std::string, ValueId> outer;
  for (const Node* node : {&a, &b}) {
    for (ValueId id : node->implicit_inputs) {
      if (id.valid()) outer["outer " + std::to_string(id.value())] = id;
    }
  }
  Node node = a;
  node.implicit_inputs.clear();
  merged->captures().assign(merged->inputs().begin() + rows, merged->inputs().end());
  merged->inputs().resize(rows);
  for (ValueId id : merged->captures()) {
    node.implicit_inputs.push_back(outer.at(merged->value(id).name));
  }
  MoveOutputAttributes(b, static_cast<int64_t>(joined_a), &node);
  node.outputs.assign(a.outputs.begin(), a.outputs.begin() + joined_a);
  node.outputs.insert(node.outputs.end(), b.outputs.begin(), b.outputs.begin() + joined_b);
  node.outputs.insert(node.outputs.end(), a.outputs.begin() + joined_a, a.outputs.end());
  node.outputs.insert(node.outputs.end(), b.outputs.begin() + joined_b, b.outputs.end());
  node.attributes["body"] = std::make_shared<const Graph>(std::move(*merged));
  return std::optional<Node>(std::move(node));
}

}  // namespace

Status MergeRowMaps(Graph& graph) {
  for (size_t b = 1; b < graph.num_nodes(); ++b) {
    if (!IsRowMap(graph.nodes()[b])) continue;
    for (size_t a = 0; a < b; ++a) {
      if (!IsRowMap(graph.nodes()[a]) || !WalkAlike(graph.nodes()[a], graph.nodes()[b]) ||
          DependsOn(graph, b, a)) {
        continue;
      }
      PLEXUS_ASSIGN_OR_RETURN(std::optional<Node> both,
                              MergeTwo(graph.nodes()[a], graph.nodes()[b]));
      if (!both) continue;
      graph.nodes()[a] = std::move(*both);
      graph.nodes().erase(graph.nodes().begin() + static_cast<std::ptrdiff_t>(b));
      // What b captured may have stood between the two; a second look begins anew.
      PLEXUS_RETURN_IF_ERROR(graph.SortTopologically());
      b = 0;
      break;
    }
  }
  return OkStatus();
}

}  // namespace plexus
