// Internal to shape inference: what a rule sees, and the tables of rules. A rule first sets what
// follows from types alone, then shapes as far as the inputs' shapes are known.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/shape_inference.h"

namespace plexus::shape_rules {

// Thread-compatible; lives for one call of one rule.
class RuleContext {
 public:
  RuleContext(const Graph& graph, const Node& node, std::span<const KnownValue* const> inputs,
              std::vector<KnownValue>& outputs)
      : graph_(graph), node_(node), inputs_(inputs), outputs_(outputs) {}

  const Graph& graph() const { return graph_; }
  const Node& node() const { return node_; }
  size_t num_inputs() const { return inputs_.size(); }
  size_t num_outputs() const { return outputs_.size(); }

  // Wired (not left out).
  bool Has(size_t i) const { return i < inputs_.size() && inputs_[i] != nullptr; }
  DType TypeOf(size_t i) const { return Has(i) ? inputs_[i]->dtype : DType::kUndefined; }
  // nullptr when left out or unknown.
  const Shape* ShapeOf(size_t i) const {
    return Has(i) && inputs_[i]->shape ? &*inputs_[i]->shape : nullptr;
  }
  const KnownValue* KnownOf(size_t i) const { return Has(i) ? inputs_[i] : nullptr; }
  // The integers in input i; nullopt when left out or its contents are unknown.
  Result<std::optional<std::vector<int64_t>>> Ints(size_t i) const;
  Result<std::optional<std::vector<double>>> Doubles(size_t i) const;
  // "axes" and the like: from the attribute, else from input i. `known` is false when the input is
  // wired with unknown contents; `present` when neither is there.
  struct IntList {
    bool present = false;
    bool known = true;
    std::vector<int64_t> values;
  };
  Result<IntList> AttrOrInput(const std::string& attribute, size_t i) const;

  void Type(size_t i, DType dtype) {
    if (i < outputs_.size()) outputs_[i].dtype = dtype;
  }
  void SetShape(size_t i, Shape shape) {
    if (i < outputs_.size()) outputs_[i].shape = std::move(shape);
  }
  void Set(size_t i, DType dtype, const Shape* shape) {
    Type(i, dtype);
    if (shape) SetShape(i, *shape);
  }

  // kInvalidArgument; the caller adds the node's name and the shapes of its inputs.
  Status Error(std::string message) const { return InvalidArgumentError(std::move(message)); }
  Status WantRank(size_t i, int64_t at_least, int64_t at_most = 1 << 20) const;

 private:
  const Graph& graph_;
  const Node& node_;
  std::span<const KnownValue* const> inputs_;
  std::vector<KnownValue>& outputs_;
};

using Rule = Status (*)(RuleContext&);
struct RuleEntry {
  std::string_view op;
  Rule rule;
};

// One table per file.
std::span<const RuleEntry> ElementwiseRules();
std::span<const RuleEntry> ConvRules();
std::span<const RuleEntry> PoolRules();
std::span<const RuleEntry> MatMulRules();
std::span<const RuleEntry> LayoutRules();
std::span<const RuleEntry> GatherRules();
std::span<const RuleEntry> ReduceRules();
std::span<const RuleEntry> NormRules();
std::span<const RuleEntry> SequenceRules();  // recurrent networks, attention, signals
std::span<const RuleEntry> GenerateRules();  // shapes, ranges, random numbers
std::span<const RuleEntry> PlexusRules();    // domain "plexus"

// The rule for a node; nullptr when there is none.
Rule FindRule(const Node& node);
// InferNode without its copies, for the passes: `inputs[i]` is nullptr where left out; `outputs` is
// resized.
Status InferInto(const Graph& graph, const Node& node, std::span<const KnownValue* const> inputs,
                 std::vector<KnownValue>& outputs);

// Adds the dimension's range check: -rank <= axis < rank; returns it made non-negative.
Result<int64_t> NormalizeAxis(int64_t axis, int64_t rank);
Result<Shape> BroadcastShapes(const Shape& a, const Shape& b);
// Broadcast over all inputs [first, last); unset when one of them is unknown.
Status BroadcastInputs(const RuleContext& c, size_t first, size_t last, std::optional<Shape>& out);
// Attributes are unchecked 64-bit numbers: sizes and strides beyond this are refused.
inline constexpr int64_t kMaxExtent = int64_t{1} << 40;

// Output extents of a sliding window (convolutions, pools): spatial attributes of the node, padded
// per auto_pad; `input` and `kernel` hold the spatial dimensions only.
struct WindowParams {
  std::vector<int64_t> strides, dilations, pads;  // pads: all begins, then all ends
};
Result<WindowParams> ReadWindow(const Node& node, std::span<const int64_t> input,
                                std::span<const int64_t> kernel);
Result<std::vector<int64_t>> WindowExtents(const Node& node, std::span<const int64_t> input,
                                           std::span<const int64_t> kernel);
// Shape rules shared with the plexus forms.
Result<Shape> ConvShape(const Node& node, const Shape& x, const Shape& w);
Result<Shape> MatMulShape(Shape a, Shape b);
Status AttentionRule(RuleContext& c);

}  // namespace plexus::shape_rules
