// The fused operators of domain plexus (graph/passes/fused_ops.h), put together from the ONNX
// operators they stand for.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "program/reference/kernels_util.h"
#include "program/reference/pointwise.h"

namespace plexus::reference {
namespace {

// Runs ONNX operator `op` with the attributes of this node.
Result<Tensor> Run(const OpContext& ctx, const char* op, std::vector<Tensor> inputs) {
  constexpr int kVersion = 18;
  const OpEntry* entry = FindOp("", op, kVersion);
  if (entry == nullptr) return InternalError(std::string("no reference for ") + op);
  Node node = ctx.node;
  node.op = op;
  node.domain.clear();
  node.version = kVersion;
  node.inputs.resize(inputs.size());
  node.outputs.resize(1);
  OpContext inner{ctx.graph, node, inputs, {}, std::vector<Tensor>(1)};
  PLEXUS_RETURN_IF_ERROR(entry->function(inner));
  return std::move(inner.outputs[0]);
}

Result<Tensor> Add(const OpContext& ctx, const Tensor& a, const Tensor& b) {
  return Run(ctx, "Add", {a, b});
}

// Activation, then the result in `type`.
Status Finish(OpContext& ctx, Tensor y, DType type) {
  PLEXUS_ASSIGN_OR_RETURN(y, AsFloat32(y));
  PLEXUS_ASSIGN_OR_RETURN(y, y.Clone());
  PLEXUS_RETURN_IF_ERROR(ApplyActivation(ctx.node, y));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, type));
  return OkStatus();
}

Status ConvOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  std::vector<Tensor> inputs = {ctx.Input(0), ctx.Input(1)};
  if (ctx.HasInput(2)) inputs.push_back(ctx.Input(2));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, Run(ctx, "Conv", std::move(inputs)));
  if (ctx.HasInput(3)) {
    if (ctx.Input(3).shape() != y.shape()) return InvalidArgumentError("residual's shape differs");
    PLEXUS_ASSIGN_OR_RETURN(y, Add(ctx, y, ctx.Input(3)));
  }
  return Finish(ctx, std::move(y), ctx.Input(0).dtype());
}

// The last two axes swapped when the node says so.
Result<Tensor> MaybeTransposed(const Tensor& x, bool transposed) {
  if (!transposed) return x;
  if (x.rank() < 2) return InvalidArgumentError("a vector cannot be transposed");
  std::vector<int64_t> perm(x.rank());
  std::iota(perm.begin(), perm.end(), 0);
  std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
  return TransposeTensor(x, perm);
}

Result<Tensor> Product(const OpContext& ctx, const Tensor& a, const Tensor& b) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor left, MaybeTransposed(a, ctx.node.IntAttr("trans_a", 0) != 0));
  PLEXUS_ASSIGN_OR_RETURN(Tensor right, MaybeTransposed(b, ctx.node.IntAttr("trans_b", 0) != 0));
  return Run(ctx, "MatMul", {left, right});
}

Status MatMulOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const DType type = ctx.Input(0).dtype();
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, Product(ctx, ctx.Input(0), ctx.Input(1)));
  const float alpha = ctx.node.FloatAttr("alpha", 1);
  if (alpha != 1) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor factor, ConvertTensor(Tensor::Scalar(alpha), type));
    PLEXUS_ASSIGN_OR_RETURN(y, Run(ctx, "Mul", {y, factor}));
  }
  const Shape shape = y.shape();
  for (size_t i = 2; i <= 3; ++i) {
    if (!ctx.HasInput(i)) continue;
    PLEXUS_ASSIGN_OR_RETURN(y, Add(ctx, y, ctx.Input(i)));
    if (y.shape() != shape) return InvalidArgumentError("bias or residual do not fit the product");
  }
  return Finish(ctx, std::move(y), type);
}

Status AttentionOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& q = ctx.Input(0);
  if (q.rank() < 2) return InvalidArgumentError("q has no rows");
  PLEXUS_ASSIGN_OR_RETURN(Tensor k, MaybeTransposed(ctx.Input(1), true));
  PLEXUS_ASSIGN_OR_RETURN(Tensor scores, Run(ctx, "MatMul", {q, k}));
  const float width = static_cast<float>(q.shape().back());
  const float scale = ctx.node.FloatAttr("scale", 1 / std::sqrt(width));
  PLEXUS_ASSIGN_OR_RETURN(Tensor factor, ConvertTensor(Tensor::Scalar(scale), q.dtype()));
  PLEXUS_ASSIGN_OR_RETURN(scores, Run(ctx, "Mul", {scores, factor}));
  if (ctx.HasInput(3)) {
    PLEXUS_ASSIGN_OR_RETURN(scores, Add(ctx, scores, ctx.Input(3)));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor weights, Run(ctx, "Softmax", {scores}));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], Run(ctx, "MatMul", {weights, ctx.Input(2)}));
  return OkStatus();
}

