// Trees of pointwise float operators become one plexus.Elementwise each.
#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>
#include <unordered_map>

#include "graph/passes/fused_ops.h"
#include "graph/passes/pattern.h"

namespace plexus {
namespace {

constexpr size_t kMaxSteps = 32;
constexpr size_t kMaxInputs = 12;

struct OpInfo {
  std::string_view op;
  int arity;   // 0: any number of operands, folded from the left
  bool cheap;  // worth computing again per element rather than storing
};
constexpr OpInfo kFloatOps[] = {
    {"Abs", 1, true},       {"Neg", 1, true},         {"Exp", 1, false},
    {"Log", 1, false},      {"Sqrt", 1, false},       {"Reciprocal", 1, false},
    {"Erf", 1, false},      {"Sigmoid", 1, false},    {"Tanh", 1, false},
    {"Sin", 1, false},      {"Cos", 1, false},        {"Floor", 1, true},
    {"Ceil", 1, true},      {"Round", 1, true},       {"Sign", 1, true},
    {"Relu", 1, true},      {"Softplus", 1, false},   {"Softsign", 1, false},
    {"HardSwish", 1, true}, {"Gelu", 1, false},       {"Mish", 1, false},
    {"LeakyRelu", 1, true}, {"Elu", 1, false},        {"Celu", 1, false},
    {"Selu", 1, false},     {"HardSigmoid", 1, true}, {"ThresholdedRelu", 1, true},
    {"Swish", 1, false},    {"Clip", 1, true},        {"Add", 2, true},
    {"Sub", 2, true},       {"Mul", 2, true},         {"Div", 2, false},
    {"Pow", 2, false},      {"PRelu", 2, true},       {"Min", 0, true},
    {"Max", 0, true},       {"Sum", 0, true},         {"Mean", 0, true},
    {"Where", 3, true},     {"Cast", 1, true},
};
constexpr std::string_view kComparisons[] = {"Equal", "Less", "LessOrEqual", "Greater",
                                             "GreaterOrEqual"};
constexpr std::string_view kLogic[] = {"And", "Or", "Xor", "Not"};

const OpInfo* FindFloatOp(const Node& n) {
  if (!n.domain.empty()) return nullptr;
  for (const OpInfo& info : kFloatOps) {
    if (info.op == n.op) return &info;
  }
  return nullptr;
}
template <typename List>
bool Contains(const List& list, std::string_view op) {
  return std::find(std::begin(list), std::end(list), op) != std::end(list);
}

// The comparisons and logic that make `v`, all read by this one expression only; false when part of
// it cannot become steps.
bool BoolTree(const GraphEditor& editor, ValueId v, std::vector<NodeId>* nodes, int depth = 0) {
  const Node* n = editor.Producer(v);
  if (n == nullptr || !n->domain.empty() || depth > 6 || !editor.OnlyReader(v).valid()) {
    return false;
  }
  nodes->push_back(editor.ProducerId(v));
  if (Contains(kComparisons, n->op)) {
    return editor.IsFloat32(n->inputs[0]) && editor.IsFloat32(n->inputs[1]);
  }
  if (!Contains(kLogic, n->op)) return false;
  for (ValueId input : n->inputs) {
    if (!BoolTree(editor, input, nodes, depth + 1)) return false;
  }
  return true;
}

// A node that can be a step (or a few): itself and the bool expression it reads.
struct Candidate {
  std::vector<NodeId> nodes;
  bool cheap = true;
};

// A bound of Clip: absent, a constant number, or a computed scalar.
bool IsBound(const GraphEditor& editor, const Node& n, size_t i) {
  if (i >= n.inputs.size() || !n.inputs[i].valid() || editor.Scalar(n.inputs[i])) return true;
  return editor.IsFloat32(n.inputs[i]) && editor.Rank(n.inputs[i]) == 0;
}

bool HasComputedBound(const GraphEditor& editor, const Node& n) {
  for (size_t i = 1; i < n.inputs.size(); ++i) {
    if (n.inputs[i].valid() && !editor.IsConstant(n.inputs[i])) return true;
  }
  return false;
}

std::optional<Candidate> AsCandidate(const GraphEditor& editor, NodeId id) {
  const Node& n = editor.node(id);
  const OpInfo* info = FindFloatOp(n);
  if (info == nullptr || n.outputs.size() != 1 || !editor.IsFloat32(n.outputs[0])) {
    return std::nullopt;
  }
  Candidate c{{id}, info->cheap};
  if (n.op == "Where" || n.op == "Cast") {
    if (n.inputs.size() != static_cast<size_t>(info->arity)) return std::nullopt;
    if (!BoolTree(editor, n.inputs[0], &c.nodes)) return std::nullopt;
  }
  if (n.op == "Cast") return c;
  if (n.op == "Clip") {
    if (!IsBound(editor, n, 1) || !IsBound(editor, n, 2)) return std::nullopt;
  } else if (n.inputs.size() < (info->arity == 0 ? 2 : 1) ||
             (info->arity > 0 && n.inputs.size() != static_cast<size_t>(info->arity))) {
    return std::nullopt;
  }
  if (n.op == "Swish" && n.FloatAttr("alpha", 1.0f) != 1.0f) return std::nullopt;
  const size_t first = n.op == "Where" ? 1 : 0;
  const size_t count = n.op == "Clip" ? 1 : n.inputs.size();
  for (size_t i = first; i < count; ++i) {
    // An integer exponent is read as a number; anything else must be float32.
    const bool exponent = n.op == "Pow" && i == 1 && editor.Ints(n.inputs[1]).has_value() &&
                          editor.value(n.inputs[1]).constant->num_elements() == 1;
    if (!exponent && !editor.IsFloat32(n.inputs[i])) return std::nullopt;
  }
  return c;
}

// The program under construction.
class Emitter {
 public:
  Emitter(GraphEditor& editor, std::string base) : editor_(editor), base_(std::move(base)) {}

