// AnalyzeRows: sizes of a pipeline's values, and where its rows mix.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <unordered_map>

#include "graph/passes/passes.h"
#include "paths/flops.h"
#include "paths/unit.h"

namespace plexus {
namespace {

// Sizes that open dimensions get: pairs, so that what both runs have alike does not depend on them.
// Small ones for models that take no more (512 tokens), large ones for signals. A run in which a
// value has no elements says nothing.
constexpr std::array<std::array<int64_t, 2>, 4> kExtents = {
    {{96, 64}, {1000, 1500}, {50'000, 70'001}, {400'000, 500'009}}};
constexpr std::array<int64_t, 2> kRows = {2, 3};
// Where nothing but rows is open one run is enough: what is a multiple of this prime comes from
// them.
constexpr int64_t kManyRows = 1009;

using Shapes = std::vector<std::optional<Shape>>;  // per value

struct Trial {
  Shapes shapes;
  std::unordered_map<std::string, double> flops;  // by node, for all rows
};

// A first dimension of several is rows; dimensions of one symbol are equal.
std::vector<KnownInput> Inputs(const Graph& graph, int64_t rows, int64_t extent) {
  std::vector<KnownInput> inputs;
  std::map<std::string, int64_t> symbols;
  int64_t next = extent;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    KnownInput input;
    input.dtype = value.dtype;
    Shape& shape = input.shape.emplace();
    const std::vector<SymbolicDim>& dims = value.shape.dims;
    for (size_t d = 0; d < dims.size(); ++d) {
      int64_t size = dims[d].value.value_or(d == 0 && dims.size() > 1 ? rows : next);
      if (!dims[d].value && !dims[d].symbol.empty()) {
        size = symbols.emplace(dims[d].symbol, size).first->second;
      }
      if (!dims[d].value && size == next) next += extent / 16;
      shape.push_back(size);
    }
    inputs.push_back(std::move(input));
  }
  return inputs;
}

std::optional<Trial> Run(const Graph& graph, const std::vector<KnownInput>& inputs,
                         const Evaluator& evaluator) {
  const Result<Graph> special = Specialize(graph, inputs, evaluator);
  if (!special.ok()) return std::nullopt;
  std::unordered_map<std::string_view, const Value*> by_name;
  for (const Value& value : special->values()) by_name.emplace(value.name, &value);
  Trial trial;
  trial.shapes.resize(graph.num_values());
  for (size_t v = 0; v < graph.num_values(); ++v) {
    const Value& value = graph.values()[v];
    if (value.IsConstant()) continue;
    const auto it = by_name.find(value.name);
    if (it == by_name.end() || !it->second->shape.IsConcrete()) continue;
    const Shape shape = it->second->shape.ToConcrete();
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return std::nullopt;
    trial.shapes[v] = shape;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    trial.shapes[graph.inputs()[i].value()] = inputs[i].shape;
  }
  for (const Node& node : special->nodes()) {
    trial.flops[node.name] += CountFlops(*special, node).count;
  }
  return trial;
}

bool HasOpenRows(const Graph& graph) {
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), [&](ValueId id) {
    const std::vector<SymbolicDim>& dims = graph.value(id).shape.dims;
    return dims.size() > 1 && !dims[0].value;
  });
}

bool HasOpenSizes(const Graph& graph) {
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), [&](ValueId id) {
    const std::vector<SymbolicDim>& dims = graph.value(id).shape.dims;
    for (size_t d = dims.size() > 1 ? 1 : 0; d < dims.size(); ++d) {
      if (!dims[d].value) return true;
    }
    return false;
  });
}

// Sizes alike in both trials hold for every request; others get a name per pair of sizes.
SymbolicShape Common(const std::optional<Shape>& a, const std::optional<Shape>& b) {
  SymbolicShape shape;
  if (!a || !b || a->size() != b->size()) return shape;
  shape.has_rank = true;
  for (size_t d = 0; d < a->size(); ++d) {
    SymbolicDim dim;
    if ((*a)[d] == (*b)[d]) {
      dim.value = (*a)[d];
    } else {
      dim.symbol = "d" + std::to_string((*a)[d]) + "_" + std::to_string((*b)[d]);
    }
    shape.dims.push_back(std::move(dim));
  }
  return shape;
}

SymbolicShape WithoutRows(const std::optional<Shape>& shape) {
  SymbolicShape out;
  if (!shape) return out;
  out = SymbolicShape::FromConcrete(*shape);
  for (SymbolicDim& dim : out.dims) {
    if (*dim.value % kManyRows == 0) dim = {std::nullopt, "d" + std::to_string(*dim.value)};
  }
  return out;
}

}  // namespace

void AnalyzeRows(UnitGraph* units, const Evaluator& evaluator) {
  const Graph& graph = *units->graph;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (!value.shape.has_rank || DTypeSizeBytes(value.dtype) == 0) return;
  }
  std::optional<Trial> first, second;
  int64_t rows = kRows[0];
  if (HasOpenSizes(graph)) {
    for (size_t t = 0; t < kExtents.size() && !second; ++t) {
      first = Run(graph, Inputs(graph, kRows[0], kExtents[t][0]), evaluator);
      if (first) second = Run(graph, Inputs(graph, kRows[1], kExtents[t][1]), evaluator);
    }
    if (!second) return;
  } else {
    rows = kManyRows;
    first = Run(graph, Inputs(graph, kManyRows, 0), evaluator);
    if (!first) return;
  }
  if (!HasOpenRows(graph)) rows = 1;
  units->shapes.resize(graph.num_values());
  for (size_t v = 0; v < graph.num_values(); ++v) {
    if (graph.values()[v].IsConstant()) continue;
    units->shapes[v] =
        second ? Common(first->shapes[v], second->shapes[v]) : WithoutRows(first->shapes[v]);
  }
  std::vector<std::vector<uint32_t>> nodes;
  for (Unit& unit : units->units) {
    nodes.push_back(unit.nodes);
    for (uint32_t n : unit.nodes) {
      const auto it = first->flops.find(graph.nodes()[n].name);
      if (it != first->flops.end()) unit.flops += it->second / static_cast<double>(rows);
    }
  }
  RowWalk walk = WalkRows(graph, nodes, first->shapes);
  units->proper = std::move(walk.proper);
  for (size_t u = 0; u < nodes.size(); ++u) {
    units->units[u].rows = walk.independent[u] && !units->units[u].random;
    units->units[u].why_no_rows = std::move(walk.why_not[u]);
  }
}

}  // namespace plexus
