#include "paths/bodies.h"

#include <memory>
#include <utility>

namespace plexus {
namespace {

// How deep bodies are followed; pipeline files nest less.
constexpr int kMaxDepth = 32;

}  // namespace

Graph WithCapturesAsInputs(const Graph& body) {
  Graph graph = body;
  // A capture that this body does not read still takes its place among the inputs.
  for (size_t i = 0; i < graph.captures().size(); ++i) {
    ValueId id = graph.captures()[i];
    if (id.valid()) {
      graph.inputs().push_back(id);
    } else {
      Value unread;
      unread.name = "unread capture " + std::to_string(i);
      graph.AddInput(std::move(unread));
    }
  }
  graph.captures().clear();
  return graph;
}

std::vector<StageBody> StageBodies(const Graph& graph) {
  std::vector<StageBody> bodies;
  for (const Node& node : graph.nodes()) {
    if (!node.HasAttr("stage")) continue;
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* body = std::get_if<GraphPtr>(&attribute)) {
        bodies.push_back({&node, name, *body});
      }
    }
  }
  return bodies;
}

std::string StageTitle(const StageBody& body) {
  const std::string& op = body.node->op;
  std::string kind = op == "MapRows" ? "foreach" : op == "Loop" ? "repeat" : "when";
  if (body.attribute == "then_branch") kind += ", then";
  if (body.attribute == "else_branch") kind += ", else";
  return "stage " + body.node->name + " (" + kind + ")";
}

PathMapPtr BodyPaths::Follow(PathFinder& finder) {
  PathMapPtr map = finder.map();
  // A body's own segments may hold bodies, too.
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    std::map<const Graph*, GraphPtr> found;
    for (const SegmentUse& use : map->segments) {
      for (StageBody& body : StageBodies(*use.segment->graph)) {
        found[body.graph.get()] = std::move(body.graph);
      }
    }
    std::vector<std::string> gone;
    std::erase_if(bodies_, [&](const auto& entry) {
      if (found.erase(entry.first) > 0) return false;
      gone.push_back(entry.second.name);
      return true;
    });
    if (found.empty() && gone.empty()) break;
    std::vector<PathFinder::Load> loads;
    for (auto& [key, graph] : found) {
      const std::string name = "~/body " + std::to_string(next_++);
      loads.push_back({name, std::make_shared<const Graph>(WithCapturesAsInputs(*graph))});
      bodies_[key] = {std::move(graph), name};
    }
    map = finder.Update(std::move(loads), gone);
  }
  if (bodies_.empty()) return map;
  auto with_bodies = std::make_shared<PathMap>(*map);
  for (const auto& [graph, body] : bodies_) with_bodies->bodies[graph] = body.name;
  return with_bodies;
}

}  // namespace plexus
