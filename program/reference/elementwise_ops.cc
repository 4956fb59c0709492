// Operators that map one tensor element by element.
#include <cmath>
#include <cstring>
#include <limits>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// y[i] = f(x[i]) in the compute type T, stored back in x's type.
template <typename T, typename F>
Status MapAs(OpContext& ctx, F f) {
  const Tensor& x = ctx.Input(0);
  const DType compute = ComputeType(x.dtype());
  PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(x, compute));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(compute, x.shape()));
  const T* in = wide.data<T>().data();
  T* out = y.mutable_data<T>().data();
  for (int64_t i = 0; i < x.num_elements(); ++i) out[i] = f(in[i]);
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, x.dtype()));
  return OkStatus();
}

template <typename F>
Status MapFloat(OpContext& ctx, F f) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  return VisitFloat(ComputeType(ctx.Input(0).dtype()), [&]<typename T>(T) {
    return MapAs<T>(ctx, [&](T x) { return static_cast<T>(f(x)); });
  });
}

template <typename F>
Status MapNumeric(OpContext& ctx, F f) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  return VisitCompute(ComputeType(ctx.Input(0).dtype()), [&]<typename T>(T) {
    return MapAs<T>(ctx, [&](T x) { return static_cast<T>(f(x)); });
  });
}

template <typename T>
T Negate(T x) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<T>(uint64_t{0} - static_cast<uint64_t>(x));
  return -x;
}

template <typename T>
T Sigmoid(T x) {
  // The exponent's argument is never positive, so that it cannot overflow.
  if (x >= 0) return T(1) / (T(1) + std::exp(-x));
  const T e = std::exp(x);
  return e / (T(1) + e);
}

template <typename T>
T Softplus(T x) {
  return std::max(x, T(0)) + std::log1p(std::exp(-std::fabs(x)));
}

template <typename T>
T RoundToEven(T x) {
  return std::nearbyint(x);  // the default rounding mode is to nearest even
}

// --- Plain functions -----------------------------------------------------------------------------

#define PLEXUS_FLOAT_OP(Name, expression)                    \
  Status Name##Op(OpContext& ctx) {                          \
    return MapFloat(ctx, [](auto x) { return expression; }); \
  }
PLEXUS_FLOAT_OP(Acos, std::acos(x))
PLEXUS_FLOAT_OP(Acosh, std::acosh(x))
PLEXUS_FLOAT_OP(Asin, std::asin(x))
PLEXUS_FLOAT_OP(Asinh, std::asinh(x))
PLEXUS_FLOAT_OP(Atan, std::atan(x))
PLEXUS_FLOAT_OP(Atanh, std::atanh(x))
PLEXUS_FLOAT_OP(Ceil, std::ceil(x))
PLEXUS_FLOAT_OP(Cos, std::cos(x))
PLEXUS_FLOAT_OP(Cosh, std::cosh(x))
PLEXUS_FLOAT_OP(Erf, std::erf(x))
PLEXUS_FLOAT_OP(Exp, std::exp(x))
PLEXUS_FLOAT_OP(Floor, std::floor(x))
PLEXUS_FLOAT_OP(Log, std::log(x))
PLEXUS_FLOAT_OP(Mish, x* std::tanh(Softplus(x)))
PLEXUS_FLOAT_OP(Reciprocal, 1 / x)
PLEXUS_FLOAT_OP(Round, RoundToEven(x))
PLEXUS_FLOAT_OP(Sigmoid, Sigmoid(x))
PLEXUS_FLOAT_OP(Sin, std::sin(x))
PLEXUS_FLOAT_OP(Sinh, std::sinh(x))
PLEXUS_FLOAT_OP(Softplus, Softplus(x))
PLEXUS_FLOAT_OP(Softsign, x / (1 + std::fabs(x)))
PLEXUS_FLOAT_OP(Sqrt, std::sqrt(x))
PLEXUS_FLOAT_OP(Tan, std::tan(x))
PLEXUS_FLOAT_OP(Tanh, std::tanh(x))
#undef PLEXUS_FLOAT_OP

Status AbsOp(OpContext& ctx) {
  return MapNumeric(ctx, []<typename T>(T x) {
    if constexpr (std::is_floating_point_v<T>) return std::fabs(x);
    if constexpr (std::is_signed_v<T>) return x < 0 ? Negate(x) : x;
    return x;
  });
}

Status NegOp(OpContext& ctx) {
  return MapNumeric(ctx, [](auto x) { return Negate(x); });
}