  struct Step {
    std::string op;
    int64_t args[3] = {-1, -1, -1};
    float params[2] = {0, 0};
  };

  // Operands are numbered inputs first, steps after: known only at the end, so steps are kept
  // apart by an offset until then.
  static constexpr int64_t kStepBase = 1000;

  int64_t Operand(ValueId v) {
    auto it = numbers_.find(v.value());
    if (it != numbers_.end()) return it->second;
    if (editor_.IsConstant(v)) {  // equal constants are one input
      for (size_t i = 0; i < inputs_.size(); ++i) {
        if (editor_.IsConstant(inputs_[i]) &&
            editor_.value(inputs_[i]).constant == editor_.value(v).constant) {
          return numbers_[v.value()] = static_cast<int64_t>(i);
        }
      }
    }
    inputs_.push_back(v);
    return numbers_[v.value()] = static_cast<int64_t>(inputs_.size() - 1);
  }
  int64_t ScalarInput(float value) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (editor_.IsConstant(inputs_[i]) && editor_.Scalar(inputs_[i]) == value &&
          editor_.value(inputs_[i]).constant->shape().empty()) {
        return static_cast<int64_t>(i);
      }
    }
    return Operand(editor_.NewConstant(Tensor::Scalar(value), base_, "scalar"));
  }
  int64_t Emit(std::string_view op, int64_t a, int64_t b = -1, int64_t c = -1, float p0 = 0,
               float p1 = 0) {
    Step step;
    step.op = op;
    step.args[0] = a;
    step.args[1] = b;
    step.args[2] = c;
    step.params[0] = p0;
    step.params[1] = p1;
    steps_.push_back(std::move(step));
    return kStepBase + static_cast<int64_t>(steps_.size()) - 1;
  }
  void EmitNode(const Node& n);
  Node Finish(const Node& root) &&;

 private:
  int64_t EmitPow(const Node& n);

  GraphEditor& editor_;
  std::string base_;
  std::vector<ValueId> inputs_;
  std::vector<Step> steps_;
  std::unordered_map<uint32_t, int64_t> numbers_;  // value → operand
};

int64_t Emitter::EmitPow(const Node& n) {
  const int64_t x = Operand(n.inputs[0]);
  std::optional<float> exponent = editor_.Scalar(n.inputs[1]);
  const auto shape_rank = [&](ValueId v) { return editor_.Rank(v); };
  if (const auto ints = editor_.Ints(n.inputs[1])) exponent = static_cast<float>((*ints)[0]);
  // An exponent of higher rank takes part in broadcasting: it must stay an input.
  if (exponent && editor_.value(n.inputs[1]).constant->shape().size() >
                      static_cast<size_t>(shape_rank(n.inputs[0]).value_or(0))) {
    if (editor_.Scalar(n.inputs[1])) exponent.reset();
  }
  if (!exponent) return Emit("Pow", x, Operand(n.inputs[1]));
  if (*exponent == 2) return Emit("Mul", x, x);
  if (*exponent == 3) return Emit("Mul", Emit("Mul", x, x), x);
  if (*exponent == -1) return Emit("Reciprocal", x);
  return Emit("Pow", x, ScalarInput(*exponent));
}

