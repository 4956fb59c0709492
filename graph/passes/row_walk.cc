// WalkRows: the prover's rules on a whole graph, going on behind what mixes rows.
#include <algorithm>

#include "graph/passes/passes.h"
#include "graph/passes/row_rules.h"

namespace plexus {
namespace {

using row_rules::RowProver;
using row_rules::RowValue;

class RowWalker {
 public:
  RowWalker(const Graph& graph, std::span<const std::vector<uint32_t>> units,
            std::span<const std::optional<Shape>> shapes)
      : graph_(graph), units_(units), shapes_(shapes), prover_(graph, /*unknown_extent=*/64) {}

  RowWalk Walk() {
    prover_.Begin();
    unit_of_.assign(graph_.num_values(), kOutside);
    own_.resize(graph_.num_values());
    walk_.proper.assign(graph_.num_values(), false);
    for (uint32_t u = 0; u < units_.size(); ++u) {
      FindInputs(u);
      for (uint32_t n : units_[u]) {
        for (ValueId id : graph_.nodes()[n].outputs) {
          if (id.valid()) unit_of_[id.value()] = u;
        }
      }
      RunUnit(u);
    }
    return std::move(walk_);
  }

 private:
  static constexpr uint32_t kOutside = UINT32_MAX;

  void FindInputs(uint32_t u) {
    inputs_.clear();
    for (uint32_t n : units_[u]) {
      const Node& node = graph_.nodes()[n];
      for (const auto* list : {&node.inputs, &node.implicit_inputs}) {
        for (ValueId id : *list) {
          if (!id.valid() || graph_.value(id).IsConstant() || IsOwn(u, id)) continue;
          if (std::count(inputs_.begin(), inputs_.end(), id) == 0) inputs_.push_back(id);
        }
      }
    }
  }
  bool IsOwn(uint32_t u, ValueId id) const {
    return std::any_of(units_[u].begin(), units_[u].end(), [&](uint32_t n) {
      const std::vector<ValueId>& outputs = graph_.nodes()[n].outputs;
      return std::find(outputs.begin(), outputs.end(), id) != outputs.end();
    });
  }

  // Stretches of row-keeping and of mixing units alternate along every path; `depth_` counts them.
  uint32_t Depth(bool independent) const {
    uint32_t depth = 0;
    for (ValueId id : inputs_) {
      const uint32_t from = unit_of_[id.value()];
      if (from == kOutside) continue;
      depth = std::max(depth, depth_[from] + (walk_.independent[from] == independent ? 0 : 1));
    }
    return depth;
  }

  // A value that a stretch begins with: a row per entry of axis 0.
  Status BeginWith(ValueId id) {
    RowValue& state = prover_.State(id);
    state = RowValue();
    state.known.dtype = graph_.value(id).dtype;
    const std::optional<Shape>& shape = shapes_[id.value()];
    if (!shape || shape->empty()) {
      return row_rules::Fail("reads '" + graph_.value(id).name + "', " +
                             (shape ? "a scalar" : "whose shape depends on data"));
    }
    several_now_ |= (*shape)[0] != 1;
    state.known.shape = shape;
    (*state.known.shape)[0] = 1;
    state.axis = 0;
    return OkStatus();
  }

  // Proves the unit in a stretch of this depth: what the same stretch made goes on as it is.
  Status Prove(uint32_t u, uint32_t depth) {
    several_now_ = false;
    prover_.ClearRewrote();
    for (ValueId id : inputs_) {
      const uint32_t from = unit_of_[id.value()];
      if (from != kOutside && walk_.independent[from] && depth_[from] == depth) {
        prover_.State(id) = own_[id.value()];
        several_now_ |= several_[from];
      } else {
        PLEXUS_RETURN_IF_ERROR(BeginWith(id));
      }
    }
    for (uint32_t n : units_[u]) {
      const Node& node = graph_.nodes()[n];
      const Status status = prover_.Step(node);
      if (!status.ok()) {
        return row_rules::Fail("node '" + node.name + "' (" + node.op + "): " + status.message());
      }
      if (prover_.rewrote() && several_now_) {
        return row_rules::Fail("node '" + node.name + "' (" + node.op +
                               "): takes one row, and gets several");
      }
    }
    return OkStatus();
  }

  void RunUnit(uint32_t u) {
    uint32_t depth = Depth(true);
    Status status = Prove(u, depth);
    // Where rows lie badly for this unit it may begin a stretch of its own: those who make them so
    // then count as mixing.
    const bool restart =
        !status.ok() && std::any_of(inputs_.begin(), inputs_.end(), [&](ValueId id) {
          const uint32_t from = unit_of_[id.value()];
          return from != kOutside && walk_.independent[from] && depth_[from] == depth &&
                 !walk_.proper[id.value()];
        });
    if (restart && Prove(u, depth + 2).ok()) {
      depth += 2;
      status = OkStatus();
    }
    walk_.independent.push_back(status.ok());
    several_.push_back(several_now_);
    walk_.why_not.push_back(status.ok() ? "" : status.message());
    depth_.push_back(status.ok() ? depth : Depth(false));
    for (uint32_t n : units_[u]) {
      for (ValueId id : graph_.nodes()[n].outputs) {
        if (!id.valid() || !status.ok()) continue;
        const RowValue& state = prover_.State(id);
        walk_.proper[id.value()] =
            !state.varies && state.axis == 0 && state.known.shape && state.shape()[0] == 1;
        own_[id.value()] = state;
      }
    }
  }

  const Graph& graph_;
  const std::span<const std::vector<uint32_t>> units_;
  const std::span<const std::optional<Shape>> shapes_;
  RowProver prover_;
  RowWalk walk_;
  std::vector<uint32_t> unit_of_, depth_;
  std::vector<bool> several_;  // per unit: its stretch begins with several entries
  bool several_now_ = false;
  std::vector<RowValue> own_;    // per value made by an independent unit: in its own stretch
  std::vector<ValueId> inputs_;  // of the unit at hand
};

}  // namespace

RowWalk WalkRows(const Graph& graph, std::span<const std::vector<uint32_t>> units,
                 std::span<const std::optional<Shape>> shapes) {
  return RowWalker(graph, units, shapes).Walk();
}

}  // namespace plexus