Status SignOp(OpContext& ctx) {
  return MapNumeric(ctx, []<typename T>(T x) {
    if (x != x) return x;  // NaN stays NaN
    return static_cast<T>(static_cast<T>(x > 0) - static_cast<T>(x < 0));
  });
}

Status ReluOp(OpContext& ctx) {
  return MapNumeric(ctx, []<typename T>(T x) { return x < T(0) ? T(0) : x; });
}

// --- Functions with attributes
// ---------------------------------------------------------------------

Status LeakyReluOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 0.01f);
  return MapFloat(ctx, [=](auto x) { return x < 0 ? alpha * x : x; });
}

Status EluOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 1.0f);
  return MapFloat(ctx, [=](auto x) { return x < 0 ? alpha * std::expm1(x) : x; });
}

Status CeluOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 1.0f);
  return MapFloat(ctx, [=]<typename T>(T x) {
    return std::max(T(0), x) + std::min(T(0), static_cast<T>(alpha * std::expm1(x / alpha)));
  });
}

Status SeluOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 1.67326319217681884765625f);
  const float gamma = ctx.node.FloatAttr("gamma", 1.05070102214813232421875f);
  return MapFloat(ctx, [=](auto x) { return gamma * (x < 0 ? alpha * std::expm1(x) : x); });
}

Status HardSigmoidOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 0.2f);
  const float beta = ctx.node.FloatAttr("beta", 0.5f);
  return MapFloat(
      ctx, [=]<typename T>(T x) { return std::max(T(0), std::min(T(1), T(alpha) * x + T(beta))); });
}

Status HardSwishOp(OpContext& ctx) {
  return MapFloat(
      ctx, []<typename T>(T x) { return x * std::max(T(0), std::min(T(1), x / T(6) + T(0.5))); });
}

Status SwishOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 1.0f);
  return MapFloat(ctx, [=]<typename T>(T x) { return x * Sigmoid(T(alpha) * x); });
}

Status ThresholdedReluOp(OpContext& ctx) {
  const float alpha = ctx.node.FloatAttr("alpha", 1.0f);
  return MapFloat(ctx, [=]<typename T>(T x) { return x > alpha ? x : T(0); });
}

Status GeluOp(OpContext& ctx) {
  const std::string approximate = ctx.node.StringAttr("approximate", "none");
  if (approximate == "tanh") {
    return MapFloat(ctx, []<typename T>(T x) {
      const T inner = T(0.7978845608028654) * (x + T(0.044715) * x * x * x);
      return T(0.5) * x * (T(1) + std::tanh(inner));
    });
  }
  if (approximate != "none") {
    return InvalidArgumentError("attribute 'approximate' is '" + approximate + "'");
  }
  return MapFloat(ctx, []<typename T>(T x) {
    return T(0.5) * x * (T(1) + std::erf(x * T(0.7071067811865476)));
  });
}

Status ShrinkOp(OpContext& ctx) {
  const double bias = ctx.node.FloatAttr("bias", 0.0f);
  const double lambd = ctx.node.FloatAttr("lambd", 0.5f);
  return MapNumeric(ctx, [=]<typename T>(T x) {
    const double value = static_cast<double>(x);
    if (value < -lambd) return static_cast<T>(value + bias);
    if (value > lambd) return static_cast<T>(value - bias);
    return T(0);
  });
}

Status ClipBetween(OpContext& ctx, const Tensor& low, const Tensor& high) {
  const DType compute = ComputeType(ctx.Input(0).dtype());
  return VisitCompute(compute, [&]<typename T>(T) -> Status {
    T bounds[2] = {std::numeric_limits<T>::lowest(), std::numeric_limits<T>::max()};
    if constexpr (std::is_floating_point_v<T>) {
      bounds[0] = -std::numeric_limits<T>::infinity();
      bounds[1] = std::numeric_limits<T>::infinity();
    }
    const Tensor* given[2] = {&low, &high};
    for (int i = 0; i < 2; ++i) {
      if (!given[i]->defined()) continue;
      if (given[i]->num_elements() != 1) return InvalidArgumentError("a bound is not a scalar");
      PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(*given[i], compute));
      bounds[i] = wide.data<T>()[0];
    }
    // max before min: where the bounds cross, the upper one wins.
    return MapAs<T>(ctx, [&](T x) {
      const T raised = x < bounds[0] ? bounds[0] : x;
      return raised > bounds[1] ? bounds[1] : raised;
    });
  });
}

Status ClipOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  return ClipBetween(ctx, ctx.Input(1), ctx.Input(2));
}

// Before opset 11 the bounds are attributes.
Status ClipOp6(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  Tensor low, high;
  if (ctx.node.HasAttr("min")) low = Tensor::Scalar(ctx.node.FloatAttr("min", 0));
  if (ctx.node.HasAttr("max")) high = Tensor::Scalar(ctx.node.FloatAttr("max", 0));
  return ClipBetween(ctx, low, high);
}

