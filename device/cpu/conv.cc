// Conv and plexus.Conv in float32 or bfloat16.
#include <algorithm>
#include <array>

#include "device/cpu/conv_transpose.h"
#include "device/cpu/cpu_features.h"
#include "device/cpu/gemm_job.h"
#include "device/cpu/kernels/depthwise.h"

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

// Fewer channels are too few for a run of their own.
constexpr int64_t kMaxMergedChannels = 8;

struct ConvValues {
  ValueId x, w, b, residual, y;
};

// On our own kernel, for one group: windows are the rows of a matrix product. No primitive to make,
// one packed form of the weights for all sizes, blocks of any rows and output channels.
Status LowerWindowConv(LoweringContext& context, const Node& node, const ConvValues& v,
                       const WindowGeometry& g, const Activation& activation) {
  GemmJob job;
  if (!SetGemmActivation(activation, job.base)) return UnimplementedError("unknown activation");
  GemmWindows& w = job.windows;
  w.channels = g.in_channels;
  w.in_height = g.in_height, w.in_width = g.in_width;
  w.out_height = g.out_height, w.out_width = g.out_width;
  w.kernel_height = g.kernel_height, w.kernel_width = g.kernel_width;
  w.stride_height = g.stride_height, w.stride_width = g.stride_width;
  w.dilation_height = g.dilation_height, w.dilation_width = g.dilation_width;
  w.pad_top = g.pad_top, w.pad_left = g.pad_left;
  w.pixel_stride = w.channels;
  w.merged = g.in_channels <= kMaxMergedChannels;
  if (!GemmCanTake(w)) w.merged = false;
  const int64_t taps = g.kernel_height * g.kernel_width;
  const bool padded = g.pad_top || g.pad_left || g.pad_bottom || g.pad_right;
  job.windowed = padded || taps > 1 || g.stride_height > 1 || g.stride_width > 1;
  if (padded) job.zeros.resize(g.in_channels * (w.merged ? g.kernel_width : 1));

  KernelSpec kernel;
  kernel.name = ConvName(context, node, g, 1);
  const double in_floats = static_cast<double>(context.num_elements(v.x));
  const double weight_floats = static_cast<double>(context.num_elements(v.w));
  const double out_floats = static_cast<double>(context.num_elements(v.y));
  job.base.rows = g.images * g.out_height * g.out_width;
  job.base.depth = g.in_channels * taps;
  job.base.last_column = job.base.ldc = g.out_channels;
  kernel.flops = 2 * static_cast<double>(job.base.rows) * weight_floats;
  kernel.bytes = 4 * (in_floats + weight_floats + out_floats);
  job.cut = CutGemm(job.base.rows, g.out_channels, job.base.depth, in_floats,
                    context.GridFor(kernel.flops, kernel.bytes, int64_t{1} << 16));

  Operand source;
  if (w.merged) {
    PLEXUS_ASSIGN_OR_RETURN(source, context.Read(v.x, Layout::kChannelsLast));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(source, context.ReadStrided(v.x));
  }
  if (source.pixel_stride) w.pixel_stride = source.pixel_stride;
  job.base.lda = w.pixel_stride;
  w.image_stride = g.in_height * g.in_width * w.pixel_stride;
  kernel.reads = {source};
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed,
                          PackGemmConstant(*context.graph().value(v.w).constant, job.base.depth,
                                           g.out_channels, true, g.in_channels == 1 ? 1 : taps));
  kernel.reads.push_back(context.ConstantOperand(std::move(packed)));
  if (v.b.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(Operand bias, context.Read(v.b, Layout::kRowMajor));
    job.bias_operand = static_cast<int>(kernel.reads.size());
    kernel.reads.push_back(bias);
  }
  Operand target;
  if (v.residual.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(Operand residual, context.ReadStrided(v.residual));
    job.residual_operand = static_cast<int>(kernel.reads.size());
    job.base.ld_residual = residual.pixel_stride ? residual.pixel_stride : g.out_channels;
    kernel.reads.push_back(residual);
    bool in_place = false;
    // Each element of the residual is read just before its result is written. Not if x is the
    // residual as well: other blocks still read its windows.
    const ValueId over = v.residual == v.x ? ValueId() : v.residual;
    PLEXUS_ASSIGN_OR_RETURN(target, context.WriteOver(v.y, Layout::kChannelsLast, over, &in_place));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(target, context.WriteStrided(v.y));
  }
  kernel.writes = {target};
  if (target.pixel_stride) job.base.ldc = target.pixel_stride;
  SetGemmKernel(std::move(job), kernel);
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

Status LowerConv(LoweringContext& context, const Node& node) {
  if (const Status status = LowerDepthwiseConv(context, node);
      status.code() != StatusCode::kUnimplemented) {
    return status;
  }
  const ValueId x = context.In(node, 0), w = context.In(node, 1), b = context.In(node, 2);
  const ValueId residual = context.In(node, 3), y = context.Out(node, 0);
  if (context.dtype(x) != DType::kFloat32) return UnimplementedError("not float32");
  if (!context.IsConstant(w) || (b.valid() && !context.IsConstant(b))) {
    return UnimplementedError("weights are not constant");
  }
  PLEXUS_ASSIGN_OR_RETURN(WindowGeometry g, GeometryOf(context, node, x, w, y));
  if (residual.valid() && context.shape(residual) != context.shape(y)) {
    return UnimplementedError("residual has another shape");
  }
  DnnlConvMath math;
  math.groups = node.IntAttr("group", 1);
  math.activation = ActivationOf(node);
  if (math.groups == 1 && context.options().precision == Precision::kFloat32) {
    return LowerWindowConv(context, node, {x, w, b, residual, y}, g, math.activation);
  }
  if (!DnnlKnows(math.activation)) return UnimplementedError("unknown activation");
  if (context.options().precision == Precision::kBFloat16 && CpuHas(CpuFeature::kAvx512Bf16)) {
    math.source = math.weights = math.target = DType::kBFloat16;
  }
  if (b.valid()) math.bias = DType::kFloat32;
  math.sum = residual.valid();
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
    LoweringEntry{"", "ConvTranspose", LowerConvTranspose},
    LoweringEntry{"plexus", "Conv", LowerConv},
};

}  // namespace

std::span<const LoweringEntry> ConvRules() { return kRules; }

}  // namespace plexus::cpu
