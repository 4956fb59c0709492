#include "device/cpu/kernels/sliding_conv.h"

#include <algorithm>

#include "device/cpu/conv_geometry.h"
#include "device/cpu/gemm.h"

namespace plexus::cpu {

namespace {

// [filters, 1, taps], the right-hand matrix transposed.
Result<DerivedPtr> PackFilters(const ConstantPtr& filters, int64_t count, int64_t taps) {
  const std::string key = "sliding:" + std::to_string(BestGemm().panel) + ":" +
                          std::to_string(taps) + "x" + std::to_string(count);
  return filters->Derived(key, [&](const Tensor& plain) -> Result<DerivedConstant> {
    DerivedConstant derived;
    PLEXUS_ASSIGN_OR_RETURN(derived.buffer,
                            Buffer::Allocate(PackedFloats(taps, count) * sizeof(float)));
    PackGemm(plain.data<float>().data(), 1, taps, taps, 0, count, count,
             reinterpret_cast<float*>(derived.buffer->data()));
    return derived;
  });
}

}  // namespace

Status LowerSlidingConv(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), w = context.In(node, 1), b = context.In(node, 2);
  const ValueId y = context.Out(node, 0);
  if (context.dtype(x) != DType::kFloat32 || !context.IsConstant(w) ||
      context.In(node, 3).valid() || context.shape(x).size() != 3 || context.shape(x)[1] != 1 ||
      context.shape(w).size() != 3 || context.options().precision != Precision::kFloat32) {
    return UnimplementedError("not a float32 signal of one channel");
  }
  const std::string activation = node.StringAttr("activation", "");
  if (!activation.empty() && activation != "Relu") return UnimplementedError("activation");
  PLEXUS_ASSIGN_OR_RETURN(const WindowGeometry g, GeometryOf(context, node, x, w, y));
  // Short filters are no deep product.
  if (node.IntAttr("group", 1) != 1 || g.pad_left != 0 || g.pad_right != 0 ||
      g.dilation_width != 1 || g.kernel_width < 32) {
    return UnimplementedError("padded, dilated or short");
  }
  const int64_t filters = g.out_channels, taps = g.kernel_width, frames = g.out_width;
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed,
                          PackFilters(context.graph().value(w).constant, filters, taps));
  const int64_t panel = BestGemm().panel;
  const int64_t panels = (filters + panel - 1) / panel;
  const int64_t units = g.images * panels;
  KernelSpec kernel;
  kernel.name = context.KernelName(
      "sliding conv " + std::to_string(taps) + " → " + std::to_string(filters), node);
  kernel.flops = 2.0 * static_cast<double>(context.num_elements(y)) * static_cast<double>(taps);
  kernel.bytes = 4.0 * static_cast<double>(context.num_elements(x) + context.num_elements(w) +
                                           context.num_elements(y));
  kernel.grid = context.GridFor(kernel.flops, kernel.bytes, units);
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, Layout::kRowMajor));
  kernel.reads = {in, context.ConstantOperand(std::move(packed))};
  const bool has_bias = b.valid();
  if (has_bias) {
    PLEXUS_ASSIGN_OR_RETURN(Operand bias, context.Read(b, Layout::kRowMajor));
    kernel.reads.push_back(bias);
  }
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.WriteStrided(y));
  kernel.writes = {out};
  const int64_t pixel = out.pixel_stride ? out.pixel_stride : filters;
  const bool relu = !activation.empty();
  kernel.run = [=, in_width = g.in_width, stride = g.stride_width, grid = int64_t{kernel.grid}](
                   uint32_t first, uint32_t count, const BlockArgs& args) {
    for (int64_t u = units * first / grid; u < units * (int64_t{first} + count) / grid; ++u) {
      const int64_t image = u / panels, p = u % panels;
      GemmArgs m;
      m.a = args.In<float>(0) + image * in_width;
      m.lda = stride;
      m.b = args.In<float>(1);
      m.c = args.Out<float>(0) + image * frames * pixel;
      m.ldc = pixel;
      m.rows = frames;
      m.depth = taps;
      m.first_column = p * panel;
      m.last_column = std::min(filters, (p + 1) * panel);
      if (has_bias) m.bias = args.In<float>(2);
      if (relu) m.activation = GemmActivation::kRelu;
      BestGemm().run(m);
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
