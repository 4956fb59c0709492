// GELU written out → Gelu; scaled dot-product attention → plexus.Attention.
#include <algorithm>
#include <array>
#include <cmath>

#include "graph/passes/fused_ops.h"
#include "graph/passes/pattern.h"

namespace plexus {
namespace {

// Coefficients of 1, x, x², x³.
using Cubic = std::array<double, 4>;

// `v` as a polynomial in `x` of degree at most 3, built of Add, Sub, Mul, Div and Pow with scalars.
std::optional<Cubic> AsCubic(const GraphEditor& editor, ValueId v, ValueId x, int depth,
                             std::vector<NodeId>* nodes) {
  if (v == x) return Cubic{0, 1, 0, 0};
  if (const std::optional<float> scalar = editor.Scalar(v)) return Cubic{*scalar, 0, 0, 0};
  const Node* n = editor.Producer(v);
  if (n == nullptr || depth == 0 || n->inputs.size() != 2 || !n->domain.empty()) {
    return std::nullopt;
  }
  const bool known =
      n->op == "Add" || n->op == "Sub" || n->op == "Mul" || n->op == "Div" || n->op == "Pow";
  if (!known) return std::nullopt;
  // A scalar of higher rank than x would change the shape.
  for (int i = 0; i < 2; ++i) {
    if (editor.IsConstant(n->inputs[i]) && !MatchScalar(editor, *n)) return std::nullopt;
  }
  const NodeId id = editor.ProducerId(v);
  const auto a = AsCubic(editor, n->inputs[0], x, depth - 1, nodes);
  const auto b = AsCubic(editor, n->inputs[1], x, depth - 1, nodes);
  if (!a || !b) return std::nullopt;
  if (std::find(nodes->begin(), nodes->end(), id) == nodes->end()) nodes->push_back(id);
  const bool b_scalar = (*b)[1] == 0 && (*b)[2] == 0 && (*b)[3] == 0;
  Cubic out{};
  if (n->op == "Add" || n->op == "Sub") {
    for (int i = 0; i < 4; ++i) out[i] = (*a)[i] + (n->op == "Add" ? (*b)[i] : -(*b)[i]);
    return out;
  }
  if (n->op == "Div") {
    if (!b_scalar || (*b)[0] == 0) return std::nullopt;
    for (int i = 0; i < 4; ++i) out[i] = (*a)[i] / (*b)[0];
    return out;
  }
  if (n->op == "Pow") {
    if (!b_scalar || ((*b)[0] != 2 && (*b)[0] != 3) || *a != Cubic{0, 1, 0, 0}) return std::nullopt;
    out[static_cast<int>((*b)[0])] = 1;
    return out;
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const double product = (*a)[i] * (*b)[j];
      if (product == 0) continue;
      if (i + j > 3) return std::nullopt;
      out[i + j] += product;
    }
  }
  return out;
}

bool IsPolynomial(const Cubic& found, const Cubic& wanted) {
  for (int i = 0; i < 4; ++i) {
    if (wanted[i] == 0 ? found[i] != 0 : !Near(found[i], wanted[i])) return false;
  }
  return true;
}

// From 1 + erf(..) on: products with x (or x times a number) and numbers until x/2 is gathered.
struct Tail {
  ValueId x;
  NodeId last;
};
std::optional<Tail> GatherTail(const GraphEditor& editor, ValueId from, bool x_is_product,
                               std::vector<NodeId>* nodes) {
  double factor = 1;
  Tail tail;
  ValueId at = from;
  for (int steps = 0; steps < 3; ++steps) {
    const NodeId id = editor.OnlyReader(at);
    if (!id.valid()) return std::nullopt;
    const Node& n = editor.node(id);
    if (const std::optional<Scaled> scaled = MatchScaled(editor, n);
        scaled && scaled->other == at) {
      factor *= scaled->scale;
    } else if (IsOp(n, "Mul") && n.inputs.size() == 2 && !tail.x.valid()) {
      ValueId other = n.inputs[n.inputs[0] == at ? 1 : 0];
      const Node* product = editor.Producer(other);
      const auto inner = product ? MatchScaled(editor, *product) : std::nullopt;
      if (inner && !x_is_product) {
        factor *= inner->scale;
        nodes->push_back(editor.ProducerId(other));
        other = inner->other;
      }
      tail.x = other;
    } else {
      return std::nullopt;
    }
    nodes->push_back(id);
    tail.last = id;
    at = n.outputs[0];
    if (tail.x.valid() && Near(factor, 0.5)) return tail;
  }
  return std::nullopt;
}

void FuseGeluAt(GraphEditor& editor, NodeId id) {
  const Node& core = editor.node(id);
  const bool tanh = core.op == "Tanh";
  const double k = std::sqrt(tanh ? 2.0 / M_PI : 0.5);
  const Cubic wanted = tanh ? Cubic{0, k, 0, k * 0.044715} : Cubic{0, k, 0, 0};
  const NodeId add_id = editor.OnlyReader(core.outputs[0]);
  if (!add_id.valid() || !IsOp(editor.node(add_id), "Add")) return;
  const std::optional<ScalarOperand> one = MatchScalar(editor, editor.node(add_id));
  if (!one || one->scalar != 1) return;
  // x itself may be a product by a number: read it both ways.
  for (const bool x_is_product : {false, true}) {
    std::vector<NodeId> nodes = {id, add_id};
    const auto tail = GatherTail(editor, editor.node(add_id).outputs[0], x_is_product, &nodes);
    if (!tail) continue;
    const auto inner = AsCubic(editor, core.inputs[0], tail->x, 6, &nodes);
    if (!inner || !IsPolynomial(*inner, wanted)) continue;
    if (!editor.ReadOnlyInside(nodes, tail->last)) continue;
    Node fused;
    fused.op = "Gelu";
    fused.version = std::max(core.version, 20);
    fused.name = editor.node(tail->last).name;
    fused.inputs = {tail->x};
    fused.outputs = editor.node(tail->last).outputs;
    fused.attributes["approximate"] = std::string(tanh ? "tanh" : "none");
    editor.Replace(tail->last, std::move(fused));
    return;
  }
}

// Scores scaled·(q·kᵀ) + mask as they reach the softmax.
struct Scores {
  ValueId q;
  ValueId k_transposed;
  ValueId mask;
  double scale = 1;
};
std::optional<Scores> TakeScores(const GraphEditor& editor, ValueId v, std::vector<NodeId>* nodes) {
  Scores s;
  const Node* n = editor.Producer(v);
  for (int steps = 0; n != nullptr && steps < 4; ++steps) {
    if (!editor.OnlyReader(v).valid()) return std::nullopt;
    nodes->push_back(editor.ProducerId(v));
    if (IsOp(*n, "MatMul")) {
      s.q = n->inputs[0];
      s.k_transposed = n->inputs[1];
      return s;
    }
    if (const std::optional<Scaled> scaled = MatchScaled(editor, *n)) {
      s.scale *= scaled->scale;
      v = scaled->other;
    } else if (IsOp(*n, "Add") && !s.mask.valid() && s.scale == 1) {
      // The product's side is the one with a MatMul close behind it.
      const auto leads_to_product = [&](ValueId side) {
        const Node* p = editor.Producer(side);
        if (p != nullptr && MatchScaled(editor, *p)) {
          p = editor.Producer(MatchScaled(editor, *p)->other);
        }
        return p != nullptr && IsOp(*p, "MatMul");
      };
      const int side = leads_to_product(n->inputs[0]) ? 0 : 1;
      s.mask = n->inputs[1 - side];
      v = n->inputs[side];
    } else {
      return std::nullopt;
    }
    n = editor.Producer(v);
  }
  return std::nullopt;
}

// Drops a product by a number right before the dot product (its scale goes into `scale`).
ValueId TakeOperandScale(const GraphEditor& editor, ValueId v, double* scale) {
  const Node* n = editor.Producer(v);
  if (n == nullptr || !editor.OnlyReader(v).valid()) return v;
  const std::optional<Scaled> scaled = MatchScaled(editor, *n);
  if (!scaled) return v;
  *scale *= scaled->scale;
  return scaled->other;
}

std::optional<Shape> Rank4(const GraphEditor& editor, ValueId v) {
  if (!v.valid() || !editor.HasShape(v) || !editor.IsFloat32(v)) return std::nullopt;
  Shape shape = editor.GetShape(v);
  return shape.size() == 4 ? std::optional(std::move(shape)) : std::nullopt;
}

bool BroadcastsTo(const Shape& small, const Shape& large) {
  if (small.size() > large.size()) return false;
  const size_t offset = large.size() - small.size();
  for (size_t i = 0; i < small.size(); ++i) {
    if (small[i] != 1 && small[i] != large[offset + i]) return false;
  }
  return true;
}

// k[B,H,T,D] for kᵀ[B,H,D,T]: the transpose before it without its last swap. An invalid id when
// there is no transpose to take back.
ValueId UntransposedKey(GraphEditor& editor, ValueId kt) {
  const NodeId id = editor.ProducerId(kt);
  const Node* t = editor.Producer(kt, "Transpose");
  if (t == nullptr) return ValueId();
  std::vector<int64_t> perm = t->IntsAttr("perm");
  if (perm.size() != 4) return ValueId();
  std::swap(perm[2], perm[3]);
  if (perm == std::vector<int64_t>{0, 1, 2, 3}) return t->inputs[0];
  Node plain = *t;
  plain.attributes["perm"] = perm;
  const ValueId k = editor.NewValue(kt, "k");
  Shape shape = editor.GetShape(kt);
  std::swap(shape[2], shape[3]);
  editor.SetShape(k, SymbolicShape::FromConcrete(shape));
  plain.outputs = {k};
  if (editor.OnlyReader(kt).valid()) {
    // Its slot is before every reader. The old value keeps its reader until that is replaced.
    editor.Replace(id, std::move(plain));
  } else {
    editor.Append(std::move(plain));
  }
  return k;
}

void FuseAttentionAt(GraphEditor& editor, NodeId id) {
  const Node& product = editor.node(id);
  const ValueId probabilities = product.inputs[0];
  const Node* softmax = editor.Producer(probabilities, "Softmax");
  if (softmax == nullptr || !editor.OnlyReader(probabilities).valid()) return;
  const auto out = Rank4(editor, product.outputs[0]);
  const auto v = Rank4(editor, product.inputs[1]);
  if (!out || !v) return;
  const int64_t axis = softmax->IntAttr("axis", softmax->version < 13 ? 1 : -1);
  if (axis != -1 && axis != 3) return;
  std::vector<NodeId> nodes = {id, editor.ProducerId(probabilities)};
  std::optional<Scores> s = TakeScores(editor, softmax->inputs[0], &nodes);
  if (!s) return;
  if (!editor.ReadOnlyInside(nodes, id)) return;
  const ValueId q = TakeOperandScale(editor, s->q, &s->scale);
  const ValueId kt = TakeOperandScale(editor, s->k_transposed, &s->scale);
  const auto q_shape = Rank4(editor, q);
  const auto kt_shape = Rank4(editor, kt);
  if (!q_shape || !kt_shape) return;
  const Shape& a = *q_shape;
  const Shape& b = *kt_shape;
  const bool agree = a[0] == b[0] && a[1] == b[1] && a[0] == (*v)[0] && a[1] == (*v)[1] &&
                     a[3] == b[2] && b[3] == (*v)[2];
  if (!agree) return;
  if (s->mask.valid() && (!editor.HasShape(s->mask) || !editor.IsFloat32(s->mask) ||
                          !BroadcastsTo(editor.GetShape(s->mask), Shape{a[0], a[1], a[2], b[3]}))) {
    return;
  }
  Node fused;
  fused.op = "Attention";
  fused.domain = kPlexusDomain;
  fused.version = 1;
  fused.name = product.name;
  fused.outputs = product.outputs;
  const ValueId value_operand = product.inputs[1];
  const ValueId k = UntransposedKey(editor, kt);
  if (!k.valid()) return;
  fused.inputs = {q, k, value_operand};
  if (s->mask.valid()) fused.inputs.push_back(s->mask);
  fused.attributes["scale"] = static_cast<float>(s->scale);
  editor.Replace(id, std::move(fused));
}

}  // namespace

void RunFuseGelu(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id)) continue;
    if (IsOp(editor.node(id), "Erf") || IsOp(editor.node(id), "Tanh")) FuseGeluAt(editor, id);
  }
}

void RunFuseAttention(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (editor.IsAlive(id) && IsOp(editor.node(id), "MatMul")) FuseAttentionAt(editor, id);
  }
}

}  // namespace plexus
