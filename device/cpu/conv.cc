// Conv and plexus.Conv in float32 or bfloat16.
#include <array>

#include "device/cpu/cpu_features.h"
#include "device/cpu/dnnl_conv.h"

namespace plexus::cpu {

namespace {

std::string ConvName(const LoweringContext& context, const Node& node, const WindowGeometry& g,
                     int64_t groups) {
  std::string what = "conv " + std::to_string(g.kernel_height) + "x" +
                     std::to_string(g.kernel_width) + " " + std::to_string(g.in_channels) + "→" +
                     std::to_string(g.out_channels);
  if (groups > 1) what += " groups " + std::to_string(groups);
  const std::string activation = node.StringAttr("activation", "");
  if (!activation.empty()) what += " " + activation;
  return context.KernelName(what, node);
}

Status LowerConv(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), w = context.In(node, 1), b = context.In(node, 2);
  const ValueId residual = context.In(node, 3), y = context.Out(node, 0);
  if (context.dtype(x) != DType::kFloat32) return UnimplementedError("not float32");
  if (!context.IsConstant(w) || (b.valid() && !context.IsConstant(b))) {
    return UnimplementedError("weights are not constant");
  }
  PLEXUS_ASSIGN_OR_RETURN(WindowGeometry g, GeometryOf(context, node, x, w, y));
  DnnlConvMath math;
  math.groups = node.IntAttr("group", 1);
  math.activation = ActivationOf(node);
  if (!DnnlKnows(math.activation)) return UnimplementedError("unknown activation");
  if (context.options().precision == Precision::kBFloat16 && CpuHas(CpuFeature::kAvx512Bf16)) {
    math.source = math.weights = math.target = DType::kBFloat16;
  }
  if (b.valid()) math.bias = DType::kFloat32;
  if (residual.valid()) {
    if (context.shape(residual) != context.shape(y)) {
      return UnimplementedError("residual has another shape");
    }
    math.sum = true;
  }
  PLEXUS_RETURN_IF_ERROR(CheckDnnlConv(context, g, math));

  DnnlConvOperands operands;
  operands.name = ConvName(context, node, g, math.groups);
  PLEXUS_ASSIGN_OR_RETURN(operands.source, context.Read(x, Layout::kChannelsLast, math.source));
  operands.weights = context.graph().value(w).constant;
  if (b.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(operands.bias, context.Contents(b));
  }
  if (residual.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(operands.residual,
                            context.Read(residual, Layout::kChannelsLast, math.target));
    bool in_place = false;
    PLEXUS_ASSIGN_OR_RETURN(operands.target, context.WriteOver(y, Layout::kChannelsLast, residual,
                                                               &in_place, math.target));
    operands.copy_residual = !in_place;
  } else {
    PLEXUS_ASSIGN_OR_RETURN(operands.target, context.Write(y, Layout::kChannelsLast, math.target));
  }
  return AddDnnlConv(context, g, math, std::move(operands));
}

constexpr std::array kRules = {
    LoweringEntry{"", "Conv", LowerConv},
    LoweringEntry{"plexus", "Conv", LowerConv},
};

}  // namespace

std::span<const LoweringEntry> ConvRules() { return kRules; }

}  // namespace plexus::cpu
