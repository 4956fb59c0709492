// Why two pipelines are not one: the first place where they part.
#include <algorithm>
#include <map>
#include <set>

#include "paths/finder.h"

namespace plexus {
namespace {

const Node& LastNode(const UnitGraph& graph, uint32_t unit) {
  return graph.graph->nodes()[graph.units[unit].nodes.back()];
}

// "MatMul+Relu 'fc1'": the operators of a unit and the name of its first node.
std::string Describe(const UnitGraph& graph, uint32_t unit) {
  std::string ops;
  for (uint32_t n : graph.units[unit].nodes) {
    ops += (ops.empty() ? "" : "+") + graph.graph->nodes()[n].op;
  }
  return ops + " '" + graph.graph->nodes()[graph.units[unit].nodes.front()].name + "'";
}

std::string AttributeText(const Attribute& attribute) {
  if (const auto* i = std::get_if<int64_t>(&attribute)) return std::to_string(*i);
  if (const auto* f = std::get_if<float>(&attribute)) return std::to_string(*f);
  if (const auto* s = std::get_if<std::string>(&attribute)) return "\"" + *s + "\"";
  if (const auto* v = std::get_if<std::vector<int64_t>>(&attribute)) {
    std::string text = "[";
    for (size_t i = 0; i < v->size(); ++i) text += (i ? "," : "") + std::to_string((*v)[i]);
    return text + "]";
  }
  return "another value";
}

// The first thing in which two nodes differ; empty when it is neither operator, attribute, constant
// nor type.
std::string NodeDifference(const Graph& ga, const Node& a, const Graph& gb, const Node& b) {
  if (a.op != b.op || a.domain != b.domain) return "operator " + a.op + " against " + b.op;
  for (const auto& [name, value] : a.attributes) {
    const auto it = b.attributes.find(name);
    const std::string mine = AttributeText(value);
    if (it == b.attributes.end()) return "attribute " + name + " " + mine + " against none";
    const std::string theirs = AttributeText(it->second);
    if (mine != theirs) return "attribute " + name + " " + mine + " against " + theirs;
  }
  for (const auto& [name, value] : b.attributes) {
    if (a.attributes.count(name) == 0) return "attribute " + name + " only in the second";
  }
  if (a.inputs.size() != b.inputs.size()) {
    return std::to_string(a.inputs.size()) + " inputs against " + std::to_string(b.inputs.size());
  }
  for (size_t i = 0; i < a.inputs.size(); ++i) {
    if (!a.inputs[i].valid() || !b.inputs[i].valid()) continue;
    const Value &va = ga.value(a.inputs[i]), &vb = gb.value(b.inputs[i]);
    const std::string which = "input " + std::to_string(i) + " ('" + va.name + "')";
    if (va.IsConstant() != vb.IsConstant()) return which + " is a constant in one only";
    if (va.IsConstant() && va.constant != vb.constant) {
      const std::string shape_a = ShapeToString(va.constant->shape());
      const std::string shape_b = ShapeToString(vb.constant->shape());
      if (shape_a != shape_b) return which + ": shape " + shape_a + " against " + shape_b;
      return which + ": other values of the same shape " + shape_a;
    }
    if (va.dtype != vb.dtype || va.shape.ToString() != vb.shape.ToString()) {
      return which + ": type " + std::string(DTypeName(va.dtype)) + va.shape.ToString() +
             " against " + std::string(DTypeName(vb.dtype)) + vb.shape.ToString();
    }
  }
  return "";
}

}  // namespace

Result<std::string> PathFinder::FirstDifference(const std::string& a, const std::string& b) const {
  const auto find = [&](const std::string& name) -> const UnitGraph* {
    const auto it = pipelines_.find(name);
    return it == pipelines_.end() ? nullptr : &it->second;
  };
  const UnitGraph *ga = find(a), *gb = find(b);
  if (ga == nullptr || gb == nullptr) {
    return NotFoundError("pipeline '" + (ga == nullptr ? a : b) + "' is not loaded");
  }
  std::set<ContentHash> kinds_a, kinds_b;
  for (const Unit& unit : ga->units) kinds_a.insert(unit.kind);
  for (const Unit& unit : gb->units) kinds_b.insert(unit.kind);

  for (uint32_t u = 0; u < ga->units.size(); ++u) {
    const Unit& unit = ga->units[u];
    const std::string here = Describe(*ga, u);
    if (unit.random) return here + ": random operators are never shared";
    if (kinds_b.count(unit.kind) > 0) continue;
    // Its counterpart reads the same thing and is not in the first either; the same operator, if
    // there are several.
    uint32_t other = kNoUnit;
    for (uint32_t v = 0; v < gb->units.size(); ++v) {
      const Unit& theirs = gb->units[v];
      if (kinds_a.count(theirs.kind) > 0) continue;
      const bool same_source =
          !unit.inputs.empty() && !theirs.inputs.empty() &&
          (unit.inputs[0].unit == kNoUnit
               ? theirs.inputs[0].unit == kNoUnit
               : theirs.inputs[0].unit != kNoUnit &&
                     ga->units[unit.inputs[0].unit].kind == gb->units[theirs.inputs[0].unit].kind);
      if (!same_source) continue;
      const bool same_op = LastNode(*gb, v).op == LastNode(*ga, u).op;
      if (other == kNoUnit || same_op) other = v;
      if (same_op) break;
    }
    if (other == kNoUnit) return here + ": nothing in '" + b + "' stands in its place";
    const std::vector<uint32_t>& mine = unit.nodes;
    const std::vector<uint32_t>& theirs = gb->units[other].nodes;
    std::string why;
    for (size_t i = 0; why.empty() && i < std::min(mine.size(), theirs.size()); ++i) {
      why = NodeDifference(*ga->graph, ga->graph->nodes()[mine[i]], *gb->graph,
                           gb->graph->nodes()[theirs[i]]);
    }
    if (why.empty() && mine.size() != theirs.size()) why = "they fuse with other nodes";
    if (why.empty()) why = "their operands come from different places";
    return here + " against " + Describe(*gb, other) + ": " + why;
  }
  return std::string();
}

}  // namespace plexus
