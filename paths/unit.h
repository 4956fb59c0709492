// Units: a pipeline's graph as discovery sees it. A unit is a fusion group, or a node that is in
// none: what no cut may go through. Internal to paths/.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/hash.h"
#include "graph/evaluator.h"
#include "graph/graph.h"

namespace plexus {

inline constexpr uint32_t kNoUnit = UINT32_MAX;

// What a unit reads: an output of another unit, or an input of the pipeline.
struct UnitInput {
  uint32_t unit = kNoUnit;  // kNoUnit: the pipeline's own input
  uint32_t index = 0;       // of that unit's outputs, or of the pipeline's inputs
  friend bool operator==(const UnitInput&, const UnitInput&) = default;
};

struct Unit {
  std::vector<uint32_t> nodes;    // of the graph, in topological order
  std::vector<UnitInput> inputs;  // numbered in the order of `function`
  std::vector<ValueId> outputs;   // read elsewhere, or outputs of the graph
  ContentHash function;           // operators, attributes, constants and wiring; inputs are holes
  ContentHash kind;               // what says which units of all pipelines are the same: see below
  bool anchor = false;            // holds weights
  bool random = false;            // equal inputs need not give equal outputs
  bool glue = false;              // moves data only: cheaper done again than dispatched
  size_t constant_bytes = 0;
  // Set by AnalyzeRows; without it every unit mixes rows for an unknown reason.
  bool rows = false;        // keeps rows apart (WalkRows)
  std::string why_no_rows;  // where not
  double flops = 0;         // of a row, on inputs of a usual size
};

// One pipeline, analysed by itself; nothing here depends on what else is loaded.
//
// `kind` of a unit with weights is its function alone: the same layer in two pipelines is the same
// wherever it stands. Any other unit's is its function and the kinds of what feeds it, back to the
// nearest weights or to the pipeline's inputs (by type): a ReLU by itself says nothing.
//
// Equal work inside the pipeline (same function of the same values) is one unit.
struct UnitGraph {
  std::string pipeline;
  GraphPtr graph;           // as given, but equal values are one
  std::vector<Unit> units;  // in topological order
  // Per value of the graph: the unit and output that make it; kNoUnit for inputs and constants.
  std::vector<UnitInput> made_by;
  // Set by AnalyzeRows, per value: sizes that hold for every request, and whether a cut behind the
  // value leaves rows whole.
  std::vector<SymbolicShape> shapes;
  std::vector<bool> proper;
};

// Whether equal inputs give equal outputs: no random operator, in bodies neither.
bool IsDeterministic(const Graph& graph);

// `graph` is prepared and marked (MarkFusionGroups).
UnitGraph MakeUnits(std::string pipeline, const GraphPtr& graph);

// Finds what is known of sizes by trying inputs of several sizes, and where rows mix. A pipeline
// that runs on none of the sizes that are tried stays as it was.
void AnalyzeRows(UnitGraph* units, const Evaluator& evaluator);

// The constants that `node` of `graph` reads, those of its bodies too.
using ConstantSet = std::set<const Constant*>;
void CollectConstants(const Graph& graph, const Node& node, ConstantSet* out);

// A text that is equal for two sets of nodes exactly when they compute the same function of their
// numbered inputs: operators, versions, attributes, constants (by identity: they are interned, so
// equal contents are one object), element types and wiring. Sizes of inputs are not in it: they do
// not change what is computed, and one pipeline may know them where another does not. `outputs` in
// their order. `inputs` receives what is read from outside, in the order of its numbers; `order`
// the nodes, in the text's order. With `by_content`, constants enter by their content address:
// stable across processes.
std::string FunctionText(const Graph& graph, const std::vector<uint32_t>& nodes,
                         const std::vector<ValueId>& outputs, bool by_content,
                         std::vector<ValueId>* inputs, std::vector<uint32_t>* order);

// The element type and declared sizes of an input.
std::string InputText(const Graph& graph, ValueId input);

}  // namespace plexus
