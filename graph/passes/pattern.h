// How the passes look at a graph and change it: producers and readers kept up to date, constants
// read by value, and the patterns that several passes share.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "graph/graph.h"

namespace plexus {

// A graph under rewriting. Building one is linear in the graph; every edit costs what it touches.
// Rewrites put the new node into the slot of the last node of what it replaces, which keeps the
// nodes in topological order; nodes nobody reads any more die at once (they stop being readers) and
// leave the graph in Finish. References into the graph are valid until the next edit. Borrows the
// graph; thread-compatible.
class GraphEditor {
 public:
  explicit GraphEditor(Graph& graph);

  Graph& graph() { return graph_; }
  const Graph& graph() const { return graph_; }
  size_t num_slots() const { return graph_.num_nodes(); }
  bool IsAlive(NodeId id) const { return !dead_[id.value()]; }
  const Node& node(NodeId id) const { return graph_.node(id); }
  const Value& value(ValueId id) const { return graph_.value(id); }

  // The node that makes `v`; invalid for inputs, constants, captures and left-out inputs.
  NodeId ProducerId(ValueId v) const;
  const Node* Producer(ValueId v) const;  // nullptr when there is none
  // The producer if it is operator `op` of ONNX's domain, else nullptr.
  const Node* Producer(ValueId v, std::string_view op) const;
  // Reading nodes, once per input slot (a node that reads `v` twice is listed twice).
  std::span<const NodeId> Readers(ValueId v) const { return readers_[v.value()]; }
  bool IsOutput(ValueId v) const { return output_uses_[v.value()] > 0; }
  // The one reader of `v`: invalid when there are more, none, or `v` is a graph output.
  NodeId OnlyReader(ValueId v) const;
  // True when each output of the nodes, but for those of `last`, is read by these nodes only.
  bool ReadOnlyInside(std::span<const NodeId> nodes, NodeId last) const;

  // What is known without running anything. Rank also looks through shape-preserving operators.
  std::optional<int64_t> Rank(ValueId v) const;
  bool HasShape(ValueId v) const { return value(v).shape.IsConcrete(); }
  Shape GetShape(ValueId v) const { return value(v).shape.ToConcrete(); }
  bool SameShape(ValueId a, ValueId b) const;  // both concrete and equal
  bool IsFloat32(ValueId v) const { return v.valid() && value(v).dtype == DType::kFloat32; }
  bool IsConstant(ValueId v) const { return v.valid() && value(v).IsConstant(); }
  // The contents of a constant; undefined when it is none or cannot be had.
  Tensor ConstantTensor(ValueId v) const;
  // The number in a float32 constant of one element, whatever its rank.
  std::optional<float> Scalar(ValueId v) const;
  // The integers in a constant of integer type.
  std::optional<std::vector<int64_t>> Ints(ValueId v) const;

  // A new value like `like` (type and shape), with a unique name made from its name.
  ValueId NewValue(ValueId like, std::string_view suffix);
  ValueId NewConstant(Tensor tensor, std::string_view base, std::string_view suffix);
  void SetShape(ValueId v, SymbolicShape shape) { graph_.value(v).shape = std::move(shape); }

  // Puts `node` in place of the node in `slot` (dead or alive).
  void Replace(NodeId slot, Node node);
  // Appends a node; Finish sorts.
  void Append(Node node);
  // Makes every reader of `from` read `to` instead. Keeps the graph's output names: when `from` is
  // a graph output, the producer of `to` makes `from` directly. False, and no change, when both are
  // outputs, or `from` is one and `to` has no producer.
  bool ReplaceValue(ValueId from, ValueId to);
  // Makes input `index` of a node read `to`.
  void SetInput(NodeId id, size_t index, ValueId to);

  bool changed() const { return changed_; }
  // After Append: brings the nodes into topological order again, for passes that rely on slots
  // being ordered. Ids change if it does.
  Status Refresh();
  // Sorts if needed and drops what died. Ids change; the editor is of no use afterwards.
  Status Finish();

 private:
  void Index();
  void AddReads(NodeId id);
  void DropReads(NodeId id);
  void DropRead(ValueId v, NodeId reader);
  void KillIfUnread(ValueId v);
  std::string UniqueName(std::string_view base, std::string_view suffix);

  Graph& graph_;
  std::vector<NodeId> producers_;
  std::vector<std::vector<NodeId>> readers_;
  std::vector<uint32_t> output_uses_;
  std::vector<bool> dead_;
  bool needs_sort_ = false;
  bool changed_ = false;
  std::unordered_set<std::string> names_;  // filled when the first name is made
};

bool IsOp(const Node& node, std::string_view op);  // ONNX's domain

// A two-operand node with a scalar constant on one side that leaves the other side's shape as it is
// (its rank is not above the other's).
struct ScalarOperand {
  ValueId other;
  float scalar = 0;
  bool scalar_first = false;
};
std::optional<ScalarOperand> MatchScalar(const GraphEditor& editor, const Node& node);

// `v` read as scale·other (Mul or Div by a scalar): nullopt when it is not that.
struct Scaled {
  ValueId other;
  float scale = 1;
};
std::optional<Scaled> MatchScaled(const GraphEditor& editor, const Node& node);

// Equal up to the rounding of a constant that was written down in float32.
bool Near(double a, double b, double relative = 2e-6);

// The axes a Reduce* node works on (attribute or constant input), made non-negative and sorted
// where the rank of its input is known. nullopt when the axes are not constant; empty for "all".
std::optional<std::vector<int64_t>> ReduceAxes(const GraphEditor& editor, const Node& node);

// An activation applied to `v`, written as one node or spelt out; `last` is its last node. Covers
// plexus.Conv's list (fused_ops.md). All nodes between read inside the pattern only.
struct Activation {
  std::string name;
  std::vector<float> params;
  NodeId last;
};
std::optional<Activation> MatchActivation(const GraphEditor& editor, ValueId v);
// Sets the two attributes, with params left out when there are none.
void SetActivation(Node& node, Activation activation);

// The passes on one shared editor, in the order of Optimize; each public pass is one of these
// followed by Finish.
void RunFuseConvBatchNorm(GraphEditor& editor);
void RunFuseConvEpilogue(GraphEditor& editor);
void RunFuseMatMulEpilogue(GraphEditor& editor);
void RunFuseLayerNorm(GraphEditor& editor);
void RunFuseGelu(GraphEditor& editor);
void RunFuseSoftmax(GraphEditor& editor);
void RunFuseAttention(GraphEditor& editor);
void RunFuseElementwise(GraphEditor& editor);
void RunEliminateTransposes(GraphEditor& editor);
void RunEliminateReshapes(GraphEditor& editor);
void RunFuseQuantized(GraphEditor& editor);

}  // namespace plexus
