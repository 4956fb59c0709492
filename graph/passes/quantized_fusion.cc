// DequantizeLinear → float operator → QuantizeLinear becomes one quantised operator. Every rewrite
// keeps the arithmetic of the written graph: a QuantizeLinear/DequantizeLinear pair between two
// operators is a rounding the model's author asked for, so no fusion reaches across one.
#include <algorithm>
#include <cmath>
#include <limits>

#include "graph/passes/fused_ops.h"
#include "graph/passes/pattern.h"

namespace plexus {
namespace {

// real = scale·(q − zero_point).
struct Quantised {
  ValueId q, scale, zero_point;  // zero_point may be invalid: 0
  int64_t axis = 1;
};

bool IsByte(DType dtype) { return dtype == DType::kUint8 || dtype == DType::kInt8; }

std::optional<Quantised> TakeDequantized(const GraphEditor& editor, ValueId v) {
  const Node* n = editor.Producer(v, "DequantizeLinear");
  if (n == nullptr || n->inputs.size() < 2 || n->IntAttr("block_size", 0) != 0) return std::nullopt;
  if (!editor.IsConstant(n->inputs[1]) || !editor.IsFloat32(n->inputs[1])) return std::nullopt;
  Quantised out{n->inputs[0], n->inputs[1], ValueId(), n->IntAttr("axis", 1)};
  if (n->inputs.size() > 2 && n->inputs[2].valid()) {
    if (!editor.IsConstant(n->inputs[2])) return std::nullopt;
    out.zero_point = n->inputs[2];
  }
  return out;
}

bool IsPerTensor(const GraphEditor& editor, const Quantised& x) {
  return editor.value(x.scale).constant->num_elements() == 1 &&
         (!x.zero_point.valid() || editor.value(x.zero_point).constant->num_elements() == 1);
}

// An activation operand: 8 bits, one scale.
std::optional<Quantised> TakeActivationOperand(const GraphEditor& editor, ValueId v) {
  auto x = TakeDequantized(editor, v);
  if (!x || !IsByte(editor.value(x->q).dtype) || !IsPerTensor(editor, *x)) return std::nullopt;
  return x;
}

// Weights with one scale per tensor, or one per index of `axis`.
std::optional<Quantised> TakeWeight(const GraphEditor& editor, ValueId v, int64_t axis) {
  auto w = TakeDequantized(editor, v);
  if (!w || !IsByte(editor.value(w->q).dtype)) return std::nullopt;
  if (IsPerTensor(editor, *w)) return w;
  if (!editor.HasShape(w->q)) return std::nullopt;
  const Shape shape = editor.GetShape(w->q);
  const int64_t rank = static_cast<int64_t>(shape.size());
  if ((w->axis < 0 ? w->axis + rank : w->axis) != axis || axis >= rank) return std::nullopt;
  if (editor.value(w->scale).constant->shape() != Shape{shape[axis]}) return std::nullopt;
  return w;
}

// The int32 bias in units of x_scale·w_scale for a float constant or a dequantised int32 one. An
// invalid id when it is neither or does not fit.
ValueId TakeBias(GraphEditor& editor, ValueId v, const Quantised& x, const Quantised& w,
                 int64_t channels, ValueId y) {
  const Tensor x_scale = editor.ConstantTensor(x.scale);
  const Tensor w_scale = editor.ConstantTensor(w.scale);
  if (!x_scale.defined() || !w_scale.defined()) return ValueId();
  Result<Tensor> bias = Tensor::Allocate(DType::kInt32, {channels});
  if (!bias.ok()) return ValueId();
  Tensor real, quantised, own_scale;
  if (editor.IsConstant(v) && editor.IsFloat32(v)) {
    real = editor.ConstantTensor(v);
  } else if (const auto q = TakeDequantized(editor, v)) {
    if (editor.value(q->q).dtype != DType::kInt32 || !editor.IsConstant(q->q)) return ValueId();
    if (q->zero_point.valid()) {
      const auto zero = editor.Ints(q->zero_point);
      if (!zero || std::any_of(zero->begin(), zero->end(), [](int64_t z) { return z != 0; })) {
        return ValueId();
      }
    }
    quantised = editor.ConstantTensor(q->q);
    own_scale = editor.ConstantTensor(q->scale);
    if (!own_scale.defined() ||
        (own_scale.num_elements() != 1 && own_scale.num_elements() != channels)) {
      return ValueId();
    }
  }
  const Tensor& source = real.defined() ? real : quantised;
  if (!source.defined() || source.num_elements() != channels ||
      (!source.shape().empty() && source.shape().back() != channels)) {
    return ValueId();
  }
  const auto at = [](const Tensor& t, int64_t i) {
    return static_cast<double>(t.data<float>()[t.num_elements() == 1 ? 0 : i]);
  };
  for (int64_t c = 0; c < channels; ++c) {
    const double unit = at(x_scale, 0) * at(w_scale, c);
    const double value =
        real.defined() ? at(real, c) : quantised.data<int32_t>()[c] * at(own_scale, c);
    const double steps = std::nearbyint(value / unit);
    if (!(std::fabs(steps) <= std::numeric_limits<int32_t>::max())) return ValueId();
    bias->mutable_data<int32_t>()[c] = static_cast<int32_t>(steps);
  }
  return editor.NewConstant(std::move(*bias), editor.value(y).name, "bias");
}

// What follows a quantised product.
struct Epilogue {
  std::optional<Quantised> residual;
  std::optional<Activation> activation;
  std::optional<Quantised> output;
  NodeId last;
};

// The only reader of v is QuantizeLinear to 8 bits with one constant scale.
std::optional<Quantised> TakeQuantize(GraphEditor& editor, ValueId v, NodeId* id) {
  *id = editor.OnlyReader(v);
  if (!id->valid() || !IsOp(editor.node(*id), "QuantizeLinear")) return std::nullopt;
  const Node& n = editor.node(*id);
  if (n.inputs.size() < 2 || n.inputs[0] != v || n.IntAttr("block_size", 0) != 0 ||
      !editor.IsConstant(n.inputs[1]) || !editor.IsFloat32(n.inputs[1])) {
    return std::nullopt;
  }
  const ValueId out = n.outputs[0];
  Quantised q{out, n.inputs[1], ValueId(), 1};
  if (n.inputs.size() > 2 && n.inputs[2].valid()) {
    if (!editor.IsConstant(n.inputs[2])) return std::nullopt;
    q.zero_point = n.inputs[2];
  }
  const int64_t to = n.IntAttr("output_dtype", 0);
  const DType type = q.zero_point.valid() ? editor.value(q.zero_point).dtype
                     : to != 0            ? static_cast<DType>(to)
                                          : DType::kUint8;
  if (!IsByte(type) || !IsPerTensor(editor, q)) return std::nullopt;
  if (!q.zero_point.valid()) {  // the type must be told
    q.zero_point = editor.NewConstant(Tensor::Of<uint8_t>(type, {}, {0}), editor.value(out).name,
                                      "zero_point");
  }
  return q;
}

Epilogue CollectEpilogue(GraphEditor& editor, NodeId id) {
  Epilogue e;
  e.last = id;
  ValueId y = editor.node(id).outputs[0];
  const NodeId add_id = editor.OnlyReader(y);
  if (add_id.valid() && IsOp(editor.node(add_id), "Add")) {
    const Node& add = editor.node(add_id);
    const ValueId other = add.inputs[add.inputs[0] == y ? 1 : 0];
    if (auto residual = TakeActivationOperand(editor, other);
        residual && editor.SameShape(other, y)) {
      e.residual = residual;
      e.last = add_id;
      y = add.outputs[0];
    }
  }
  if (auto activation = MatchActivation(editor, y)) {
    e.last = activation->last;
    y = editor.node(e.last).outputs[0];
    e.activation = std::move(activation);
  }
  NodeId quantize;
  if (auto output = TakeQuantize(editor, y, &quantize)) {
    e.output = output;
    e.last = quantize;
  }
  return e;
}

void PushOperand(Node& n, const Quantised& x) {
  n.inputs.insert(n.inputs.end(), {x.q, x.scale, x.zero_point});
}

void FinishProduct(GraphEditor& editor, Node fused, const Quantised& x, const Quantised& w,
                   ValueId bias, Epilogue e) {
  fused.domain = kPlexusDomain;
  fused.version = 1;
  fused.inputs.clear();
  PushOperand(fused, x);
  PushOperand(fused, w);
  fused.inputs.resize(9);
  if (e.output) {
    fused.inputs[6] = e.output->scale;
    fused.inputs[7] = e.output->zero_point;
  }
  fused.inputs[8] = bias;
  if (e.residual) PushOperand(fused, *e.residual);
  while (!fused.inputs.back().valid()) fused.inputs.pop_back();
  if (e.activation) SetActivation(fused, std::move(*e.activation));
  fused.outputs = {editor.node(e.last).outputs[0]};
  editor.Replace(e.last, std::move(fused));
}

void FuseConvAt(GraphEditor& editor, NodeId id) {
  const Node& conv = editor.node(id);
  const auto x = TakeActivationOperand(editor, conv.inputs[0]);
  const auto w = TakeWeight(editor, conv.inputs[1], 0);
  if (!x || !w || !editor.HasShape(w->q)) return;
  const int64_t channels = editor.GetShape(w->q)[0];
  ValueId bias;
  if (conv.inputs.size() > 2 && conv.inputs[2].valid()) {
    bias = TakeBias(editor, conv.inputs[2], *x, *w, channels, conv.outputs[0]);
    if (!bias.valid()) return;
  }
  Epilogue e = CollectEpilogue(editor, id);
  Node fused = editor.node(id);
  fused.op = "QConv";
  FinishProduct(editor, std::move(fused), *x, *w, bias, std::move(e));
}

void FuseProductAt(GraphEditor& editor, NodeId id) {
  const Node& product = editor.node(id);
  const bool gemm = product.op == "Gemm";
  const bool trans_a = product.IntAttr("transA", 0) != 0;
  const bool trans_b = product.IntAttr("transB", 0) != 0;
  if (gemm && (product.FloatAttr("alpha", 1) != 1 || product.FloatAttr("beta", 1) != 1)) return;
  const auto a = TakeActivationOperand(editor, product.inputs[0]);
  if (!a || !editor.HasShape(product.inputs[1])) return;
  const Shape b_shape = editor.GetShape(product.inputs[1]);
  const int64_t b_rank = static_cast<int64_t>(b_shape.size());
  const std::optional<int64_t> a_rank = editor.Rank(product.inputs[0]);
  if (b_rank < 2 || !a_rank || *a_rank < 2) return;
  const int64_t column_axis = b_rank - (trans_b ? 2 : 1);
  const auto b = TakeWeight(editor, product.inputs[1], column_axis);
  if (!b || (b_rank > 2 && !IsPerTensor(editor, *b))) return;
  const int64_t columns = b_shape[column_axis];
  ValueId bias;
  if (gemm && product.inputs.size() > 2 && product.inputs[2].valid()) {
    bias = TakeBias(editor, product.inputs[2], *a, *b, columns, product.outputs[0]);
    if (!bias.valid()) return;
  }
  NodeId last = id;
  const ValueId y = product.outputs[0];
  const NodeId add_id = editor.OnlyReader(y);
  if (!bias.valid() && add_id.valid() && IsOp(editor.node(add_id), "Add")) {
    const Node& add = editor.node(add_id);
    const ValueId other = add.inputs[add.inputs[0] == y ? 1 : 0];
    if (editor.HasShape(other) && editor.GetShape(other) == Shape{columns}) {
      bias = TakeBias(editor, other, *a, *b, columns, y);
      if (bias.valid()) last = add_id;
    }
  }
  Epilogue e = CollectEpilogue(editor, last);
  Node fused;
  fused.name = editor.node(id).name;
  fused.fusion_group = editor.node(id).fusion_group;
  fused.op = "QMatMul";
  fused.attributes["trans_a"] = int64_t{trans_a};
  fused.attributes["trans_b"] = int64_t{trans_b};
  FinishProduct(editor, std::move(fused), *a, *b, bias, std::move(e));
}

void FuseAddAt(GraphEditor& editor, NodeId id) {
  const Node& add = editor.node(id);
  const auto a = TakeActivationOperand(editor, add.inputs[0]);
  const auto b = TakeActivationOperand(editor, add.inputs[1]);
  if (!a || !b) return;
  Epilogue e;
  ValueId y = add.outputs[0];
  e.activation = MatchActivation(editor, y);
  if (e.activation) y = editor.node(e.activation->last).outputs[0];
  e.output = TakeQuantize(editor, y, &e.last);
  if (!e.output) return;
  Node fused;
  fused.op = "QAdd";
  fused.domain = kPlexusDomain;
  fused.version = 1;
  fused.name = editor.node(id).name;
  fused.fusion_group = editor.node(id).fusion_group;
  PushOperand(fused, *a);
  PushOperand(fused, *b);
  fused.inputs.push_back(e.output->scale);
  fused.inputs.push_back(e.output->zero_point);
  if (e.activation) SetActivation(fused, std::move(*e.activation));
  fused.outputs = {e.output->q};
  editor.Replace(e.last, std::move(fused));
}

bool SameConstant(const GraphEditor& editor, ValueId a, ValueId b) {
  if (a == b) return true;
  if (!editor.IsConstant(a) || !editor.IsConstant(b)) return false;
  return editor.value(a).constant == editor.value(b).constant;
}

// Operators that only move or pick elements run on the quantised ones when the scales agree.
void PassThrough(GraphEditor& editor, NodeId id) {
  static constexpr std::string_view kOps[] = {"MaxPool",   "Flatten", "Reshape", "Transpose",
                                              "Unsqueeze", "Squeeze", "Slice",   "Identity"};
  const Node& n = editor.node(id);
  if (!n.domain.empty() || std::find(std::begin(kOps), std::end(kOps), n.op) == std::end(kOps) ||
      n.outputs.size() != 1) {
    return;
  }
  const auto x = TakeActivationOperand(editor, n.inputs[0]);
  if (!x) return;
  NodeId quantize;
  const auto y = TakeQuantize(editor, n.outputs[0], &quantize);
  if (!y || !SameConstant(editor, x->scale, y->scale)) return;
  const bool same_zero = x->zero_point.valid()
                             ? SameConstant(editor, x->zero_point, y->zero_point)
                             : editor.Ints(y->zero_point) == std::vector<int64_t>{0};
  if (!same_zero || editor.value(x->q).dtype != editor.value(y->zero_point).dtype) return;
  Node moved = editor.node(id);
  moved.version = std::max(moved.version, moved.op == "MaxPool" ? 12 : moved.version);
  moved.inputs[0] = x->q;
  moved.outputs = {y->q};
  editor.Replace(quantize, std::move(moved));
}

// ONNX's own quantised operators have the same operands in the same order.
void Rename(GraphEditor& editor, NodeId id) {
  const Node& n = editor.node(id);
  for (size_t i : {1, 2, 4, 5, 6, 7}) {
    if (i >= n.inputs.size() || !editor.IsConstant(n.inputs[i])) return;
  }
  const bool conv = n.op == "QLinearConv";
  for (size_t i : {0, 3}) {
    if (!IsByte(editor.value(n.inputs[i]).dtype)) return;
    const std::optional<int64_t> rank = editor.Rank(n.inputs[i]);
    if (!conv && (!rank || *rank < 2)) return;
  }
  // Row-wise scales of a, and anything but one zero point for y, have no place in the fused form.
  for (size_t i : {1, 2, 6, 7}) {
    if (editor.value(n.inputs[i]).constant->num_elements() != 1) return;
  }
  if (!conv && editor.value(n.inputs[4]).constant->shape().size() > 1) return;
  Node fused = n;
  fused.op = conv ? "QConv" : "QMatMul";
  fused.domain = kPlexusDomain;
  fused.version = 1;
  if (!conv) fused.attributes["trans_a"] = fused.attributes["trans_b"] = int64_t{0};
  editor.Replace(id, std::move(fused));
}

}  // namespace

void RunFuseQuantized(GraphEditor& editor) {
  const size_t slots = editor.num_slots();
  for (size_t i = 0; i < slots; ++i) {
    const NodeId id(static_cast<uint32_t>(i));
    if (!editor.IsAlive(id)) continue;
    const Node& n = editor.node(id);
    if (IsOp(n, "Conv")) {
      FuseConvAt(editor, id);
    } else if (IsOp(n, "MatMul") || IsOp(n, "Gemm")) {
      FuseProductAt(editor, id);
    } else if (IsOp(n, "Add")) {
      FuseAddAt(editor, id);
    } else if (IsOp(n, "QLinearConv") || IsOp(n, "QLinearMatMul")) {
      Rename(editor, id);
    } else {
      PassThrough(editor, id);
    }
  }
}

}  // namespace plexus
