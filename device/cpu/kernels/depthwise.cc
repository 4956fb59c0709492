#include "device/cpu/kernels/depthwise.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "device/cpu/conv_geometry.h"
#include "device/cpu/kernels/depthwise_kernels.h"
#include "device/cpu/kernels/elementwise_program.h"
#include "device/cpu/kernels/isa.h"

namespace plexus::cpu {

PLEXUS_DEFINE_BEST(DepthwiseKernels, kDepthwise)

namespace {

struct Job {
  WindowGeometry g;
  int bias = -1, residual = -1;  // operands
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
  bool hard_swish = false;
  float scale = 1, shift = 0;        // behind it
  std::optional<StepOp> activation;  // any other: applied to finished rows
  float p0 = 0, p1 = 0;
};

// The activation as bounds, as what the kernel does itself, or as a step.
Status ReadActivation(const Node& node, Job& job) {
  const std::string name = node.StringAttr("activation", "");
  const std::vector<float> params = node.FloatsAttr("activation_params");
  if (name.empty()) return OkStatus();
  if (name == "Relu") {
    job.low = 0;
    return OkStatus();
  }
  if (name == "Clip" && params.size() == 2) {
    job.low = params[0];
    job.high = params[1];
    return OkStatus();
  }
  if (name == "HardSwish" || (name == "HardSwishAffine" && params.size() == 2)) {
    job.hard_swish = true;
    if (params.size() == 2) job.scale = params[0], job.shift = params[1];
    return OkStatus();
  }
  job.activation = FindStepOp(name, 1);
  if (!job.activation) return UnimplementedError("activation");
  if (!params.empty()) job.p0 = params[0];
  if (params.size() > 1) job.p1 = params[1];
  return OkStatus();
}

// Measured on AVX-512 cores (oneDNN 2.6): its 3x3 kernels take 80 to 100 % of the time of ours, its
// 5x5 kernels 112 %; it applies these activations on the way.
bool OneDnnIsFaster(const Job& job) {
  const WindowGeometry& g = job.g;
  return BestIsa() == Isa::kAvx512 && !job.activation && !job.hard_swish &&
         g.kernel_height * g.kernel_width <= 9 && g.dilation_height == 1 && g.dilation_width == 1;
}

// [C, 1, kh, kw] → [kh · kw][C].
Result<DerivedPtr> PackWeights(const ConstantPtr& weights, int64_t channels, int64_t taps) {
  const std::string key = "depthwise:" + std::to_string(channels) + "x" + std::to_string(taps);
  return weights->Derived(key, [&](const Tensor& plain) -> Result<DerivedConstant> {
    DerivedConstant derived;
    PLEXUS_ASSIGN_OR_RETURN(derived.buffer, Buffer::Allocate(plain.size_bytes()));
    const float* from = plain.data<float>().data();
    float* to = reinterpret_cast<float*>(derived.buffer->data());
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) to[t * channels + c] = from[c * taps + t];
    }
    return derived;
  });
}

void RunRow(const Job& job, int64_t image, int64_t oy, const BlockArgs& args) {
  const WindowGeometry& g = job.g;
  const int64_t channels = g.in_channels;
  DepthwiseRow r;
  const int64_t top = oy * g.stride_height - g.pad_top;
  int64_t first = 0, last = g.kernel_height;
  while (first < last && top + first * g.dilation_height < 0) ++first;
  while (last > first && top + (last - 1) * g.dilation_height >= g.in_height) --last;
  const int64_t iy = std::max<int64_t>(0, top + first * g.dilation_height);
  r.x = args.In<float>(0) + (image * g.in_height + iy) * g.in_width * channels;
  r.w = args.In<float>(1) + first * g.kernel_width * channels;
  r.kernel_rows = last - first;
  r.kernel_width = g.kernel_width;
  r.channels = channels;
  r.in_width = g.in_width;
  r.out_width = g.out_width;
  r.stride = g.stride_width;
  r.row_dilation = g.dilation_height;
  r.dilation = g.dilation_width;
  r.pad_left = g.pad_left;
  r.low = job.low;
  r.high = job.high;
  r.hard_swish = job.hard_swish;
  r.scale = job.scale;
  r.shift = job.shift;
  const int64_t at = (image * g.out_height + oy) * g.out_width * channels;
  r.y = args.Out<float>(0) + at;
  if (job.bias >= 0) r.bias = args.In<float>(job.bias);
  if (job.residual >= 0) r.residual = args.In<float>(job.residual) + at;
  BestDepthwiseKernels().row(r);
  if (!job.activation) return;
  StepArgs step;
  step.in[0] = step.out = r.y;
  step.n = g.out_width * channels;
  step.p0 = job.p0;
  step.p1 = job.p1;
  BestStepKernels().run[static_cast<size_t>(*job.activation)](step);
}

}  // namespace