void Emitter::EmitNode(const Node& n) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  int64_t y = -1;
  const auto in = [&](size_t i) { return Operand(n.inputs[i]); };
  if (n.op == "Cast") {
    y = in(0);  // bool is 0 or 1 already
  } else if (n.op == "Clip") {
    const auto bound = [&](size_t i, const char* name, float none) {
      if (i >= n.inputs.size() || !n.inputs[i].valid()) return n.FloatAttr(name, none);
      return *editor_.Scalar(n.inputs[i]);
    };
    if (!HasComputedBound(editor_, n)) {
      y = Emit("Clip", in(0), -1, -1, bound(1, "min", -kInf), bound(2, "max", kInf));
    } else {
      y = in(0);
      for (size_t i : {1, 2}) {
        if (i >= n.inputs.size() || !n.inputs[i].valid()) continue;
        const auto number = editor_.Scalar(n.inputs[i]);
        if (number && std::isinf(*number) && (*number > 0) == (i == 2)) continue;
        y = Emit(i == 1 ? "Max" : "Min", y, number ? ScalarInput(*number) : in(i));
      }
    }
  } else if (n.op == "Pow") {
    y = EmitPow(n);
  } else if (n.op == "Min" || n.op == "Max" || n.op == "Sum" || n.op == "Mean") {
    const std::string_view op = n.op == "Sum" || n.op == "Mean" ? "Add" : std::string_view(n.op);
    y = in(0);
    for (size_t i = 1; i < n.inputs.size(); ++i) y = Emit(op, y, in(i));
    if (n.op == "Mean") {
      y = Emit("Mul", y, ScalarInput(1.0f / static_cast<float>(n.inputs.size())));
    }
  } else if (n.op == "Gelu") {
    y = Emit(n.StringAttr("approximate", "none") == "tanh" ? "GeluTanh" : "Gelu", in(0));
  } else if (n.op == "Swish") {
    y = Emit("Silu", in(0));
  } else {
    float p0 = 0, p1 = 0;
    if (n.op == "LeakyRelu") p0 = n.FloatAttr("alpha", 0.01f);
    if (n.op == "Elu" || n.op == "Celu" || n.op == "ThresholdedRelu") {
      p0 = n.FloatAttr("alpha", 1.0f);
    }
    if (n.op == "Selu") {
      p0 = n.FloatAttr("alpha", 1.67326319217681884765625f);
      p1 = n.FloatAttr("gamma", 1.05070102214813232421875f);
    }
    if (n.op == "HardSigmoid") {
      p0 = n.FloatAttr("alpha", 0.2f);
      p1 = n.FloatAttr("beta", 0.5f);
    }
    int64_t args[3] = {-1, -1, -1};
    for (size_t i = 0; i < n.inputs.size(); ++i) args[i] = in(i);
    y = Emit(n.op, args[0], args[1], args[2], p0, p1);
  }
  numbers_[n.outputs[0].value()] = y;
}

Node Emitter::Finish(const Node& root) && {
  std::vector<std::string> ops;
  std::vector<int64_t> args;
  std::vector<float> params;
  const int64_t n = static_cast<int64_t>(inputs_.size());
  for (Step& step : steps_) {
    ops.push_back(std::move(step.op));
    for (int64_t a : step.args) args.push_back(a >= kStepBase ? a - kStepBase + n : a);
    params.insert(params.end(), step.params, step.params + 2);
  }
  Node fused;
  fused.op = "Elementwise";
  fused.domain = kPlexusDomain;
  fused.version = 1;
  fused.name = root.name;
  fused.fusion_group = root.fusion_group;
  fused.inputs = std::move(inputs_);
  fused.outputs = root.outputs;
  fused.attributes["ops"] = std::move(ops);
  fused.attributes["args"] = std::move(args);
  fused.attributes["params"] = std::move(params);
  return fused;
}

