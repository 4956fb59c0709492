// Domain "plexus": fused operators (passes/fused_ops.h, passes/fused_ops.md) and pipeline glue.
#include <algorithm>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

// The residual joins the result before the activation: it must have the result's shape.
Status CheckResidual(const RuleContext& c, size_t i, const Shape& out) {
  const Shape* residual = c.ShapeOf(i);
  if (residual && *residual != out) {
    return c.Error("the residual is " + ShapeToString(*residual) + ", the result " +
                   ShapeToString(out));
  }
  return OkStatus();
}

Status ConvForm(RuleContext& c, size_t w_at, size_t residual_at, DType dtype) {
  c.Type(0, dtype);
  if (!c.ShapeOf(0) || !c.ShapeOf(w_at)) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(Shape out, ConvShape(c.node(), *c.ShapeOf(0), *c.ShapeOf(w_at)));
  PLEXUS_RETURN_IF_ERROR(CheckResidual(c, residual_at, out));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status MatMulForm(RuleContext& c, size_t b_at, size_t residual_at, DType dtype) {
  c.Type(0, dtype);
  if (!c.ShapeOf(0) || !c.ShapeOf(b_at)) return OkStatus();
  Shape a = *c.ShapeOf(0), b = *c.ShapeOf(b_at);
  if (c.node().IntAttr("trans_a", 0) != 0 && a.size() >= 2) std::swap(a.back(), a[a.size() - 2]);
  if (c.node().IntAttr("trans_b", 0) != 0 && b.size() >= 2) std::swap(b.back(), b[b.size() - 2]);
  PLEXUS_ASSIGN_OR_RETURN(Shape out, MatMulShape(std::move(a), std::move(b)));
  PLEXUS_RETURN_IF_ERROR(CheckResidual(c, residual_at, out));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// Quantised forms end in float32 when they carry no output scale.
DType QuantisedType(const RuleContext& c, size_t scale_at, size_t zero_point_at) {
  if (!c.Has(scale_at)) return DType::kFloat32;
  return c.Has(zero_point_at) ? c.TypeOf(zero_point_at) : DType::kUint8;
}

Status Conv(RuleContext& c) { return ConvForm(c, 1, 3, c.TypeOf(0)); }
Status QConv(RuleContext& c) { return ConvForm(c, 3, 9, QuantisedType(c, 6, 7)); }
Status MatMul(RuleContext& c) { return MatMulForm(c, 1, 3, c.TypeOf(0)); }
Status QMatMul(RuleContext& c) { return MatMulForm(c, 3, 9, QuantisedType(c, 6, 7)); }

Status QAdd(RuleContext& c) {
  c.Type(0, QuantisedType(c, 6, 7));
  if (!c.ShapeOf(0) || !c.ShapeOf(3)) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(Shape out, BroadcastShapes(*c.ShapeOf(0), *c.ShapeOf(3)));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Attention(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *q = c.ShapeOf(0), *k = c.ShapeOf(1), *v = c.ShapeOf(2);
  if (!q || !k || !v) return OkStatus();
  for (size_t i = 0; i < 3; ++i) PLEXUS_RETURN_IF_ERROR(c.WantRank(i, 4, 4));
  if ((*k)[3] != (*q)[3] || (*v)[2] != (*k)[2] || (*k)[0] != (*q)[0] || (*v)[0] != (*q)[0]) {
    return c.Error("q, k and v do not match");
  }
  c.SetShape(0, {(*q)[0], (*q)[1], (*q)[2], (*v)[3]});
  return OkStatus();
}

Status Elementwise(RuleContext& c) {
  c.Type(0, DType::kFloat32);
  std::optional<Shape> shape;
  PLEXUS_RETURN_IF_ERROR(BroadcastInputs(c, 0, c.num_inputs(), shape));
  if (shape) c.SetShape(0, std::move(*shape));
  return OkStatus();
}

// Every input holds as many rows; each output has rows times what the body makes of one.
Status MapRows(RuleContext& c) {
  const Graph* body = c.node().GraphAttr("body");
  if (!body) return c.Error("has no body");
  const size_t joined = body->outputs().size();
  const std::vector<int64_t> sized = c.node().IntsAttr("sizes");
  if (body->inputs().size() != c.num_inputs() || joined + sized.size() != c.num_outputs()) {
    return c.Error("the body does not match inputs and outputs");
  }
  std::optional<int64_t> rows;
  for (size_t i = 0; i < c.num_inputs(); ++i) {
    const Shape* x = c.ShapeOf(i);
    if (!x) continue;
    if (x->empty() || (rows && *rows != (*x)[0])) return c.Error("inputs differ in rows");
    rows = (*x)[0];
  }
  for (size_t i = joined; i < c.num_outputs(); ++i) {
    c.Type(i, DType::kInt64);
    if (rows) c.SetShape(i, {*rows});
  }
  for (size_t i = 0; i < joined; ++i) {
    const Value& made = body->value(body->outputs()[i]);
    c.Type(i, made.dtype);
    if (!rows || !made.shape.IsConcrete() || made.shape.dims.empty()) continue;
    Shape out = made.shape.ToConcrete();
    if (__builtin_mul_overflow(out[0], *rows, &out[0])) return c.Error("too many rows");
    c.SetShape(i, std::move(out));
  }
  return OkStatus();
}

// Its inputs themselves, of as many rows as each other and at most "limit".
Status FanOut(RuleContext& c) {
  const int64_t limit = c.node().IntAttr("limit", INT64_MAX);
  std::optional<int64_t> rows;
  for (size_t i = 0; i < c.num_inputs() && i < c.num_outputs(); ++i) {
    c.Type(i, c.TypeOf(i));
    const Shape* x = c.ShapeOf(i);
    if (!x) continue;
    const int64_t length = x->empty() ? 0 : (*x)[0];
    if (rows && *rows != length) {
      return InvalidArgumentError("its inputs differ in length: " + std::to_string(*rows) +
                                  " and " + std::to_string(length));
    }
    if (length > limit) {
      return InvalidArgumentError(std::to_string(length) + " elements, its limit is " +
                                  std::to_string(limit));
    }
    rows = length;
    c.SetShape(i, *x);
  }
  return OkStatus();
}

// x: [..., n, ...] to [..., windows, size, ...], `windows` in place of the axis.
Status Window(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(c.node().IntAttr("axis", 0),
                                                            static_cast<int64_t>(x->size())));
  const int64_t size = c.node().IntAttr("size", 0), step = c.node().IntAttr("step", 1);
  if (size < 1 || step < 1) return c.Error("size and step must be positive");
  Shape out = *x;
  out[axis] = (*x)[axis] < size ? 0 : ((*x)[axis] - size) / step + 1;
  out.insert(out.begin() + axis + 1, size);
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// x: [n, ...] to [max(n, size), ...].
Status PadTo(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  if (x->empty()) return c.Error("a scalar has no axis to fill");
  Shape out = *x;
  out[0] = std::max(out[0], c.node().IntAttr("size", 0));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"Conv", Conv},           {"MatMul", MatMul},
    {"Attention", Attention}, {"Elementwise", Elementwise},
    {"QConv", QConv},         {"QMatMul", QMatMul},
    {"QAdd", QAdd},           {"MapRows", MapRows},
    {"Window", Window},       {"PadTo", PadTo},
    {"FanOut", FanOut},
};

}  // namespace

std::span<const RuleEntry> PlexusRules() { return kRules; }

}  // namespace plexus::shape_rules
