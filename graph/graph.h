// Graph: a model, or the static part of a pipeline, as data.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/status.h"
#include "graph/constant_store.h"
#include "graph/tensor.h"

namespace plexus {

using NodeId = Id<struct NodeTag>;
using ValueId = Id<struct ValueTag>;

class Graph;

using Attribute = std::variant<int64_t, float, std::string, Tensor, std::shared_ptr<const Graph>,
                               std::vector<int64_t>, std::vector<float>, std::vector<std::string>>;

// One operator application. `inputs` holds an invalid id where an optional input is left out;
// `outputs` likewise for an unused optional output.
struct Node {
  std::string op;      // "Conv"
  std::string domain;  // "" is ONNX's default domain; "plexus" is pipeline glue and fused ops
  int version = 0;     // the operator's since_version is chosen from this opset version
  std::string name;    // the file's, or made up; never empty after import
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  // Values of enclosing graphs that the subgraph attributes read (If, Loop, Scan, plexus.MapRows):
  // implicit_inputs[i] feeds Graph::captures()[i] of every subgraph of this node.
  std::vector<ValueId> implicit_inputs;
  std::map<std::string, Attribute> attributes;
  // Set by the fusion passes: nodes with one group run as one kernel (see passes/fusion.h).
  uint32_t fusion_group = 0;  // 0: none

  int64_t IntAttr(const std::string& name, int64_t fallback) const;
  float FloatAttr(const std::string& name, float fallback) const;
  std::string StringAttr(const std::string& name, const std::string& fallback) const;
  std::vector<int64_t> IntsAttr(const std::string& name) const;  // {} when absent
  std::vector<float> FloatsAttr(const std::string& name) const;
  const Tensor* TensorAttr(const std::string& name) const;  // nullptr when absent
  const Graph* GraphAttr(const std::string& name) const;
  bool HasAttr(const std::string& name) const { return attributes.count(name) > 0; }
};

struct Value {
  std::string name;  // unique within its graph
  DType dtype = DType::kUndefined;
  SymbolicShape shape;
  ConstantPtr constant;  // set for constants (initialisers, folded values)
  bool IsConstant() const { return constant != nullptr; }
};

// Single static assignment: every value is an input, a constant, a capture, or the output of one
// node. Nodes are kept in topological order. Copying a Graph copies structure and shares constants
// and subgraphs. Thread-compatible; immutable once shared as shared_ptr<const Graph>.
class Graph {
 public:
  std::string name;

  ValueId AddValue(Value value);
  ValueId AddInput(Value value);
  ValueId AddConstant(std::string name, ConstantPtr constant);
  // Appends; the caller keeps topological order or calls SortTopologically().
  NodeId AddNode(Node node);

  size_t num_nodes() const { return nodes_.size(); }
  size_t num_values() const { return values_.size(); }
  const Node& node(NodeId id) const { return nodes_[id.value()]; }
  Node& node(NodeId id) { return nodes_[id.value()]; }
  const Value& value(ValueId id) const { return values_[id.value()]; }
  Value& value(ValueId id) { return values_[id.value()]; }
  const std::vector<Node>& nodes() const { return nodes_; }
  std::vector<Node>& nodes() { return nodes_; }
  const std::vector<Value>& values() const { return values_; }

  const std::vector<ValueId>& inputs() const { return inputs_; }
  std::vector<ValueId>& inputs() { return inputs_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  std::vector<ValueId>& outputs() { return outputs_; }
  // Only in subgraphs: inner values fed by the owning node's implicit_inputs (same index; invalid
  // where this subgraph does not read that capture).
  const std::vector<ValueId>& captures() const { return captures_; }
  std::vector<ValueId>& captures() { return captures_; }

  std::optional<ValueId> FindValue(const std::string& name) const;  // linear
  bool IsGraphOutput(ValueId id) const;

  // kInvalidArgument, naming a node on it, when there is a cycle.
  Status SortTopologically();
  // Ids in range, single assignment, topological order, captures matched; names the culprit.
  Status Validate() const;
  // Drops nodes whose outputs nobody reads and values nobody mentions, and renumbers. Ids change.
  void RemoveDead();

  // Per value: the node that makes it (invalid for inputs, constants, captures).
  std::vector<NodeId> Producers() const;
  // Per value: the nodes that read it (inputs and implicit inputs; a node once per value).
  std::vector<std::vector<NodeId>> Consumers() const;

  // Human-readable listing for tests, `plexus inspect` and before/after pictures of passes.
  std::string ToString() const;

 private:
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> outputs_;
  std::vector<ValueId> captures_;
};

using GraphPtr = std::shared_ptr<const Graph>;

// Equal node by node and value by value, subgraphs and attributes included; constants by identity,
// since equal ones are one. The graphs' own names do not count.
bool SameGraph(const Graph& a, const Graph& b);

}  // namespace plexus