// Steps a node takes at most.
size_t StepsOf(const Node& n) { return n.op == "Pow" ? 2 : std::max<size_t>(1, n.inputs.size()); }

// A group grows from its root towards the inputs. A node joins when all its readers are inside:
// taking candidates latest first, its readers are decided before it.
class Group {
 public:
  Group(const GraphEditor& editor, std::vector<bool>& taken) : editor_(editor), taken_(taken) {}

  bool TryAdd(const Candidate& c) {
    size_t steps = steps_;
    for (NodeId id : c.nodes) steps += StepsOf(editor_.node(id));
    if (steps > kMaxSteps) return false;
    std::vector<NodeId> members = members_;
    members.insert(members.end(), c.nodes.begin(), c.nodes.end());
    if (CountInputs(members) > kMaxInputs) return false;
    members_ = std::move(members);
    steps_ = steps;
    for (NodeId id : c.nodes) {
      taken_[id.value()] = true;
      for (ValueId input : editor_.node(id).inputs) {
        const NodeId producer = editor_.ProducerId(input);
        if (producer.valid()) open_.push(producer.value());
      }
    }
    return true;
  }
  bool Has(NodeId id) const {
    return std::find(members_.begin(), members_.end(), id) != members_.end();
  }
  void Grow(const std::vector<std::optional<Candidate>>& candidates) {
    const ValueId y = editor_.node(members_[0]).outputs[0];
    while (!open_.empty()) {
      const uint32_t n = open_.top();
      open_.pop();
      const NodeId id(n);
      if (taken_[n] || !editor_.IsAlive(id) || !candidates[n]) continue;
      const ValueId out = editor_.node(id).outputs[0];
      if (editor_.IsOutput(out)) continue;
      const auto readers = editor_.Readers(out);
      if (!std::all_of(readers.begin(), readers.end(), [&](NodeId r) { return Has(r); })) continue;
      // What is computed once per row is not worth computing again per element when it is dear.
      if (!candidates[n]->cheap && IsSmaller(out, y)) continue;
      TryAdd(*candidates[n]);
    }
  }
  std::vector<NodeId> SortedMembers() const {
    std::vector<NodeId> sorted = members_;
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

 private:
  bool IsSmaller(ValueId a, ValueId y) const {
    return editor_.HasShape(a) && editor_.HasShape(y) && !editor_.SameShape(a, y) &&
           NumElementsUnchecked(editor_.GetShape(a)) < NumElementsUnchecked(editor_.GetShape(y));
  }
  size_t CountInputs(const std::vector<NodeId>& members) const {
    std::vector<ValueId> inputs;
    size_t extra = 0;
    for (NodeId id : members) {
      const Node& n = editor_.node(id);
      if (n.op == "Mean") ++extra;  // its 1/n
      const bool params_only = n.op == "Clip" && !HasComputedBound(editor_, n);
      for (size_t i = 0; i < (params_only ? 1 : n.inputs.size()); ++i) {
        if (!n.inputs[i].valid()) continue;
        const NodeId producer = editor_.ProducerId(n.inputs[i]);
        if (producer.valid() &&
            std::find(members.begin(), members.end(), producer) != members.end()) {
          continue;
        }
        if (std::find(inputs.begin(), inputs.end(), n.inputs[i]) == inputs.end()) {
          inputs.push_back(n.inputs[i]);
        }
      }
    }
    return inputs.size() + extra;
  }

  const GraphEditor& editor_;
  std::vector<bool>& taken_;
  std::vector<NodeId> members_;
  size_t steps_ = 0;
  std::priority_queue<uint32_t> open_;  // producers of members, latest first
};

}  // namespace

void RunFuseElementwise(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  std::vector<std::optional<Candidate>> candidates(slots);
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (editor.IsAlive(id)) candidates[i] = AsCandidate(editor, id);
  }
  std::vector<bool> taken(slots, false);
  for (size_t i = slots; i-- > 0;) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!candidates[i] || taken[i] || !editor.IsAlive(id)) continue;
    Group group(editor, taken);
    if (!group.TryAdd(*candidates[i])) continue;
    group.Grow(candidates);
    Emitter emitter(editor, editor.value(editor.node(id).outputs[0]).name);
    for (NodeId member : group.SortedMembers()) emitter.EmitNode(editor.node(member));
    editor.Replace(id, std::move(emitter).Finish(editor.node(id)));
  }
}

}  // namespace plexus