Status LowerDepthwiseConv(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), w = context.In(node, 1), b = context.In(node, 2);
  const ValueId residual = context.In(node, 3), y = context.Out(node, 0);
  if (context.dtype(x) != DType::kFloat32 || !context.IsConstant(w) ||
      context.options().precision != Precision::kFloat32) {
    return UnimplementedError("not float32 or weights not constant");
  }
  const Shape& weights = context.shape(w);
  const int64_t channels = context.shape(x).size() >= 3 ? context.shape(x)[1] : 0;
  if (node.IntAttr("group", 1) != channels || channels < 2 || weights[0] != channels ||
      weights[1] != 1) {
    return UnimplementedError("not depthwise");
  }
  if (residual.valid() && context.shape(residual) != context.shape(y)) {
    return UnimplementedError("residual has another shape");
  }
  Job job;
  PLEXUS_ASSIGN_OR_RETURN(job.g, GeometryOf(context, node, x, w, y));
  PLEXUS_RETURN_IF_ERROR(ReadActivation(node, job));
  const WindowGeometry& g = job.g;
  const int64_t taps = g.kernel_height * g.kernel_width;
  if (OneDnnIsFaster(job)) return UnimplementedError("oneDNN is faster");
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed,
                          PackWeights(context.graph().value(w).constant, channels, taps));
  KernelSpec kernel;
  kernel.name =
      context.KernelName("depthwise conv " + std::to_string(g.kernel_height) + "x" +
                             std::to_string(g.kernel_width) + " " + std::to_string(channels),
                         node);
  const double outputs = static_cast<double>(context.num_elements(y));
  kernel.flops = 2.0 * outputs * static_cast<double>(taps);
  kernel.bytes = 4.0 * (static_cast<double>(context.num_elements(x)) + outputs);
  // Loads bound it: about half the rate of a large multiplication.
  kernel.time = LoweringContext::EstimateTime(kernel.flops * 2, kernel.bytes);
  const int64_t rows = g.images * g.out_height;
  kernel.grid = context.GridFor(kernel.flops * 2, kernel.bytes, rows);
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, Layout::kChannelsLast));
  kernel.reads = {in, context.ConstantOperand(std::move(packed))};
  if (b.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(Operand bias, context.Read(b, Layout::kRowMajor));
    job.bias = static_cast<int>(kernel.reads.size());
    kernel.reads.push_back(bias);
  }
  Operand out;
  if (residual.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(Operand r, context.Read(residual, Layout::kChannelsLast));
    job.residual = static_cast<int>(kernel.reads.size());
    kernel.reads.push_back(r);
    bool in_place = false;
    // Other rows still read x.
    const ValueId over = residual == x ? ValueId() : residual;
    PLEXUS_ASSIGN_OR_RETURN(out, context.WriteOver(y, Layout::kChannelsLast, over, &in_place));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(out, context.Write(y, Layout::kChannelsLast));
  }
  kernel.writes = {out};
  kernel.run = [job, rows, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                        const BlockArgs& args) {
    for (int64_t r = rows * first / grid; r < rows * (int64_t{first} + count) / grid; ++r) {
      RunRow(job, r / job.g.out_height, r % job.g.out_height, args);
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
