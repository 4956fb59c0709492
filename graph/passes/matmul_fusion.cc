// MatMul and Gemm become plexus.MatMul and swallow scale, bias, residual and activation.
#include <algorithm>
#include <cmath>

#include "graph/passes/fused_ops.h"
#include "graph/passes/pattern.h"

namespace plexus {
namespace {

// perm swaps the last two axes and leaves the others.
bool SwapsLastTwo(const std::vector<int64_t>& perm) {
  const int64_t r = static_cast<int64_t>(perm.size());
  if (r < 2 || perm[r - 1] != r - 2 || perm[r - 2] != r - 1) return false;
  for (int64_t i = 0; i + 2 < r; ++i) {
    if (perm[i] != i) return false;
  }
  return true;
}

// The operand without a Transpose of its last two axes before it.
ValueId AbsorbTranspose(const GraphEditor& editor, ValueId v, bool* trans) {
  const Node* t = editor.Producer(v, "Transpose");
  if (t == nullptr) return v;
  std::vector<int64_t> perm = t->IntsAttr("perm");
  if (perm.empty() && editor.Rank(t->inputs[0]) == 2) perm = {1, 0};
  if (!SwapsLastTwo(perm)) return v;
  *trans = !*trans;
  return t->inputs[0];
}

struct Product {
  ValueId a, b;
  bool trans_a = false;
  bool trans_b = false;
  float alpha = 1;
  ValueId c;  // Gemm's third operand
  float beta = 1;
};
std::optional<Product> ReadProduct(const GraphEditor& editor, const Node& n) {
  const bool gemm = IsOp(n, "Gemm");
  if ((!gemm && !IsOp(n, "MatMul")) || n.inputs.size() < 2) return std::nullopt;
  if (!editor.IsFloat32(n.inputs[0]) || !editor.IsFloat32(n.inputs[1])) return std::nullopt;
  Product p;
  p.a = n.inputs[0];
  p.b = n.inputs[1];
  if (gemm) {
    p.trans_a = n.IntAttr("transA", 0) != 0;
    p.trans_b = n.IntAttr("transB", 0) != 0;
    p.alpha = n.FloatAttr("alpha", 1);
    p.beta = n.FloatAttr("beta", 1);
    if (n.inputs.size() > 2 && n.inputs[2].valid()) p.c = n.inputs[2];
  } else {
    const std::optional<int64_t> rank_a = editor.Rank(p.a);
    const std::optional<int64_t> rank_b = editor.Rank(p.b);
    if (!rank_a || !rank_b || *rank_a < 2 || *rank_b < 2) return std::nullopt;
  }
  p.a = AbsorbTranspose(editor, p.a, &p.trans_a);
  p.b = AbsorbTranspose(editor, p.b, &p.trans_b);
  return p;
}

// Columns of the result, when known.
std::optional<int64_t> Columns(const GraphEditor& editor, const Product& p) {
  const SymbolicShape& shape = editor.value(p.b).shape;
  if (!shape.has_rank || shape.dims.size() < 2) return std::nullopt;
  return shape.dims[shape.dims.size() - (p.trans_b ? 2 : 1)].value;
}

// `v` as a bias of `columns` numbers for a result of rank `rank`; made anew where its shape or
// scale differs. An invalid id when it is not one.
ValueId AsBias(GraphEditor& editor, ValueId v, int64_t columns, int64_t rank, float factor,
               ValueId y) {
  if (!editor.IsFloat32(v) || !editor.HasShape(v)) return ValueId();
  const Shape shape = editor.GetShape(v);
  if (static_cast<int64_t>(shape.size()) > rank) return ValueId();
  if (factor == 1 && shape == Shape{columns}) return v;
  const int64_t last = shape.empty() ? 1 : shape.back();
  const int64_t n = NumElementsUnchecked(shape);
  if (n != last || (last != columns && last != 1)) return ValueId();
  const Tensor old = editor.ConstantTensor(v);
  if (!old.defined()) return ValueId();
  Result<Tensor> bias = Tensor::Allocate(DType::kFloat32, {columns});
  if (!bias.ok()) return ValueId();
  for (int64_t i = 0; i < columns; ++i) {
    bias->mutable_data<float>()[i] = factor * old.data<float>()[last == 1 ? 0 : i];
  }
  return editor.NewConstant(std::move(*bias), editor.value(y).name, "bias");
}

// What follows the product, as far as one node can hold it.
struct Epilogue {
  ValueId bias;
  ValueId residual;
  NodeId last;
};

// Steps over Mul/Div by a scalar, Add of a bias and Add of a residual, in this order.
void Collect(GraphEditor& editor, Product& p, Epilogue& e, std::optional<int64_t> columns) {
  for (;;) {
    const ValueId y = editor.node(e.last).outputs[0];
    const NodeId next = editor.OnlyReader(y);
    if (!next.valid()) return;
    const Node& n = editor.node(next);
    if (!e.bias.valid() && !e.residual.valid()) {
      const std::optional<Scaled> scaled = MatchScaled(editor, n);
      if (scaled && scaled->other == y) {
        p.alpha *= scaled->scale;
        e.last = next;
        continue;
      }
    }
    if (!IsOp(n, "Add") || e.residual.valid()) return;
    const ValueId other = n.inputs[n.inputs[0] == y ? 1 : 0];
    const std::optional<int64_t> rank = editor.Rank(y);
    ValueId bias;
    if (!e.bias.valid() && columns && rank) {
      bias = AsBias(editor, other, *columns, *rank, 1, y);
    }
    // A vector added to a one-row result of its own shape is a bias as well as a residual.
    if (bias.valid()) {
      e.bias = bias;
    } else if (editor.SameShape(y, other) && editor.IsFloat32(other)) {
      // Of two products that meet in one Add the later one takes the other's result.
      const NodeId other_id = editor.ProducerId(other);
      if (other_id.valid() && other_id.value() > e.last.value() &&
          editor.OnlyReader(other).valid() &&
          (IsOp(editor.node(other_id), "MatMul") || IsOp(editor.node(other_id), "Gemm"))) {
        return;
      }
      e.residual = other;
    } else {
      return;
    }
    e.last = next;
  }
}

void FuseProduct(GraphEditor& editor, NodeId id) {
  std::optional<Product> p = ReadProduct(editor, editor.node(id));
  if (!p) return;
  Epilogue e;
  e.last = id;
  const std::optional<int64_t> columns = Columns(editor, *p);
  const ValueId y = editor.node(id).outputs[0];
  if (p->c.valid() && p->beta != 0) {
    if (!columns) return;
    e.bias = AsBias(editor, p->c, *columns, 2, p->beta, y);
    if (!e.bias.valid()) {
      if (p->beta != 1 || !editor.SameShape(p->c, y)) return;
      e.residual = p->c;
    }
  }
  Collect(editor, *p, e, columns);
  Node fused;
  fused.op = "MatMul";
  fused.domain = kPlexusDomain;
  fused.version = 1;
  fused.name = editor.node(id).name;
  fused.fusion_group = editor.node(id).fusion_group;
  fused.attributes["trans_a"] = int64_t{p->trans_a};
  fused.attributes["trans_b"] = int64_t{p->trans_b};
  fused.attributes["alpha"] = p->alpha;
  if (auto activation = MatchActivation(editor, editor.node(e.last).outputs[0])) {
    e.last = activation->last;
    SetActivation(fused, std::move(*activation));
  }
  fused.inputs = {p->a, p->b};
  if (e.bias.valid() || e.residual.valid()) fused.inputs.push_back(e.bias);
  if (e.residual.valid()) fused.inputs.push_back(e.residual);
  fused.outputs = {editor.node(e.last).outputs[0]};
  editor.Replace(e.last, std::move(fused));
}

}  // namespace

void RunFuseMatMulEpilogue(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (editor.IsAlive(id)) FuseProduct(editor, id);
  }
}

}  // namespace plexus