// --- Elementwise ---------------------------------------------------------------------------------

struct Step {
  const PointwiseFn* fn = nullptr;
  int64_t args[3] = {-1, -1, -1};
  float params[3] = {0, 0, 0};
};

Result<std::vector<Step>> ParseSteps(const OpContext& ctx) {
  const auto it = ctx.node.attributes.find("ops");
  if (it == ctx.node.attributes.end() ||
      !std::holds_alternative<std::vector<std::string>>(it->second)) {
    return InvalidArgumentError("attribute 'ops' is missing");
  }
  const auto& names = std::get<std::vector<std::string>>(it->second);
  const std::vector<int64_t> args = ctx.node.IntsAttr("args");
  std::vector<float> params = ctx.node.FloatsAttr("params");
  if (params.empty()) params.resize(2 * names.size());
  if (names.empty() || args.size() != 3 * names.size() || params.size() != 2 * names.size()) {
    return InvalidArgumentError("ops, args and params differ in length");
  }
  std::vector<Step> steps(names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    steps[i].fn = FindPointwise(names[i]);
    if (steps[i].fn == nullptr || steps[i].fn->params > 2) {
      return UnimplementedError("step '" + names[i] + "'");
    }
    std::copy_n(args.begin() + 3 * i, 3, steps[i].args);
    std::copy_n(params.begin() + 2 * i, 2, steps[i].params);
    for (int k = 0; k < steps[i].fn->operands; ++k) {
      const int64_t arg = steps[i].args[k];
      if (arg < 0 || arg >= static_cast<int64_t>(ctx.num_inputs() + i)) {
        return InvalidArgumentError("step " + std::to_string(i) + " reads operand " +
                                    std::to_string(arg));
      }
    }
  }
  return steps;
}

Status ElementwiseOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, std::max<size_t>(1, ctx.num_inputs())));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Step> steps, ParseSteps(ctx));
  Shape shape;
  std::vector<Tensor> inputs;
  for (const Tensor& input : ctx.inputs) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, AsFloat32(input));
    PLEXUS_ASSIGN_OR_RETURN(shape, BroadcastShapes(shape, input.shape()));
    inputs.push_back(std::move(wide));
  }
  std::vector<std::vector<int64_t>> strides;
  for (const Tensor& input : inputs) strides.push_back(BroadcastStrides(input.shape(), shape));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kFloat32, shape));
  std::vector<float> operands(inputs.size() + steps.size());
  float* out = y.mutable_data<float>().data();
  for (Odometer at(shape, strides); !at.done(); at.Next()) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      operands[i] = inputs[i].data<float>()[at.offset(i)];
    }
    float* result = operands.data() + inputs.size();
    for (const Step& step : steps) {
      float values[3] = {0, 0, 0};
      for (int k = 0; k < step.fn->operands; ++k) values[k] = operands[step.args[k]];
      *result++ = step.fn->apply(values[0], values[1], values[2], step.params);
    }
    *out++ = operands.back();
  }
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, ctx.Input(0).dtype()));
  return OkStatus();
}

// --- Quantised operators -------------------------------------------------------------------------

// A scale or zero point as float64, shaped to broadcast along `axis` of a tensor of `rank`.
Result<Tensor> PerAxis(const Tensor& t, int64_t axis, int64_t rank) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor wide, AsFloat64(t));
  if (wide.num_elements() == 1) return wide.Reshaped({});
  Shape shape(rank, 1);
  if (axis < 0 || axis >= rank) return InvalidArgumentError("a scale has too many elements");
  shape[axis] = wide.num_elements();
  return wide.Reshaped(shape);
}

// Input i minus its zero point (input i + 2), exact, as float64.
Result<Tensor> Centred(const OpContext& ctx, size_t i, int64_t axis) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor q, AsFloat64(ctx.Input(i)));
  if (!ctx.HasInput(i + 2)) return q;
  PLEXUS_ASSIGN_OR_RETURN(Tensor zero, PerAxis(ctx.Input(i + 2), axis, q.rank()));
  return Run(ctx, "Sub", {q, zero});
}

// y · scale of input i, along `axis` of y.
Result<Tensor> Scaled(const OpContext& ctx, const Tensor& y, size_t i, int64_t axis) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor scale, PerAxis(ctx.Input(i), axis, y.rank()));
  return Run(ctx, "Mul", {y, scale});
}

// The residual (inputs 9 to 11) as float64.
Result<Tensor> Residual(const OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor r, AsFloat64(ctx.Input(9)));
  if (!ctx.HasInput(10)) return r;
  if (ctx.HasInput(11)) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor zero, PerAxis(ctx.Input(11), -1, r.rank()));
    PLEXUS_ASSIGN_OR_RETURN(r, Run(ctx, "Sub", {r, zero}));
  }
  return Scaled(ctx, r, 10, -1);
}

