#include "graph/shape_inference.h"

#include <unordered_map>

#include "graph/passes/fused_ops.h"
#include "graph/shape_rules.h"

namespace plexus {
namespace shape_rules {
namespace {

using Table = std::unordered_map<std::string_view, Rule>;

Table BuildTable(std::initializer_list<std::span<const RuleEntry>> lists) {
  Table table;
  for (const auto& list : lists) {
    for (const RuleEntry& entry : list) table.emplace(entry.op, entry.rule);
  }
  return table;
}

std::string Describe(const Node& node, std::span<const KnownValue* const> inputs) {
  if (node.HasAttr("stage")) return "stage '" + node.name + "'";  // its author knows no nodes
  std::string text = node.op + " node '" + node.name + "' (inputs";
  for (const KnownValue* input : inputs) {
    text += ' ';
    if (input == nullptr) {
      text += '-';
      continue;
    }
    text += DTypeName(input->dtype);
    text += input->shape ? ShapeToString(*input->shape) : "?";
  }
  return text + ")";
}

}  // namespace

Result<std::optional<std::vector<int64_t>>> RuleContext::Ints(size_t i) const {
  if (!Has(i) || !inputs_[i]->contents) return std::optional<std::vector<int64_t>>();
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> values, ToInt64Vector(*inputs_[i]->contents));
  return std::optional<std::vector<int64_t>>(std::move(values));
}

Result<std::optional<std::vector<double>>> RuleContext::Doubles(size_t i) const {
  if (!Has(i) || !inputs_[i]->contents) return std::optional<std::vector<double>>();
  PLEXUS_ASSIGN_OR_RETURN(std::vector<double> values, ToDoubleVector(*inputs_[i]->contents));
  return std::optional<std::vector<double>>(std::move(values));
}

Result<RuleContext::IntList> RuleContext::AttrOrInput(const std::string& attribute,
                                                      size_t i) const {
  IntList list;
  if (node_.HasAttr(attribute)) {
    list.present = true;
    list.values = node_.IntsAttr(attribute);
    return list;
  }
  if (!Has(i)) return list;
  list.present = true;
  PLEXUS_ASSIGN_OR_RETURN(auto values, Ints(i));
  list.known = values.has_value();
  if (values) list.values = std::move(*values);
  return list;
}

Status RuleContext::WantRank(size_t i, int64_t at_least, int64_t at_most) const {
  const Shape* shape = ShapeOf(i);
  if (shape == nullptr) return OkStatus();
  const int64_t rank = static_cast<int64_t>(shape->size());
  if (rank >= at_least && rank <= at_most) return OkStatus();
  return InvalidArgumentError("input " + std::to_string(i) + " has rank " + std::to_string(rank) +
                              ", wanted " + (rank < at_least ? "at least " : "at most ") +
                              std::to_string(rank < at_least ? at_least : at_most));
}

Result<int64_t> NormalizeAxis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank) {
    return InvalidArgumentError("axis " + std::to_string(axis) + " is out of range for rank " +
                                std::to_string(rank));
  }
  return axis < 0 ? axis + rank : axis;
}

Result<Shape> BroadcastShapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape out = longer;
  const size_t offset = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& dim = out[offset + i];
    if (dim == shorter[i] || shorter[i] == 1) continue;
    if (dim != 1) {
      return InvalidArgumentError("cannot broadcast " + ShapeToString(a) + " with " +
                                  ShapeToString(b));
    }
    dim = shorter[i];
  }
  return out;
}

Status BroadcastInputs(const RuleContext& c, size_t first, size_t last, std::optional<Shape>& out) {
  out.reset();
  Shape shape;
  bool all_known = true;
  for (size_t i = first; i < last; ++i) {
    if (!c.Has(i)) continue;
    const Shape* s = c.ShapeOf(i);
    if (s == nullptr) {
      all_known = false;
      continue;
    }
    if (*s == shape) continue;
    PLEXUS_ASSIGN_OR_RETURN(shape, BroadcastShapes(shape, *s));
  }
  if (all_known) out = std::move(shape);
  return OkStatus();
}

Rule FindRule(const Node& node) {
  static const Table* const onnx = new Table(
      BuildTable({ElementwiseRules(), ConvRules(), PoolRules(), MatMulRules(), LayoutRules(),
                  GatherRules(), ReduceRules(), NormRules(), SequenceRules(), GenerateRules()}));
  static const Table* const plexus = new Table(BuildTable({PlexusRules()}));
  const Table& table = node.domain.empty() ? *onnx : *plexus;
  if (!node.domain.empty() && node.domain != kPlexusDomain) return nullptr;
  const auto it = table.find(node.op);
  return it == table.end() ? nullptr : it->second;
}

Status InferInto(const Graph& graph, const Node& node, std::span<const KnownValue* const> inputs,
                 std::vector<KnownValue>& outputs) {
  outputs.clear();
  outputs.resize(node.outputs.size());
  const Rule rule = FindRule(node);
  if (rule == nullptr) {
    return UnimplementedError("no shape rule for operator " +
                              (node.domain.empty() ? node.op : node.domain + "." + node.op) +
                              " (node '" + node.name + "')");
  }
  RuleContext context(graph, node, inputs, outputs);
  Status status = rule(context);
  if (!status.ok()) return status.WithContext(Describe(node, inputs));
  for (const KnownValue& output : outputs) {
    if (!output.shape) continue;
    const Result<int64_t> count = NumElements(*output.shape);
    if (!count.ok()) return count.status().WithContext(Describe(node, inputs));
  }
  return OkStatus();
}

}  // namespace shape_rules

Result<std::vector<KnownValue>> InferNode(const Graph& graph, const Node& node,
                                          std::span<const KnownValue> inputs) {
  std::vector<const KnownValue*> pointers(inputs.size(), nullptr);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool left_out = i < node.inputs.size() && !node.inputs[i].valid();
    if (!left_out) pointers[i] = &inputs[i];
  }
  std::vector<KnownValue> outputs;
  PLEXUS_RETURN_IF_ERROR(shape_rules::InferInto(graph, node, pointers, outputs));
  return outputs;
}

bool HasShapeRule(const Node& node) { return shape_rules::FindRule(node) != nullptr; }

}  // namespace plexus
