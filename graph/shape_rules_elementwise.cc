// Pointwise operators: the output's shape is the broadcast of the inputs' shapes.
#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

Status Unary(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  return OkStatus();
}

Status UnaryToBool(RuleContext& c) {
  c.Set(0, DType::kBool, c.ShapeOf(0));
  return OkStatus();
}

Status Broadcast(RuleContext& c, DType dtype) {
  c.Type(0, dtype);
  if (c.num_inputs() == 0) return c.Error("needs at least one input");
  std::optional<Shape> shape;
  PLEXUS_RETURN_IF_ERROR(BroadcastInputs(c, 0, c.num_inputs(), shape));
  if (shape) c.SetShape(0, std::move(*shape));
  return OkStatus();
}

Status SameTypes(const RuleContext& c, size_t first, size_t last) {
  for (size_t i = first + 1; i < last; ++i) {
    const DType a = c.TypeOf(first), b = c.TypeOf(i);
    if (a == DType::kUndefined || b == DType::kUndefined || a == b) continue;
    return c.Error("inputs of types " + std::string(DTypeName(a)) + " and " +
                   std::string(DTypeName(b)) + " do not match");
  }
  return OkStatus();
}

Status BroadcastSame(RuleContext& c) {
  PLEXUS_RETURN_IF_ERROR(SameTypes(c, 0, c.num_inputs()));
  return Broadcast(c, c.TypeOf(0));
}

Status Compare(RuleContext& c) {
  PLEXUS_RETURN_IF_ERROR(SameTypes(c, 0, c.num_inputs()));
  return Broadcast(c, DType::kBool);
}

Status BroadcastFirst(RuleContext& c) { return Broadcast(c, c.TypeOf(0)); }

Status Where(RuleContext& c) {
  if (c.num_inputs() != 3) return c.Error("needs three inputs");
  PLEXUS_RETURN_IF_ERROR(SameTypes(c, 1, 3));
  return Broadcast(c, c.TypeOf(1));
}

Status Cast(RuleContext& c) {
  c.Set(0, static_cast<DType>(c.node().IntAttr("to", 0)), c.ShapeOf(0));
  return OkStatus();
}

Status CastLike(RuleContext& c) {
  c.Set(0, c.TypeOf(1), c.ShapeOf(0));
  return OkStatus();
}

// Same size of element, other type.
Status BitCast(RuleContext& c) { return Cast(c); }

// x stays as it is; the slope must broadcast to it.
Status PRelu(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  const Shape* x = c.ShapeOf(0);
  const Shape* slope = c.ShapeOf(1);
  if (!x || !slope) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(const Shape out, BroadcastShapes(*x, *slope));
  if (out != *x) return c.Error("the slope does not broadcast to x");
  return OkStatus();
}

Status QuantizeLinear(RuleContext& c) {
  DType dtype = static_cast<DType>(c.node().IntAttr("output_dtype", 0));
  if (c.Has(2)) dtype = c.TypeOf(2);
  if (dtype == DType::kUndefined) dtype = DType::kUint8;
  c.Set(0, dtype, c.ShapeOf(0));
  return OkStatus();
}

Status DequantizeLinear(RuleContext& c) {
  DType dtype = static_cast<DType>(c.node().IntAttr("output_dtype", 0));
  if (dtype == DType::kUndefined) dtype = c.TypeOf(1);
  if (dtype == DType::kUndefined) dtype = DType::kFloat32;
  c.Set(0, dtype, c.ShapeOf(0));
  return OkStatus();
}

Status DynamicQuantizeLinear(RuleContext& c) {
  c.Set(0, DType::kUint8, c.ShapeOf(0));
  const Shape scalar;
  c.Set(1, DType::kFloat32, &scalar);
  c.Set(2, DType::kUint8, &scalar);
  return OkStatus();
}

Status Dropout(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  c.Set(1, c.node().version < 10 ? c.TypeOf(0) : DType::kBool, c.ShapeOf(0));
  return OkStatus();
}

Status Bernoulli(RuleContext& c) {
  const auto dtype = static_cast<DType>(c.node().IntAttr("dtype", 0));
  c.Set(0, dtype == DType::kUndefined ? c.TypeOf(0) : dtype, c.ShapeOf(0));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"Abs", Unary},
    {"Acos", Unary},
    {"Acosh", Unary},
    {"Asin", Unary},
    {"Asinh", Unary},
    {"Atan", Unary},
    {"Atanh", Unary},
    {"BitwiseNot", Unary},
    {"Ceil", Unary},
    {"Celu", Unary},
    {"Clip", Unary},
    {"Cos", Unary},
    {"Cosh", Unary},
    {"Elu", Unary},
    {"Erf", Unary},
    {"Exp", Unary},
    {"Floor", Unary},
    {"Gelu", Unary},
    {"HardSigmoid", Unary},
    {"HardSwish", Unary},
    {"Identity", Unary},
    {"LeakyRelu", Unary},
    {"Log", Unary},
    {"Mish", Unary},
    {"Neg", Unary},
    {"Not", UnaryToBool},
    {"Reciprocal", Unary},
    {"Relu", Unary},
    {"Round", Unary},
    {"Selu", Unary},
    {"Shrink", Unary},
    {"Sigmoid", Unary},
    {"Sign", Unary},
    {"Sin", Unary},
    {"Sinh", Unary},
    {"Softplus", Unary},
    {"Softsign", Unary},
    {"Sqrt", Unary},
    {"Swish", Unary},
    {"Tan", Unary},
    {"Tanh", Unary},
    {"ThresholdedRelu", Unary},
    {"IsInf", UnaryToBool},
    {"IsNaN", UnaryToBool},
    {"RegexFullMatch", UnaryToBool},
    {"Add", BroadcastSame},
    {"And", Compare},
    {"BitShift", BroadcastSame},
    {"BitwiseAnd", BroadcastSame},
    {"BitwiseOr", BroadcastSame},
    {"BitwiseXor", BroadcastSame},
    {"Div", BroadcastSame},
    {"Equal", Compare},
    {"Greater", Compare},
    {"GreaterOrEqual", Compare},
    {"Less", Compare},
    {"LessOrEqual", Compare},
    {"Max", BroadcastSame},
    {"Mean", BroadcastSame},
    {"Min", BroadcastSame},
    {"Mod", BroadcastSame},
    {"Mul", BroadcastSame},
    {"Or", Compare},
    {"Pow", BroadcastFirst},
    {"StringConcat", BroadcastSame},
    {"Sub", BroadcastSame},
    {"Sum", BroadcastSame},
    {"Xor", Compare},
    {"PRelu", PRelu},
    {"Where", Where},
    {"Cast", Cast},
    {"CastLike", CastLike},
    {"BitCast", BitCast},
    {"QuantizeLinear", QuantizeLinear},
    {"DequantizeLinear", DequantizeLinear},
    {"DynamicQuantizeLinear", DynamicQuantizeLinear},
    {"Dropout", Dropout},
    {"Bernoulli", Bernoulli},
};

}  // namespace

std::span<const RuleEntry> ElementwiseRules() { return kRules; }

}  // namespace plexus::shape_rules
