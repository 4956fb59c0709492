#include "device/cpu/kernels/elementwise_program.h"

#include <algorithm>
#include <array>
#include <limits>

namespace plexus::cpu {

namespace {

struct StepName {
  std::string_view name;
  int arity;
  double cost;
};

// In the order of StepOp.
constexpr std::array<StepName, kNumStepOps> kStepNames = {{
    {"Abs", 1, 4},
    {"Neg", 1, 4},
    {"Exp", 1, 40},
    {"Log", 1, 50},
    {"Sqrt", 1, 20},
    {"Reciprocal", 1, 20},
    {"Erf", 1, 60},
    {"Sigmoid", 1, 50},
    {"Tanh", 1, 60},
    {"Sin", 1, 600},
    {"Cos", 1, 600},
    {"Floor", 1, 4},
    {"Ceil", 1, 4},
    {"Round", 1, 4},
    {"Sign", 1, 4},
    {"Relu", 1, 4},
    {"Softplus", 1, 120},
    {"Softsign", 1, 20},
    {"HardSwish", 1, 6},
    {"Silu", 1, 50},
    {"Gelu", 1, 60},
    {"GeluTanh", 1, 60},
    {"Mish", 1, 180},
    {"Not", 1, 4},
    {"LeakyRelu", 1, 4},
    {"Elu", 1, 50},
    {"Celu", 1, 60},
    {"Selu", 1, 50},
    {"ThresholdedRelu", 1, 4},
    {"HardSigmoid", 1, 6},
    {"Clip", 1, 4},
    {"Add", 2, 4},
    {"Sub", 2, 4},
    {"Mul", 2, 4},
    {"Div", 2, 20},
    {"Pow", 2, 1000},
    {"Min", 2, 4},
    {"Max", 2, 4},
    {"PRelu", 2, 4},
    {"Equal", 2, 4},
    {"Less", 2, 4},
    {"LessOrEqual", 2, 4},
    {"Greater", 2, 4},
    {"GreaterOrEqual", 2, 4},
    {"And", 2, 4},
    {"Or", 2, 4},
    {"Xor", 2, 4},
    {"Where", 3, 6},
    {"", 1, 4},
    {"", 2, 5},
    {"", 3, 5},
    {"", 3, 6},
}};

std::optional<StepOp> FindStep(std::string_view name) {
  for (size_t i = 0; i < kStepNames.size(); ++i) {
    if (!name.empty() && kStepNames[i].name == name) return static_cast<StepOp>(i);
  }
  return std::nullopt;
}

std::optional<float> ScalarOf(const LoweringContext& context, ValueId v) {
  if (!v.valid() || !context.IsConstant(v) || context.num_elements(v) != 1 ||
      context.dtype(v) != DType::kFloat32) {
    return std::nullopt;
  }
  auto contents = context.Contents(v);
  if (!contents.ok()) return std::nullopt;
  return contents->data<float>()[0];
}

Status ParseFused(const Node& node, PointwiseProgram& program) {
  const auto it = node.attributes.find("ops");
  const auto* names =
      it == node.attributes.end() ? nullptr : std::get_if<std::vector<std::string>>(&it->second);
  const std::vector<int64_t> args = node.IntsAttr("args");
  std::vector<float> params = node.FloatsAttr("params");
  if (names == nullptr || names->empty()) return InvalidArgumentError("attribute 'ops' is missing");
  if (params.empty()) params.resize(2 * names->size());
  if (args.size() != 3 * names->size() || params.size() != 2 * names->size()) {
    return InvalidArgumentError("ops, args and params differ in length");
  }
  for (size_t i = 0; i < names->size(); ++i) {
    const std::optional<StepOp> op = FindStep((*names)[i]);
    if (!op) return UnimplementedError("no kernel for step '" + (*names)[i] + "'");
    PointwiseStep step;
    step.op = *op;
    step.arity = kStepNames[static_cast<size_t>(*op)].arity;
    step.p0 = params[2 * i];
    step.p1 = params[2 * i + 1];
    for (int k = 0; k < step.arity; ++k) {
      const int64_t arg = args[3 * i + k];
      if (arg < 0 || arg >= program.inputs + static_cast<int64_t>(i)) {
        return InvalidArgumentError("step " + std::to_string(i) + " reads operand " +
                                    std::to_string(arg));
      }
      step.args[k] = static_cast<int>(arg);
    }
    program.steps.push_back(step);
  }
  return OkStatus();
}

// One ONNX operator; variadic Min, Max, Sum as a chain.
Status ParseSingle(const LoweringContext& context, const Node& node, PointwiseProgram& program) {
  std::string name = node.op == "Sum" ? "Add" : node.op;
  if (name == "Gelu" && node.StringAttr("approximate", "none") == "tanh") name = "GeluTanh";
  const std::optional<StepOp> op = FindStep(name);
  if (!op) return UnimplementedError("no kernel");
  PointwiseStep step;
  step.op = *op;
  step.arity = kStepNames[static_cast<size_t>(*op)].arity;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (name == "Clip") {
    float* bounds[] = {&step.p0, &step.p1};
    for (size_t i = 0; i < 2; ++i) {
      *bounds[i] = node.FloatAttr(i == 0 ? "min" : "max", i == 0 ? -kInfinity : kInfinity);
      const ValueId v = LoweringContext::In(node, i + 1);
      if (!v.valid()) continue;
      const std::optional<float> bound = ScalarOf(context, v);
      if (!bound) return UnimplementedError("bounds are not constant");
      *bounds[i] = *bound;
    }
    program.inputs = 1;
  } else if (name == "LeakyRelu") {
    step.p0 = node.FloatAttr("alpha", 0.01f);
  } else if (name == "Elu" || name == "Celu" || name == "ThresholdedRelu") {
    step.p0 = node.FloatAttr("alpha", 1.0f);
  } else if (name == "Selu") {
    step.p0 = node.FloatAttr("alpha", 1.67326319217681884765625f);
    step.p1 = node.FloatAttr("gamma", 1.05070102214813232421875f);
  } else if (name == "HardSigmoid") {
    step.p0 = node.FloatAttr("alpha", 0.2f);
    step.p1 = node.FloatAttr("beta", 0.5f);
  }
  const bool variadic = node.op == "Sum" || node.op == "Min" || node.op == "Max";
  if (variadic && program.inputs == 1) {
    step.op = StepOp::kCopy;
    step.arity = 1;
  } else if (!variadic && program.inputs != step.arity) {
    return InvalidArgumentError("wrong number of inputs");
  }
  for (int k = 0; k < step.arity; ++k) step.args[k] = k;
  program.steps.push_back(step);
  for (int i = 2; variadic && i < program.inputs; ++i) {
    step.args[0] = program.inputs + i - 2;
    step.args[1] = i;
    program.steps.push_back(step);
  }
  return OkStatus();
}

// Powers with a constant exponent that need no logarithm.
void SimplifyPowers(const LoweringContext& context, const Node& node, PointwiseProgram& program) {
  for (PointwiseStep& step : program.steps) {
    if (step.op != StepOp::kPow || step.args[1] >= program.inputs) continue;
    const std::optional<float> exponent = ScalarOf(context, node.inputs[step.args[1]]);
    if (!exponent) continue;
    if (*exponent == 2.0f) {
      step.op = StepOp::kMul;
      step.args[1] = step.args[0];
    } else if (*exponent == 1.0f || *exponent == -1.0f) {
      step.op = *exponent > 0 ? StepOp::kCopy : StepOp::kReciprocal;
      step.arity = 1;
    }
  }
}

// Joins Mul+Add and (Mul+)Add+Relu where the first result is read by the second step only.
void JoinSteps(PointwiseProgram& program) {
  const int n = program.inputs;
  std::vector<PointwiseStep>& steps = program.steps;
  std::vector<int> uses(steps.size(), 0);
  for (const PointwiseStep& step : steps) {
    for (int k = 0; k < step.arity; ++k) {
      if (step.args[k] >= n) ++uses[step.args[k] - n];
    }
  }
  std::vector<bool> gone(steps.size(), false);
  auto single = [&](int arg) -> PointwiseStep* {
    return arg >= n && uses[arg - n] == 1 ? &steps[arg - n] : nullptr;
  };
  for (PointwiseStep& step : steps) {
    if (step.op == StepOp::kAdd) {
      for (int k = 0; k < 2; ++k) {
        const PointwiseStep* product = single(step.args[k]);
        if (!product || product->op != StepOp::kMul) continue;
        gone[step.args[k] - n] = true;
        const int addend = step.args[1 - k];
        step.op = StepOp::kMulAdd;
        step.arity = 3;
        step.args[0] = product->args[0];
        step.args[1] = product->args[1];
        step.args[2] = addend;
        break;
      }
    } else if (step.op == StepOp::kRelu) {
      const PointwiseStep* sum = single(step.args[0]);
      if (!sum || (sum->op != StepOp::kAdd && sum->op != StepOp::kMulAdd)) continue;
      gone[step.args[0] - n] = true;
      step.op = sum->op == StepOp::kAdd ? StepOp::kAddRelu : StepOp::kMulAddRelu;
      step.arity = sum->arity;
      std::copy_n(sum->args, 3, step.args);
    }
  }
  std::vector<int> number(steps.size(), -1);
  std::vector<PointwiseStep> kept;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (gone[i]) continue;
    PointwiseStep step = steps[i];
    for (int k = 0; k < step.arity; ++k) {
      if (step.args[k] >= n) step.args[k] = n + number[step.args[k] - n];
    }
    number[i] = static_cast<int>(kept.size());
    kept.push_back(step);
  }
  steps = std::move(kept);
}

// Results share slots once nobody reads them any more.
void AssignSlots(PointwiseProgram& program) {
  const int n = program.inputs, count = static_cast<int>(program.steps.size());
  std::vector<int> last_use(count, -1);
  for (int i = 0; i < count; ++i) {
    for (int k = 0; k < program.steps[i].arity; ++k) {
      const int arg = program.steps[i].args[k];
      if (arg >= n) last_use[arg - n] = i;
    }
  }
  std::vector<int> free;
  program.slots.assign(count, -1);
  for (int i = 0; i < count; ++i) {
    // A step may write over an operand that dies with it.
    for (int j = 0; j < i; ++j) {
      if (last_use[j] == i && program.slots[j] >= 0) free.push_back(program.slots[j]);
    }
    if (i + 1 == count) break;
    if (free.empty()) free.push_back(program.num_slots++);
    program.slots[i] = free.back();
    free.pop_back();
    if (last_use[i] < 0) free.push_back(program.slots[i]);
  }
}

}  // namespace

std::optional<StepOp> FindStepOp(std::string_view name, int arity) {
  const std::optional<StepOp> op = FindStep(name);
  if (op && kStepNames[static_cast<size_t>(*op)].arity != arity) return std::nullopt;
  return op;
}

Result<PointwiseProgram> ParsePointwise(const LoweringContext& context, const Node& node) {
  PointwiseProgram program;
  program.inputs = static_cast<int>(node.inputs.size());
  if (node.domain == "plexus") {
    PLEXUS_RETURN_IF_ERROR(ParseFused(node, program));
  } else {
    PLEXUS_RETURN_IF_ERROR(ParseSingle(context, node, program));
  }
  SimplifyPowers(context, node, program);
  JoinSteps(program);
  AssignSlots(program);
  for (const PointwiseStep& step : program.steps) {
    program.cost += kStepNames[static_cast<size_t>(step.op)].cost;
  }
  return program;
}

}  // namespace plexus::cpu
