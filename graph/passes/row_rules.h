// How rows flow through operators. Internal to graph/passes: rows.cc walks, row_rules_*.cc know the
// operators, row_counts.cc follows numbers computed from the number of rows.
//
// Every value either is the same whatever the rows are (`axis` -1), or carries the rows along one
// axis: with b rows, that dimension is b times what it is with one, the rows lie one after the
// other along it, and the part that belongs to a row depends on that row of the inputs only.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "graph/passes/pass_util.h"
#include "graph/shape_inference.h"

namespace plexus::row_rules {

// Numbers computed from shapes are followed for these numbers of rows at once.
inline constexpr std::array<int64_t, 3> kRowCounts = {1, 2, 7};
using Counts = std::array<std::vector<int64_t>, kRowCounts.size()>;

struct RowValue {
  KnownValue known;  // with one row
  int64_t axis = -1;
  std::optional<Counts> counts;  // small integers, per number of rows
  bool varies = false;           // contents depend on the number of rows
  bool is_constant = false;      // of the graph, not merely computed from shapes
  bool HasRows() const { return axis >= 0; }
  const Shape& shape() const { return *known.shape; }
  int64_t rank() const { return static_cast<int64_t>(known.shape->size()); }
};

class RowProver;

// One node under proof. Rules set out[i].axis and may rewrite `node`; inputs are nullptr where left
// out. Shapes of all inputs with rows and of all outputs are known when a rule runs.
struct RowStep {
  RowProver& prover;
  Node& node;
  std::vector<const RowValue*> in;
  std::vector<RowValue>& out;

  const RowValue* In(size_t i) const { return i < in.size() ? in[i] : nullptr; }
  bool HasRows(size_t i) const { return In(i) != nullptr && In(i)->HasRows(); }
  bool AnyRows(size_t first) const;
  std::optional<std::vector<int64_t>> Ints(size_t i) const;  // the same for any number of rows
  // "axes" or "axis" relative to input 0's rank.
  std::optional<std::vector<int64_t>> Axes(const std::string& attribute, size_t input) const;
  std::optional<int64_t> Axis(int64_t fallback) const;
};

// kFailedPrecondition with the reason (without the node: the prover adds it).
Status Fail(std::string reason);

using RowRule = Status (*)(RowStep&);
struct RowEntry {
  std::string_view op;
  RowRule rule;
};
std::span<const RowEntry> LayoutRowRules();   // Reshape, Transpose, Concat ...
std::span<const RowEntry> ComputeRowRules();  // pointwise, products, convolutions, reductions ...
std::span<const RowEntry> PlexusRowRules();   // domain "plexus"

// Rules shared between the standard's operators and the fused forms.
Status Broadcast(RowStep& s);  // all inputs broadcast together
Status MatMulRows(RowStep& s, size_t a, size_t b, bool trans_a, bool trans_b);
Status BatchRows(RowStep& s, std::initializer_list<size_t> with_rows);  // axis 0 of these inputs
Status JoinResidual(RowStep& s, size_t residual);  // must flow as output 0 does

// Follows a node that computes numbers from shapes; false when it is not one of those.
bool FollowCounts(const Node& node, const std::vector<const RowValue*>& in,
                  std::vector<RowValue>& out);

// Walks a graph, proves and rewrites. Thread-compatible.
class RowProver {
 public:
  // `unknown_extent`: what the first unknown dimension is taken to be, the next twice that, ...
  RowProver(const Graph& graph, int64_t unknown_extent)
      : graph_(graph), unknown_extent_(unknown_extent) {}

  // Takes in the constants; before everything else, once.
  void Begin();
  // One node by itself, from what State says of its inputs; for walks that go on behind a failure.
  Status Step(const Node& node) { return RunNode(node); }
  RowValue& State(ValueId id) { return values_[id.value()]; }

  // Whether a node had to be rewritten since ClearRewrote(): as it stands it takes one row at a
  // time.
  bool rewrote() const { return rewrote_; }
  void ClearRewrote() { rewrote_ = false; }

  // OK when every output carries one row of itself per row of the inputs; else kFailedPrecondition.
  Status Prove();
  // After Prove(): the rewritten graph.
  Graph TakeResult();

  // After Prove() failed: the operators themselves refuse the stand-ins.
  bool contradicted() const { return contradicted_; }

  // For rules: a constant in place of an input.
  void PutInts(Node& node, size_t input, const std::vector<int64_t>& values);
  // Repeats input `input` (without rows, extent 1 along `axis`) for each row that `like` has.
  void ExpandRows(Node& node, size_t input, int64_t axis, size_t like);
  // False when shapes hold stand-ins for unknown dimensions: such numbers must not be written out.
  bool shapes_are_real() const { return unknown_.empty(); }

 private:
  Status BeginInputs();
  Status RunNode(const Node& node);
  Status Infer(const Node& node, const std::vector<const RowValue*>& in,
               std::vector<RowValue>& out) const;
  Status CheckOutputs() const;
  RowValue OfConstant(const Constant& constant) const;
  void MarkShapes();

  const Graph& graph_;
  Graph& Rewritten();  // a copy of the graph, made when it is first written to
  std::string Fresh(const std::string& wanted);

  std::optional<Graph> result_;
  std::optional<NameTable> names_;
  const int64_t unknown_extent_;
  std::vector<std::pair<std::string, int64_t>> unknown_;  // symbol and its stand-in
  std::deque<RowValue> values_;  // by value of result_; rules hold pointers while it grows
  std::vector<Node> kept_;
  bool contradicted_ = false, rewrote_ = false;
};

}  // namespace plexus::row_rules
