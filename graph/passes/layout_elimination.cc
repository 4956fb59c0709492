// Transposes and reshapes that need not happen.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "graph/passes/pattern.h"

namespace plexus {
namespace {

using Perm = std::vector<int64_t>;

std::optional<Perm> GetPerm(const GraphEditor& editor, const Node& n) {
  Perm perm = n.IntsAttr("perm");
  if (perm.empty()) {
    const std::optional<int64_t> rank = editor.Rank(n.inputs[0]);
    if (!rank) return std::nullopt;
    for (int64_t i = *rank; i-- > 0;) perm.push_back(i);
  }
  // Also the guard against a malformed attribute: every axis once.
  std::vector<bool> seen(perm.size(), false);
  for (int64_t p : perm) {
    if (p < 0 || p >= static_cast<int64_t>(perm.size()) || seen[p]) return std::nullopt;
    seen[p] = true;
  }
  return perm;
}

bool IsIdentity(const Perm& perm) {
  for (size_t i = 0; i < perm.size(); ++i) {
    if (perm[i] != static_cast<int64_t>(i)) return false;
  }
  return true;
}

SymbolicShape Permuted(const SymbolicShape& shape, const Perm& perm) {
  SymbolicShape out;
  if (!shape.has_rank || shape.dims.size() != perm.size()) return out;
  out.has_rank = true;
  for (int64_t p : perm) out.dims.push_back(shape.dims[p]);
  return out;
}

Perm Inverse(const Perm& perm) {
  Perm out(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) out[perm[i]] = static_cast<int64_t>(i);
  return out;
}

// Pointwise operators with one operand (the rest, if any, are constant scalars).
bool IsUnaryPointwise(const Node& n) {
  static constexpr std::string_view kOps[] = {
      "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Erf",        "Exp",       "Log",      "Sqrt",
      "Neg",  "Abs",       "Clip",    "Cast", "Reciprocal", "HardSwish", "Softplus", "HardSigmoid",
      "Gelu", "Elu",       "Floor",   "Ceil", "Round",      "Sign",      "Selu",     "Mish"};
  return n.domain.empty() && std::find(std::begin(kOps), std::end(kOps), n.op) != std::end(kOps);
}
bool IsBinaryPointwise(const Node& n) {
  static constexpr std::string_view kOps[] = {"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"};
  return n.domain.empty() && n.inputs.size() == 2 &&
         std::find(std::begin(kOps), std::end(kOps), n.op) != std::end(kOps);
}

// The constant `v` as an operand before the transpose instead of behind it: possible without moving
// data when at most one of its dimensions is not 1. Undefined when it is not.
Tensor BeforeTranspose(const GraphEditor& editor, ValueId v, const Perm& perm) {
  const Tensor t = editor.ConstantTensor(v);
  const size_t rank = perm.size();
  if (!t.defined() || t.shape().size() > rank) return Tensor();
  int64_t wide = 0;
  for (int64_t d : t.shape()) wide += d != 1;
  if (wide > 1) return Tensor();
  Shape padded(rank - t.shape().size(), 1);
  padded.insert(padded.end(), t.shape().begin(), t.shape().end());
  Shape moved(rank);
  for (size_t i = 0; i < rank; ++i) moved[perm[i]] = padded[i];
  return t.Reshaped(moved);
}

// Moves the transposes before a pointwise node behind it, where all its operands come from equal
// transposes (or are constants): one transpose instead of several, later, and often next to
// another that it cancels with.
void SinkThrough(GraphEditor& editor, NodeId id) {
  const Node& n = editor.node(id);
  const bool unary = IsUnaryPointwise(n);
  if ((!unary && !IsBinaryPointwise(n)) || n.outputs.size() != 1) return;
  std::optional<Perm> perm;
  NodeId latest;
  std::vector<ValueId> inputs = n.inputs;
  for (size_t i = 0; i < (unary ? 1 : inputs.size()); ++i) {
    if (editor.IsConstant(inputs[i])) continue;
    const Node* t = editor.Producer(inputs[i], "Transpose");
    if (t == nullptr) return;
    for (NodeId reader : editor.Readers(inputs[i])) {
      if (reader != id) return;
    }
    if (editor.IsOutput(inputs[i])) return;
    std::optional<Perm> own = GetPerm(editor, *t);
    if (!own || (perm && *perm != *own)) return;
    perm = std::move(own);
    const NodeId maker = editor.ProducerId(inputs[i]);
    if (!latest.valid() || maker.value() > latest.value()) latest = maker;
    inputs[i] = t->inputs[0];
  }
  if (!perm || !latest.valid()) return;
  if (!unary) {
    for (ValueId& input : inputs) {
      if (!editor.IsConstant(input)) continue;
      const Tensor moved = BeforeTranspose(editor, input, *perm);
      if (!moved.defined()) return;
      if (moved.num_elements() == 1) continue;
      input = editor.NewConstant(moved, editor.value(input).name, "transposed");
    }
  }
  const Node& node = editor.node(id);
  const ValueId y = node.outputs[0];
  const ValueId before = editor.NewValue(y, "untransposed");
  editor.SetShape(before, Permuted(editor.value(y).shape, Inverse(*perm)));
  Node pointwise = node;
  pointwise.inputs = inputs;
  pointwise.outputs = {before};
  Node transpose;
  transpose.op = "Transpose";
  transpose.version = editor.node(latest).version;
  transpose.name = editor.node(latest).name;
  transpose.attributes["perm"] = *perm;
  transpose.inputs = {before};
  transpose.outputs = {y};
  // The latest old transpose's slot stands behind all the operands. It is filled first: what the
  // operands' makers make must not go unread in between.
  editor.Replace(latest, std::move(pointwise));
  editor.Replace(id, std::move(transpose));
}

bool IsReshapeLike(const Node& n) {
  return n.domain.empty() &&
         (n.op == "Reshape" || n.op == "Flatten" || n.op == "Squeeze" || n.op == "Unsqueeze");
}

ValueId ShapeConstant(GraphEditor& editor, const Shape& shape, ValueId base) {
  return editor.NewConstant(Tensor::VectorInt64(shape), editor.value(base).name, "shape");
}

// `id` becomes Reshape(x, its own output's shape).
void BecomeReshape(GraphEditor& editor, NodeId id, ValueId x) {
  const Node& old = editor.node(id);
  const ValueId y = old.outputs[0];
  Node reshape;
  reshape.op = "Reshape";
  reshape.version = std::max(old.version, 14);
  reshape.name = old.name;
  reshape.outputs = {y};
  reshape.inputs = {x, ShapeConstant(editor, editor.GetShape(y), y)};
  reshape.attributes["allowzero"] = int64_t{1};  // a 0 in the shape is meant
  editor.Replace(id, std::move(reshape));
}

// The axes of a shape that are not 1, in order.
std::vector<int64_t> WideAxes(const Shape& shape) {
  std::vector<int64_t> axes;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != 1) axes.push_back(static_cast<int64_t>(i));
  }
  return axes;
}

