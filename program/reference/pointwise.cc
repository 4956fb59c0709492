#include "program/reference/pointwise.h"

#include <algorithm>
#include <cmath>

namespace plexus::reference {
namespace {

float Sigmoid(float x) {
  if (x >= 0) return 1 / (1 + std::exp(-x));
  const float e = std::exp(x);
  return e / (1 + e);
}
float Softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }
float Clip(float x, float low, float high) {
  const float raised = x < low ? low : x;
  return raised > high ? high : raised;
}
float LeakyRelu(float x, float alpha) { return x < 0 ? alpha * x : x; }
float HardSwish(float x) { return x * Clip(x / 6 + 0.5f, 0, 1); }

#define FN(name, operands, params, expression)                                           \
  {                                                                                      \
    name, operands, params,                                                              \
        []([[maybe_unused]] float x, [[maybe_unused]] float y, [[maybe_unused]] float z, \
           [[maybe_unused]] const float* p) -> float { return expression; }              \
  }

constexpr PointwiseFn kFunctions[] = {
    FN("Abs", 1, 0, std::fabs(x)),
    FN("Neg", 1, 0, -x),
    FN("Exp", 1, 0, std::exp(x)),
    FN("Log", 1, 0, std::log(x)),
    FN("Sqrt", 1, 0, std::sqrt(x)),
    FN("Reciprocal", 1, 0, 1 / x),
    FN("Erf", 1, 0, std::erf(x)),
    FN("Sigmoid", 1, 0, Sigmoid(x)),
    FN("Tanh", 1, 0, std::tanh(x)),
    FN("Sin", 1, 0, std::sin(x)),
    FN("Cos", 1, 0, std::cos(x)),
    FN("Floor", 1, 0, std::floor(x)),
    FN("Ceil", 1, 0, std::ceil(x)),
    FN("Round", 1, 0, std::nearbyint(x)),
    FN("Sign", 1, 0,
       x > 0   ? 1.0f
       : x < 0 ? -1.0f
               : x),
    FN("Relu", 1, 0, x < 0 ? 0.0f : x),
    FN("Softplus", 1, 0, Softplus(x)),
    FN("Softsign", 1, 0, x / (1 + std::fabs(x))),
    FN("HardSwish", 1, 0, HardSwish(x)),
    FN("Silu", 1, 0, x* Sigmoid(x)),
    FN("Gelu", 1, 0, 0.5f * x * (1 + std::erf(x * 0.70710678f))),
    FN("GeluTanh", 1, 0, 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)))),
    FN("Mish", 1, 0, x* std::tanh(Softplus(x))),
    FN("Not", 1, 0, x == 0 ? 1.0f : 0.0f),
    FN("LeakyRelu", 1, 1, LeakyRelu(x, p[0])),
    FN("Elu", 1, 1, x < 0 ? p[0] * std::expm1(x) : x),
    FN("Celu", 1, 1, std::max(0.0f, x) + std::min(0.0f, p[0] * std::expm1(x / p[0]))),
    FN("Selu", 1, 2, p[1] * (x < 0 ? p[0] * std::expm1(x) : x)),
    FN("ThresholdedRelu", 1, 1, x > p[0] ? x : 0.0f),
    FN("HardSigmoid", 1, 2, Clip(p[0] * x + p[1], 0, 1)),
    FN("Clip", 1, 2, Clip(x, p[0], p[1])),
    FN("LeakyReluClip", 1, 3, Clip(LeakyRelu(x, p[0]), p[1], p[2])),
    FN("HardSwishAffine", 1, 2, p[0] * HardSwish(x) + p[1]),
    FN("Add", 2, 0, x + y),
    FN("Sub", 2, 0, x - y),
    FN("Mul", 2, 0, x* y),
    FN("Div", 2, 0, x / y),
    FN("Pow", 2, 0, std::pow(x, y)),
    FN("Min", 2, 0, x != x || x < y ? x : y),
    FN("Max", 2, 0, x != x || x > y ? x : y),
    FN("PRelu", 2, 0, x < 0 ? y * x : x),
    FN("Equal", 2, 0, x == y ? 1.0f : 0.0f),
    FN("Less", 2, 0, x < y ? 1.0f : 0.0f),
    FN("LessOrEqual", 2, 0, x <= y ? 1.0f : 0.0f),
    FN("Greater", 2, 0, x > y ? 1.0f : 0.0f),
    FN("GreaterOrEqual", 2, 0, x >= y ? 1.0f : 0.0f),
    FN("And", 2, 0, x != 0 && y != 0 ? 1.0f : 0.0f),
    FN("Or", 2, 0, x != 0 || y != 0 ? 1.0f : 0.0f),
    FN("Xor", 2, 0, (x != 0) != (y != 0) ? 1.0f : 0.0f),
    FN("Where", 3, 0, x != 0 ? y : z),
};
#undef FN

}  // namespace

const PointwiseFn* FindPointwise(std::string_view name) {
  for (const PointwiseFn& fn : kFunctions) {
    if (fn.name == name) return &fn;
  }
  return nullptr;
}

Status ApplyActivation(const Node& node, Tensor& y) {
  const std::string name = node.StringAttr("activation", "");
  if (name.empty()) return OkStatus();
  const PointwiseFn* fn = FindPointwise(name);
  std::vector<float> params = node.FloatsAttr("activation_params");
  if (fn == nullptr || fn->operands != 1) {
    return UnimplementedError("activation '" + name + "'");
  }
  if (static_cast<int>(params.size()) < fn->params) {
    return InvalidArgumentError("activation '" + name + "' needs " + std::to_string(fn->params) +
                                " parameters");
  }
  params.resize(std::max<size_t>(3, params.size()));
  for (float& value : y.mutable_data<float>()) value = fn->apply(value, 0, 0, params.data());
  return OkStatus();
}

}  // namespace plexus::reference