// --- Tests and bits ----------------------------------------------------------------------------

template <typename F>
Status TestFloat(OpContext& ctx, F test) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (!IsFloatLike(x.dtype())) return InvalidArgumentError("needs a floating point type");
  PLEXUS_ASSIGN_OR_RETURN(Tensor wide, AsFloat64(x));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kBool, x.shape()));
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    y.mutable_data<uint8_t>()[i] = test(wide.data<double>()[i]);
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status IsNaNOp(OpContext& ctx) {
  return TestFloat(ctx, [](double x) { return std::isnan(x); });
}

Status IsInfOp(OpContext& ctx) {
  const bool positive = ctx.node.IntAttr("detect_positive", 1) != 0;
  const bool negative = ctx.node.IntAttr("detect_negative", 1) != 0;
  return TestFloat(ctx, [=](double x) { return std::isinf(x) && (x > 0 ? positive : negative); });
}

Status NotOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.dtype() != DType::kBool) return InvalidArgumentError("needs bool");
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kBool, x.shape()));
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    y.mutable_data<uint8_t>()[i] = x.data<uint8_t>()[i] == 0;
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status BitwiseNotOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  if (!IsInteger(ctx.Input(0).dtype())) return InvalidArgumentError("needs an integer type");
  return MapNumeric(ctx, []<typename T>(T x) {
    if constexpr (std::is_integral_v<T>) return static_cast<T>(~x);
    return x;
  });
}

constexpr OpEntry kOps[] = {
    {"", "Abs", 6, kLatest, AbsOp},
    {"", "Acos", 7, kLatest, AcosOp},
    {"", "Acosh", 9, kLatest, AcoshOp},
    {"", "Asin", 7, kLatest, AsinOp},
    {"", "Asinh", 9, kLatest, AsinhOp},
    {"", "Atan", 7, kLatest, AtanOp},
    {"", "Atanh", 9, kLatest, AtanhOp},
    {"", "BitwiseNot", 18, kLatest, BitwiseNotOp},
    {"", "Ceil", 6, kLatest, CeilOp},
    {"", "Celu", 12, kLatest, CeluOp},
    {"", "Clip", 6, 11, ClipOp6},
    {"", "Clip", 11, kLatest, ClipOp},
    {"", "Cos", 7, kLatest, CosOp},
    {"", "Cosh", 9, kLatest, CoshOp},
    {"", "Elu", 6, kLatest, EluOp},
    {"", "Erf", 9, kLatest, ErfOp},
    {"", "Exp", 6, kLatest, ExpOp},
    {"", "Floor", 6, kLatest, FloorOp},
    {"", "Gelu", 20, kLatest, GeluOp},
    {"", "HardSigmoid", 6, kLatest, HardSigmoidOp},
    {"", "HardSwish", 14, kLatest, HardSwishOp},
    {"", "IsInf", 10, kLatest, IsInfOp},
    {"", "IsNaN", 9, kLatest, IsNaNOp},
    {"", "LeakyRelu", 6, kLatest, LeakyReluOp},
    {"", "Log", 6, kLatest, LogOp},
    {"", "Mish", 18, kLatest, MishOp},
    {"", "Neg", 6, kLatest, NegOp},
    {"", "Not", 1, kLatest, NotOp},
    {"", "Reciprocal", 6, kLatest, ReciprocalOp},
    {"", "Relu", 6, kLatest, ReluOp},
    {"", "Round", 11, kLatest, RoundOp},
    {"", "Selu", 6, kLatest, SeluOp},
    {"", "Shrink", 9, kLatest, ShrinkOp},
    {"", "Sigmoid", 6, kLatest, SigmoidOp},
    {"", "Sign", 9, kLatest, SignOp},
    {"", "Sin", 7, kLatest, SinOp},
    {"", "Sinh", 9, kLatest, SinhOp},
    {"", "Softplus", 1, kLatest, SoftplusOp},
    {"", "Softsign", 1, kLatest, SoftsignOp},
    {"", "Sqrt", 6, kLatest, SqrtOp},
    {"", "Swish", 24, kLatest, SwishOp},
    {"", "Tan", 7, kLatest, TanOp},
    {"", "Tanh", 6, kLatest, TanhOp},
    {"", "ThresholdedRelu", 10, kLatest, ThresholdedReluOp},
};

}  // namespace

std::span<const OpEntry> ElementwiseOps() { return kOps; }

}  // namespace plexus::reference