bool SameWideExtents(const Shape& a, const Shape& b) {
  const auto wide_a = WideAxes(a);
  const auto wide_b = WideAxes(b);
  return std::equal(wide_a.begin(), wide_a.end(), wide_b.begin(), wide_b.end(),
                    [&](int64_t i, int64_t j) { return a[i] == b[j]; });
}

// Up from a Transpose over transposes and reshapes that only add or drop dimensions of size 1: the
// farthest value whose elements lie in memory as in the result. Invalid when there is none.
ValueId SameOrderSource(const GraphEditor& editor, NodeId id) {
  ValueId v = editor.node(id).outputs[0];
  if (!editor.HasShape(v)) return ValueId();
  // order[i]: which of v's wide axes the result's i-th wide axis is.
  std::vector<int64_t> order(WideAxes(editor.GetShape(v)).size());
  std::iota(order.begin(), order.end(), 0);
  ValueId source;
  for (int steps = 0; steps < 8; ++steps) {
    const Node* n = editor.Producer(v);
    if (n == nullptr || n->inputs.empty() || !editor.HasShape(n->inputs[0])) break;
    const Shape after = editor.GetShape(v);
    const Shape before = editor.GetShape(n->inputs[0]);
    if (IsOp(*n, "Transpose")) {
      const std::optional<Perm> perm = GetPerm(editor, *n);
      if (!perm || perm->size() != before.size() || after.size() != before.size()) break;
      const auto wide_after = WideAxes(after);
      const auto wide_before = WideAxes(before);
      for (int64_t& o : order) {
        const int64_t axis = (*perm)[wide_after[o]];
        o = std::find(wide_before.begin(), wide_before.end(), axis) - wide_before.begin();
      }
    } else if (!IsReshapeLike(*n) || !SameWideExtents(before, after)) {
      break;
    }
    v = n->inputs[0];
    if (std::is_sorted(order.begin(), order.end())) source = v;
  }
  return source;
}

void SimplifyTranspose(GraphEditor& editor, NodeId id) {
  const Node& n = editor.node(id);
  std::optional<Perm> perm = GetPerm(editor, n);
  if (!perm) return;
  if (const Node* inner = editor.Producer(n.inputs[0], "Transpose")) {
    const std::optional<Perm> first = GetPerm(editor, *inner);
    if (first && first->size() == perm->size()) {
      Perm merged;
      for (int64_t p : *perm) merged.push_back((*first)[p]);
      Node transpose = n;
      transpose.inputs = {inner->inputs[0]};
      transpose.attributes["perm"] = merged;
      perm = std::move(merged);
      editor.Replace(id, std::move(transpose));
    }
  }
  const ValueId x = editor.node(id).inputs[0];
  const ValueId y = editor.node(id).outputs[0];
  if (IsIdentity(*perm)) {
    editor.ReplaceValue(y, x);
  } else if (const ValueId source = SameOrderSource(editor, id); source.valid()) {
    BecomeReshape(editor, id, source);
  }
}

