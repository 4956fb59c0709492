// Activations behind a convolution or matrix product, in one node or spelt out.
#include <cmath>
#include <limits>

#include "graph/passes/pattern.h"

namespace plexus {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Follows single readers of values and remembers the nodes passed.
struct Walk {
  const GraphEditor& editor;
  ValueId at;
  NodeId last;

  // Steps over the only reader if it is `op`; nullptr, and no step, when it is not.
  const Node* Next() const {
    const NodeId reader = editor.OnlyReader(at);
    return reader.valid() ? &editor.node(reader) : nullptr;
  }
  void Step() {
    last = editor.OnlyReader(at);
    at = editor.node(last).outputs[0];
  }
};

// clip(x, lo, hi) with constant bounds, as Clip, Min, Max or Relu.
struct Bounds {
  float lo = -kInf;
  float hi = kInf;
};
std::optional<Bounds> MatchBounds(const GraphEditor& editor, const Node& n, ValueId x) {
  if (IsOp(n, "Relu")) return Bounds{0, kInf};
  if (IsOp(n, "Clip")) {
    if (n.inputs[0] != x) return std::nullopt;
    Bounds b;
    for (size_t i = 1; i < n.inputs.size() && i < 3; ++i) {
      if (!n.inputs[i].valid()) continue;
      const std::optional<float> bound = editor.Scalar(n.inputs[i]);
      if (!bound) return std::nullopt;
      (i == 1 ? b.lo : b.hi) = *bound;
    }
    // Opsets before 11 keep the bounds in attributes.
    b.lo = n.FloatAttr("min", b.lo);
    b.hi = n.FloatAttr("max", b.hi);
    return b;
  }
  if (!IsOp(n, "Max") && !IsOp(n, "Min")) return std::nullopt;
  const std::optional<ScalarOperand> match = MatchScalar(editor, n);
  if (!match || match->other != x || std::isnan(match->scalar)) return std::nullopt;
  return IsOp(n, "Max") ? Bounds{match->scalar, kInf} : Bounds{-kInf, match->scalar};
}

// Bounds over one or two nodes (Max then Min) from walk.at on.
std::optional<Bounds> WalkBounds(Walk& walk) {
  const Node* n = walk.Next();
  if (n == nullptr) return std::nullopt;
  std::optional<Bounds> bounds = MatchBounds(walk.editor, *n, walk.at);
  if (!bounds) return std::nullopt;
  walk.Step();
  n = walk.Next();
  if (n == nullptr || IsOp(*n, "Clip")) return bounds;
  const std::optional<Bounds> more = MatchBounds(walk.editor, *n, walk.at);
  // min(max(x, lo), hi) is Clip; the other order is the same while lo <= hi.
  if (more && bounds->hi == kInf && more->lo == -kInf && bounds->lo <= more->hi) {
    bounds->hi = more->hi;
    walk.Step();
  } else if (more && bounds->lo == -kInf && more->hi == kInf && more->lo <= bounds->hi) {
    bounds->lo = more->lo;
    walk.Step();
  }
  return bounds;
}

Activation FromBounds(const Bounds& b, NodeId last) {
  if (b.lo == 0 && b.hi == kInf) return {"Relu", {}, last};
  return {"Clip", {b.lo, b.hi}, last};
}

std::optional<Activation> MatchSingleNode(const GraphEditor& editor, ValueId v) {
  Walk walk{editor, v, NodeId()};
  const Node* n = walk.Next();
  if (n == nullptr || n->outputs.size() != 1) return std::nullopt;
  if (std::optional<Bounds> bounds = WalkBounds(walk)) return FromBounds(*bounds, walk.last);
  if (!n->domain.empty()) return std::nullopt;
  const NodeId id = editor.OnlyReader(v);
  if (n->inputs.size() != 1) return std::nullopt;
  if (n->op == "LeakyRelu") {
    const float alpha = n->FloatAttr("alpha", 0.01f);
    walk.Step();
    if (std::optional<Bounds> bounds = WalkBounds(walk)) {
      return Activation{"LeakyReluClip", {alpha, bounds->lo, bounds->hi}, walk.last};
    }
    return Activation{"LeakyRelu", {alpha}, id};
  }
  if (n->op == "Sigmoid" || n->op == "Tanh" || n->op == "Softplus") {
    return Activation{n->op, {}, id};
  }
  if (n->op == "HardSigmoid") {
    return Activation{"HardSigmoid", {n->FloatAttr("alpha", 0.2f), n->FloatAttr("beta", 0.5f)}, id};
  }
  if (n->op == "HardSwish") return Activation{"HardSwish", {}, id};
  if (n->op == "Elu") return Activation{"Elu", {n->FloatAttr("alpha", 1.0f)}, id};
  if (n->op == "Gelu") {
    const bool tanh = n->StringAttr("approximate", "none") == "tanh";
    return Activation{tanh ? "GeluTanh" : "Gelu", {}, id};
  }
  if (n->op == "Swish" && n->FloatAttr("alpha", 1.0f) == 1.0f) return Activation{"Silu", {}, id};
  return std::nullopt;
}

// The gate g of v·g as seen from its last value, going up to v: what function of v it is.
// `scale` gathers a factor that may stand before or after the product.
enum class Gate { kNone, kSigmoid, kHardSwish, kHardSwishTimesSix };
Gate MatchGate(const GraphEditor& editor, ValueId gate, ValueId v, std::vector<NodeId>* nodes) {
  const NodeId id = editor.ProducerId(gate);
  const Node* n = editor.Producer(gate);
  if (n == nullptr || !n->domain.empty() || n->inputs.empty()) return Gate::kNone;
  nodes->push_back(id);
  if (n->op == "Sigmoid") return n->inputs[0] == v ? Gate::kSigmoid : Gate::kNone;
  if (n->op == "HardSigmoid") {
    const bool third =
        Near(n->FloatAttr("alpha", 0.2f), 1.0 / 6.0, 1e-5) && Near(n->FloatAttr("beta", 0.5f), 0.5);
    return third && n->inputs[0] == v ? Gate::kHardSwish : Gate::kNone;
  }
  if (const std::optional<Scaled> scaled = MatchScaled(editor, *n)) {
    if (!Near(scaled->scale, 1.0 / 6.0, 1e-5)) return Gate::kNone;
    return MatchGate(editor, scaled->other, v, nodes) == Gate::kHardSwishTimesSix ? Gate::kHardSwish
                                                                                  : Gate::kNone;
  }
  if (n->op != "Clip") return Gate::kNone;
  const std::optional<Bounds> bounds = MatchBounds(editor, *n, n->inputs[0]);
  if (!bounds || bounds->lo != 0 || bounds->hi != 6) return Gate::kNone;
  const NodeId add_id = editor.ProducerId(n->inputs[0]);
  const Node* add = editor.Producer(n->inputs[0], "Add");
  if (add == nullptr) return Gate::kNone;
  const std::optional<ScalarOperand> match = MatchScalar(editor, *add);
  if (!match || match->scalar != 3 || match->other != v) return Gate::kNone;
  nodes->push_back(add_id);
  return Gate::kHardSwishTimesSix;
}

// factor·HardSwish followed by ·scale and +shift by scalars: a division still lacking, a learnable
// affine block.
Activation ExtendHardSwish(const GraphEditor& editor, ValueId out, NodeId last, float factor) {
  Walk walk{editor, out, last};
  double scale = factor;
  float shift = 0;
  for (int i = 0; i < 2; ++i) {
    const Node* mul = walk.Next();
    const auto scaled = mul == nullptr ? std::nullopt : MatchScaled(editor, *mul);
    if (!scaled || scaled->other != walk.at) break;
    scale *= scaled->scale;
    walk.Step();
  }
  if (const Node* add = walk.Next(); add != nullptr && IsOp(*add, "Add")) {
    const std::optional<ScalarOperand> match = MatchScalar(editor, *add);
    if (match && match->other == walk.at) {
      shift = match->scalar;
      walk.Step();
    }
  }
  if (Near(scale, 1) && shift == 0) return {"HardSwish", {}, walk.last};
  return {"HardSwishAffine", {static_cast<float>(scale), shift}, walk.last};
}

// v·gate(v): Silu and HardSwish written out.
std::optional<Activation> MatchGated(const GraphEditor& editor, ValueId v) {
  if (editor.IsOutput(v) || editor.Readers(v).size() != 2) return std::nullopt;
  for (NodeId mul_id : editor.Readers(v)) {
    const Node& mul = editor.node(mul_id);
    if (!IsOp(mul, "Mul") || mul.inputs.size() != 2) continue;
    const ValueId gate = mul.inputs[mul.inputs[0] == v ? 1 : 0];
    std::vector<NodeId> nodes;
    const Gate kind = MatchGate(editor, gate, v, &nodes);
    if (kind == Gate::kNone) continue;
    nodes.push_back(mul_id);
    if (!editor.ReadOnlyInside(nodes, mul_id)) continue;
    if (kind == Gate::kSigmoid) return Activation{"Silu", {}, mul_id};
    // v·clip(v+3, 0, 6) is six times HardSwish, and most often divided by six next.
    return ExtendHardSwish(editor, mul.outputs[0], mul_id, kind == Gate::kHardSwish ? 1 : 6);
  }
  return std::nullopt;
}

// max(v, alpha·v) and max(v, LeakyRelu(v)) with 0 <= alpha <= 1 are LeakyRelu.
std::optional<Activation> MatchLeakyMax(const GraphEditor& editor, ValueId v) {
  if (editor.IsOutput(v) || editor.Readers(v).size() != 2) return std::nullopt;
  for (NodeId max_id : editor.Readers(v)) {
    const Node& max = editor.node(max_id);
    if (!IsOp(max, "Max") || max.inputs.size() != 2) continue;
    const ValueId other = max.inputs[max.inputs[0] == v ? 1 : 0];
    const Node* n = editor.Producer(other);
    if (n == nullptr || editor.OnlyReader(other) != max_id) continue;
    std::optional<float> alpha;
    if (IsOp(*n, "LeakyRelu") && n->inputs[0] == v) {
      alpha = n->FloatAttr("alpha", 0.01f);
    } else if (const std::optional<Scaled> scaled = MatchScaled(editor, *n);
               scaled && scaled->other == v) {
      alpha = scaled->scale;
    }
    if (!alpha || !(*alpha >= 0 && *alpha <= 1)) continue;
    Walk walk{editor, max.outputs[0], max_id};
    if (std::optional<Bounds> bounds = WalkBounds(walk)) {
      return Activation{"LeakyReluClip", {*alpha, bounds->lo, bounds->hi}, walk.last};
    }
    return Activation{"LeakyRelu", {*alpha}, max_id};
  }
  return std::nullopt;
}

// clip(v+3, 0, 6)/6 is HardSigmoid(1/6, 1/2).
std::optional<Activation> MatchHardSigmoid(const GraphEditor& editor, ValueId v) {
  Walk walk{editor, v, NodeId()};
  const Node* add = walk.Next();
  if (add == nullptr || !IsOp(*add, "Add")) return std::nullopt;
  const std::optional<ScalarOperand> shift = MatchScalar(editor, *add);
  if (!shift || shift->scalar != 3) return std::nullopt;
  walk.Step();
  const std::optional<Bounds> bounds = WalkBounds(walk);
  if (!bounds || bounds->lo != 0 || bounds->hi != 6) return std::nullopt;
  const Node* div = walk.Next();
  const std::optional<Scaled> scaled = div == nullptr ? std::nullopt : MatchScaled(editor, *div);
  if (!scaled || !Near(scaled->scale, 1.0 / 6.0, 1e-5)) return std::nullopt;
  walk.Step();
  return Activation{"HardSigmoid", {1.0f / 6.0f, 0.5f}, walk.last};
}

}  // namespace

std::optional<Activation> MatchActivation(const GraphEditor& editor, ValueId v) {
  std::optional<Activation> found = MatchSingleNode(editor, v);
  if (!found) found = MatchHardSigmoid(editor, v);
  if (!found) found = MatchGated(editor, v);
  if (!found) found = MatchLeakyMax(editor, v);
  if (found && found->name == "HardSwish") {
    found = ExtendHardSwish(editor, editor.node(found->last).outputs[0], found->last, 1);
  }
  return found;
}

void SetActivation(Node& node, Activation activation) {
  node.attributes["activation"] = std::move(activation.name);
  if (!activation.params.empty()) {
    node.attributes["activation_params"] = std::move(activation.params);
  }
}

}  // namespace plexus