// Activation, then quantisation with the scale and zero point at `scale_at`, or float32 without.
Status FinishQuantised(OpContext& ctx, const Tensor& real, size_t scale_at) {
  PLEXUS_RETURN_IF_ERROR(Finish(ctx, real, DType::kFloat32));
  if (!ctx.HasInput(scale_at)) return OkStatus();
  const Tensor y = ctx.outputs[0];
  PLEXUS_ASSIGN_OR_RETURN(const double scale, ScalarInput(ctx, scale_at, 1));
  PLEXUS_ASSIGN_OR_RETURN(const double zero, ScalarInput(ctx, scale_at + 1, 0));
  const DType type =
      ctx.HasInput(scale_at + 1) ? ctx.Input(scale_at + 1).dtype() : ctx.Input(0).dtype();
  if (type != DType::kUint8 && type != DType::kInt8) {
    return UnimplementedError("quantised type " + std::string(DTypeName(type)));
  }
  const double low = type == DType::kUint8 ? 0 : -128;
  PLEXUS_ASSIGN_OR_RETURN(Tensor q, NewTensor(DType::kFloat64, y.shape()));
  for (int64_t i = 0; i < y.num_elements(); ++i) {
    const float steps = std::nearbyint(y.data<float>()[i] / static_cast<float>(scale));
    q.mutable_data<double>()[i] =
        steps != steps ? low : std::clamp(static_cast<double>(steps) + zero, low, low + 255);
  }
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(q, type));
  return OkStatus();
}

// y in integer units → real: times both scales, plus bias in the same units, plus residual.
Status FinishProduct(OpContext& ctx, Tensor y, int64_t channel_axis) {
  if (ctx.HasInput(8)) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor bias, PerAxis(ctx.Input(8), channel_axis, y.rank()));
    PLEXUS_ASSIGN_OR_RETURN(y, Add(ctx, y, bias));
  }
  PLEXUS_ASSIGN_OR_RETURN(y, Scaled(ctx, y, 1, -1));
  PLEXUS_ASSIGN_OR_RETURN(y, Scaled(ctx, y, 4, channel_axis));
  if (ctx.HasInput(9)) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor residual, Residual(ctx));
    PLEXUS_ASSIGN_OR_RETURN(y, Add(ctx, y, residual));
  }
  return FinishQuantised(ctx, y, 6);
}

Status RequireQuantisedPair(const OpContext& ctx) {
  for (size_t i : {0, 1, 3, 4}) {
    if (!ctx.HasInput(i)) {
      return InvalidArgumentError("input " + std::to_string(i) + " is missing");
    }
  }
  return OkStatus();
}

Status QConvOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireQuantisedPair(ctx));
  PLEXUS_ASSIGN_OR_RETURN(Tensor x, Centred(ctx, 0, -1));
  PLEXUS_ASSIGN_OR_RETURN(Tensor w, Centred(ctx, 3, 0));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, Run(ctx, "Conv", {x, w}));
  return FinishProduct(ctx, std::move(y), 1);
}

Status QMatMulOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireQuantisedPair(ctx));
  PLEXUS_ASSIGN_OR_RETURN(Tensor a, Centred(ctx, 0, -1));
  const bool transposed = ctx.node.IntAttr("trans_b", 0) != 0;
  const int64_t b_rank = ctx.Input(3).rank();
  PLEXUS_ASSIGN_OR_RETURN(Tensor b, Centred(ctx, 3, transposed ? b_rank - 2 : b_rank - 1));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, Product(ctx, a, b));
  const int64_t last = y.rank() - 1;
  return FinishProduct(ctx, std::move(y), last);
}

Status QAddOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireQuantisedPair(ctx));
  PLEXUS_ASSIGN_OR_RETURN(Tensor a, Centred(ctx, 0, -1));
  PLEXUS_ASSIGN_OR_RETURN(a, Scaled(ctx, a, 1, -1));
  PLEXUS_ASSIGN_OR_RETURN(Tensor b, Centred(ctx, 3, -1));
  PLEXUS_ASSIGN_OR_RETURN(b, Scaled(ctx, b, 4, -1));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, Add(ctx, a, b));
  return FinishQuantised(ctx, y, 6);
}

constexpr OpEntry kOps[] = {
    {"plexus", "Attention", 1, kLatest, AttentionOp},
    {"plexus", "Conv", 1, kLatest, ConvOp},
    {"plexus", "Elementwise", 1, kLatest, ElementwiseOp},
    {"plexus", "MatMul", 1, kLatest, MatMulOp},
    {"plexus", "QAdd", 1, kLatest, QAddOp},
    {"plexus", "QConv", 1, kLatest, QConvOp},
    {"plexus", "QMatMul", 1, kLatest, QMatMulOp},
};

}  // namespace

std::span<const OpEntry> FusedOps() { return kOps; }

}  // namespace plexus::reference