bool AllEqual(const std::vector<int64_t>& values, int64_t wanted) {
  return std::all_of(values.begin(), values.end(), [&](int64_t v) { return v == wanted; });
}

// y = x·1, x/1, x+0, x−0, x^1, max(x, −∞), min(x, ∞).
bool IsNeutralArithmetic(const GraphEditor& editor, const Node& n, ValueId* x) {
  const bool mul = IsOp(n, "Mul"), div = IsOp(n, "Div"), add = IsOp(n, "Add"), sub = IsOp(n, "Sub");
  const bool pow = IsOp(n, "Pow"), max = IsOp(n, "Max"), min = IsOp(n, "Min");
  if (!mul && !div && !add && !sub && !pow && !max && !min) return false;
  const std::optional<ScalarOperand> match = MatchScalar(editor, n);
  if (!match || (match->scalar_first && (div || sub || pow))) return false;
  *x = match->other;
  if (mul || div || pow) return match->scalar == 1;
  if (max) return match->scalar == -INFINITY;
  if (min) return match->scalar == INFINITY;
  return match->scalar == 0;
}

// The node gives its first operand (or *x) unchanged.
bool IsNoOp(const GraphEditor& editor, const Node& n, ValueId* x) {
  if (!n.domain.empty() || n.outputs.empty() || n.inputs.empty() || !n.inputs[0].valid()) {
    return false;
  }
  *x = n.inputs[0];
  const ValueId y = n.outputs[0];
  if (!y.valid()) return false;  // an unused first output (GRU, LSTM)
  if (n.op == "Identity") return true;
  if (n.op == "Concat" || n.op == "Sum" || n.op == "Mean" || n.op == "Max" || n.op == "Min") {
    if (n.inputs.size() == 1) return true;
  }
  if (n.op == "Cast") {
    return editor.value(y).dtype != DType::kUndefined &&
           editor.value(*x).dtype == editor.value(y).dtype &&
           n.IntAttr("to", 0) == static_cast<int64_t>(editor.value(*x).dtype);
  }
  if (IsNeutralArithmetic(editor, n, x)) return true;
  *x = n.inputs[0];
  if (!editor.SameShape(*x, y)) return false;
  if (IsReshapeLike(n) || n.op == "Expand") return true;
  if (n.op == "Slice") {
    if (n.inputs.size() < 5 || !n.inputs[4].valid()) return true;
    const auto steps = editor.Ints(n.inputs[4]);
    return steps && AllEqual(*steps, 1);  // step −1 keeps the shape too
  }
  if (n.op == "Pad" && n.inputs.size() > 1) {
    const auto pads = editor.Ints(n.inputs[1]);
    return pads && AllEqual(*pads, 0);
  }
  if (n.op == "Tile" && n.inputs.size() > 1) {
    const auto repeats = editor.Ints(n.inputs[1]);
    return repeats && AllEqual(*repeats, 1);
  }
  return false;
}

void SimplifyReshape(GraphEditor& editor, NodeId id) {
  const Node& n = editor.node(id);
  // The start of the chain of reshapes before this one.
  ValueId x = n.inputs[0];
  while (const Node* p = editor.Producer(x)) {
    if (!IsReshapeLike(*p)) break;
    x = p->inputs[0];
  }
  if (x == n.inputs[0]) return;
  const ValueId y = n.outputs[0];
  if (editor.SameShape(x, y)) {
    if (editor.ReplaceValue(y, x)) return;
  }
  if (editor.HasShape(y)) {
    BecomeReshape(editor, id, x);
    return;
  }
  // A constant target without zeros does not look at the operand's dimensions.
  if (!IsOp(n, "Reshape") || n.inputs.size() < 2) return;
  const auto target = editor.Ints(n.inputs[1]);
  if (!target || std::find(target->begin(), target->end(), 0) != target->end()) return;
  editor.SetInput(id, 0, x);
}

}  // namespace

void RunEliminateTransposes(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id)) continue;
    if (IsOp(editor.node(id), "Transpose")) {
      SimplifyTranspose(editor, id);
    } else {
      SinkThrough(editor, id);
    }
  }
}

void RunEliminateReshapes(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id)) continue;
    ValueId x;
    if (IsNoOp(editor, editor.node(id), &x)) {
      if (editor.ReplaceValue(editor.node(id).outputs[0], x)) continue;
    }
    if (editor.IsAlive(id) && IsReshapeLike(editor.node(id))) SimplifyReshape(editor, id);
  }
}

}  // namespace plexus
