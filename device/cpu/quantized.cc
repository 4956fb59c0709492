// plexus.QConv, QMatMul and QAdd, QuantizeLinear and DequantizeLinear with one scale per tensor.
// Arithmetic: passes/fused_ops.md.
#include <algorithm>
#include <array>

#include "device/cpu/cpu_features.h"
#include "device/cpu/dnnl_conv.h"
#include "device/cpu/quantized_kernels.h"

namespace plexus::cpu {

namespace baseline {
extern const QuantizedKernels kQuantized;
}
namespace avx2 {
extern const QuantizedKernels kQuantized;
}
namespace avx512 {
extern const QuantizedKernels kQuantized;
}

const QuantizedKernels& BestQuantized() {
  switch (BestIsa()) {
    case Isa::kAvx512:
      return avx512::kQuantized;
    case Isa::kAvx2:
      return avx2::kQuantized;
    case Isa::kBaseline:
      break;
  }
  return baseline::kQuantized;
}

namespace {

bool IsByte(DType dtype) { return dtype == DType::kUint8 || dtype == DType::kInt8; }

// Scale and zero point of a tensor; scales has one entry, or one per channel.
struct Quantization {
  std::vector<float> scales = {1};
  int32_t zero_point = 0;
  DType dtype = DType::kUndefined;
};

// kUnimplemented unless constants, with one zero point for all (or 0 everywhere).
Result<Quantization> ReadQuantization(const LoweringContext& context, ValueId scale, ValueId zero,
                                      DType dtype) {
  Quantization q;
  q.dtype = dtype;
  if (!scale.valid() || !context.IsConstant(scale) || (zero.valid() && !context.IsConstant(zero)) ||
      context.num_elements(scale) == 0) {
    return UnimplementedError("scale or zero point is not constant");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor scales, context.Contents(scale));
  if (scales.dtype() != DType::kFloat32) return UnimplementedError("scale is not float32");
  q.scales.assign(scales.data<float>().begin(), scales.data<float>().end());
  if (zero.valid() && context.num_elements(zero) > 0) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor zeros, context.Contents(zero));
    PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> values, ToInt64Vector(zeros));
    for (int64_t v : values) {
      if (v != values[0]) return UnimplementedError("zero points differ between channels");
    }
    q.zero_point = static_cast<int32_t>(values[0]);
  }
  return q;
}

// The common inputs of QConv and QMatMul.
struct QuantizedProduct {
  Quantization x, w, y, residual;
  bool real_output = false;
  ValueId bias, residual_value;
};

Result<QuantizedProduct> ReadProduct(const LoweringContext& context, const Node& node) {
  auto in = [&](size_t i) { return context.In(node, i); };
  QuantizedProduct p;
  if (!IsByte(context.dtype(in(0))) || context.dtype(in(3)) != DType::kInt8) {
    return UnimplementedError("not (u)int8 by int8");
  }
  if (!context.IsConstant(in(3))) return UnimplementedError("weights are not constant");
  PLEXUS_ASSIGN_OR_RETURN(p.x, ReadQuantization(context, in(1), in(2), context.dtype(in(0))));
  PLEXUS_ASSIGN_OR_RETURN(p.w, ReadQuantization(context, in(4), in(5), DType::kInt8));
  if (p.x.scales.size() != 1 || p.w.zero_point != 0) {
    return UnimplementedError("asymmetric weights or one activation scale per channel");
  }
  p.real_output = !in(6).valid();
  if (!p.real_output) {
    PLEXUS_ASSIGN_OR_RETURN(
        p.y, ReadQuantization(context, in(6), in(7), context.dtype(context.Out(node, 0))));
    if (p.y.scales.size() != 1) return UnimplementedError("one output scale per channel");
  }
  p.bias = in(8);
  if (p.bias.valid() && !context.IsConstant(p.bias)) {
    return UnimplementedError("bias is not constant");
  }
  p.residual_value = in(9);
  if (p.residual_value.valid()) {
    if (!IsByte(context.dtype(in(9))) || p.real_output) {
      return UnimplementedError("residual is not quantised like the output");
    }
    PLEXUS_ASSIGN_OR_RETURN(p.residual,
                            ReadQuantization(context, in(10), in(11), context.dtype(in(9))));
    // oneDNN's sum reads the residual where it writes the result.
    if (p.residual.scales.size() != 1 || context.shape(in(9)) != context.shape(node.outputs[0])) {
      return UnimplementedError("residual has another shape");
    }
  }
  return p;
}

// y_q = round(activation(acc · xs · ws / ys + residual) ) + zp, activations that scale; otherwise
// in real units with a last multiplication by 1 / ys.
Status FillMath(const QuantizedProduct& p, const Activation& activation, DnnlConvMath& math) {
  if (!DnnlKnows(activation)) return UnimplementedError("unknown activation");
  math.source = p.x.dtype;
  math.weights = DType::kInt8;
  math.target = p.real_output ? DType::kFloat32 : p.y.dtype;
  math.bias = p.bias.valid() ? DType::kInt32 : DType::kUndefined;
  math.activation = activation;
  math.source_zero_point = p.x.zero_point;
  const float unit = p.real_output || !IsScalable(activation) ? 1.0f : p.y.scales[0];
  for (float w : p.w.scales) math.output_scales.push_back(p.x.scales[0] * w / unit);
  math.activation_scale = unit;
  if (!p.real_output) {
    math.target_zero_point = p.y.zero_point;
    if (unit != p.y.scales[0]) math.final_scale = 1.0f / p.y.scales[0];
  }
  if (p.residual_value.valid()) {
    math.sum = true;
    math.sum_scale = p.residual.scales[0] / unit;
    math.sum_zero_point = p.residual.zero_point;
    math.sum_type = p.residual.dtype;
  }
  return OkStatus();
}

Status AddProduct(LoweringContext& context, const Node& node, const WindowGeometry& g,
                  const DnnlConvMath& math, const QuantizedProduct& p, Layout layout,
                  std::string name) {
  PLEXUS_RETURN_IF_ERROR(CheckDnnlConv(context, g, math));
  const ValueId y = context.Out(node, 0);
  DnnlConvOperands operands;
  operands.name = std::move(name);
  operands.weights = context.graph().value(node.inputs[3]).constant;
  if (p.bias.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(operands.bias, context.Contents(p.bias));
  }
  PLEXUS_ASSIGN_OR_RETURN(operands.source, context.Read(node.inputs[0], layout));
  if (p.residual_value.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(operands.residual, context.Read(p.residual_value, layout));
    operands.copy_residual = true;
    bool in_place = false;
    if (p.residual.dtype == context.dtype(y)) {
      PLEXUS_ASSIGN_OR_RETURN(operands.target,
                              context.WriteOver(y, layout, p.residual_value, &in_place));
      operands.copy_residual = !in_place;
    } else {
      PLEXUS_ASSIGN_OR_RETURN(operands.target, context.Write(y, layout));
    }
  } else {
    PLEXUS_ASSIGN_OR_RETURN(operands.target, context.Write(y, layout));
  }
  return AddDnnlConv(context, g, math, std::move(operands));
}

Status LowerQConv(LoweringContext& context, const Node& node) {
  PLEXUS_ASSIGN_OR_RETURN(QuantizedProduct p, ReadProduct(context, node));
  PLEXUS_ASSIGN_OR_RETURN(
      WindowGeometry g, GeometryOf(context, node, node.inputs[0], node.inputs[3], node.outputs[0]));
  if (p.w.scales.size() != 1 && static_cast<int64_t>(p.w.scales.size()) != g.out_channels) {
    return InvalidArgumentError("weight scales are not one per output channel");
  }
  DnnlConvMath math;
  math.groups = node.IntAttr("group", 1);
  PLEXUS_RETURN_IF_ERROR(FillMath(p, ActivationOf(node), math));
  return AddProduct(
      context, node, g, math, p, Layout::kChannelsLast,
      context.KernelName("int8 conv " + std::to_string(g.kernel_height) + "x" +
                             std::to_string(g.kernel_width) + " " + std::to_string(g.in_channels) +
                             "→" + std::to_string(g.out_channels),
                         node));
}

// A product [M, K] · [K, N] is a 1×1 convolution over M pixels of K channels.
Status LowerQMatMul(LoweringContext& context, const Node& node) {
  PLEXUS_ASSIGN_OR_RETURN(QuantizedProduct p, ReadProduct(context, node));
  const Shape& a = context.shape(node.inputs[0]);
  const Shape& b = context.shape(node.inputs[3]);
  if (node.IntAttr("trans_a", 0) || a.empty() || b.size() < 2 ||
      context.num_elements(node.inputs[3]) != b[b.size() - 1] * b[b.size() - 2]) {
    return UnimplementedError("a batch of right operands, or a transposed left one");
  }
  const bool trans_b = node.IntAttr("trans_b", 0) != 0;
  WindowGeometry g;
  g.in_channels = trans_b ? b[b.size() - 1] : b[b.size() - 2];
  g.out_channels = trans_b ? b[b.size() - 2] : b[b.size() - 1];
  if (a.back() != g.in_channels) return InvalidArgumentError("inner dimensions differ");
  if (p.w.scales.size() != 1 && static_cast<int64_t>(p.w.scales.size()) != g.out_channels) {
    return UnimplementedError("weight scales are not one per column");
  }
  g.in_height = g.out_height = context.num_elements(node.inputs[0]) / g.in_channels;
  DnnlConvMath math;
  math.weights_by_input = !trans_b;
  PLEXUS_RETURN_IF_ERROR(FillMath(p, ActivationOf(node), math));
  return AddProduct(
      context, node, g, math, p, Layout::kRowMajor,
      context.KernelName("int8 matmul " + std::to_string(g.in_height) + "x" +
                             std::to_string(g.in_channels) + "x" + std::to_string(g.out_channels),
                         node));
}

// Kernels over `count` elements in ranges.
template <typename RangeFunction>
void AddRangeKernel(LoweringContext& context, KernelSpec kernel, int64_t count,
                    RangeFunction range) {
  const int64_t units = (count + 63) / 64;
  kernel.grid = context.GridFor(0, kernel.bytes, units);
  kernel.run = [=, grid = int64_t{kernel.grid}](uint32_t first, uint32_t blocks,
                                                const BlockArgs& args) {
    const int64_t begin = units * first / grid * 64;
    const int64_t end = std::min(count, units * (int64_t{first} + blocks) / grid * 64);
    if (begin < end) range(args, begin, end - begin);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
}

Status LowerQAdd(LoweringContext& context, const Node& node) {
  auto in = [&](size_t i) { return context.In(node, i); };
  const ValueId a = in(0), b = in(3), y = context.Out(node, 0);
  if (!IsByte(context.dtype(a)) || !IsByte(context.dtype(b)) || !IsByte(context.dtype(y)) ||
      context.shape(a) != context.shape(b)) {
    return UnimplementedError("broadcast, or not (u)int8");
  }
  PLEXUS_ASSIGN_OR_RETURN(Quantization qa,
                          ReadQuantization(context, in(1), in(2), context.dtype(a)));
  PLEXUS_ASSIGN_OR_RETURN(Quantization qb,
                          ReadQuantization(context, in(4), in(5), context.dtype(b)));
  PLEXUS_ASSIGN_OR_RETURN(Quantization qy,
                          ReadQuantization(context, in(6), in(7), context.dtype(y)));
  const Activation activation = ActivationOf(node);
  if (qa.scales.size() != 1 || qb.scales.size() != 1 || qy.scales.size() != 1) {
    return UnimplementedError("one scale per channel");
  }
  float low = -3e6f, high = 3e6f;
  if (activation.name == "Relu") {
    low = 0;
  } else if (activation.name == "Clip") {
    low = std::max(low, activation.Param(0, low) / qy.scales[0]);
    high = std::min(high, activation.Param(1, high) / qy.scales[0]);
  } else if (!activation.name.empty()) {
    return UnimplementedError("activation " + activation.name);
  }
  const Layout layout = context.PreferredLayout(node);
  KernelSpec kernel;
  kernel.name = context.KernelName("int8 add", node);
  const int64_t count = context.num_elements(y);
  kernel.bytes = 3.0 * count;
  PLEXUS_ASSIGN_OR_RETURN(Operand oa, context.Read(a, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand ob, context.Read(b, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand oy, context.Write(y, layout));
  kernel.reads = {oa, ob};
  kernel.writes = {oy};
  const float sa = qa.scales[0] / qy.scales[0], sb = qb.scales[0] / qy.scales[0];
  const float offset = -sa * qa.zero_point - sb * qb.zero_point;
  const float zero = static_cast<float>(qy.zero_point);
  const bool as = qa.dtype == DType::kInt8, bs = qb.dtype == DType::kInt8;
  const bool ys = qy.dtype == DType::kInt8;
  AddRangeKernel(
      context, std::move(kernel), count, [=](const BlockArgs& args, int64_t at, int64_t n) {
        BestQuantized().add(args.In<std::byte>(0) + at, args.In<std::byte>(1) + at, n, sa, sb,
                            offset, low, high, zero, as, bs, ys, args.Out<std::byte>(0) + at);
      });
  return OkStatus();
}

Status LowerQuantize(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  if (context.dtype(x) != DType::kFloat32 || !IsByte(context.dtype(y))) {
    return UnimplementedError("not float32 to (u)int8");
  }
  PLEXUS_ASSIGN_OR_RETURN(Quantization q, ReadQuantization(context, context.In(node, 1),
                                                           context.In(node, 2), context.dtype(y)));
  if (q.scales.size() != 1) return UnimplementedError("one scale per channel");
  const Layout layout = context.PreferredLayout(node);
  KernelSpec kernel;
  kernel.name = context.KernelName("quantize", node);
  const int64_t count = context.num_elements(y);
  kernel.bytes = 5.0 * count;
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.Write(y, layout));
  kernel.reads = {in};
  kernel.writes = {out};
  AddRangeKernel(
      context, std::move(kernel), count,
      [=, scale = q.scales[0], zero = static_cast<float>(q.zero_point),
       is_signed = q.dtype == DType::kInt8](const BlockArgs& args, int64_t at, int64_t n) {
        BestQuantized().quantize(args.In<float>(0) + at, n, scale, zero, is_signed,
                                 args.Out<std::byte>(0) + at);
      });
  return OkStatus();
}

Status LowerDequantize(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  if (!IsByte(context.dtype(x)) || context.dtype(y) != DType::kFloat32) {
    return UnimplementedError("not (u)int8 to float32");
  }
  PLEXUS_ASSIGN_OR_RETURN(Quantization q, ReadQuantization(context, context.In(node, 1),
                                                           context.In(node, 2), context.dtype(x)));
  if (q.scales.size() != 1) return UnimplementedError("one scale per channel");
  const Layout layout = context.PreferredLayout(node);
  KernelSpec kernel;
  kernel.name = context.KernelName("dequantize", node);
  const int64_t count = context.num_elements(y);
  kernel.bytes = 5.0 * count;
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.Write(y, layout));
  kernel.reads = {in};
  kernel.writes = {out};
  AddRangeKernel(
      context, std::move(kernel), count,
      [=, scale = q.scales[0], zero = static_cast<float>(q.zero_point),
       is_signed = q.dtype == DType::kInt8](const BlockArgs& args, int64_t at, int64_t n) {
        BestQuantized().dequantize(args.In<std::byte>(0) + at, n, scale, zero, is_signed,
                                   args.Out<float>(0) + at);
      });
  return OkStatus();
}

constexpr std::array kRules = {
    LoweringEntry{"plexus", "QConv", LowerQConv},
    LoweringEntry{"plexus", "QMatMul", LowerQMatMul},
    LoweringEntry{"plexus", "QAdd", LowerQAdd},
    LoweringEntry{"", "QuantizeLinear", LowerQuantize},
    LoweringEntry{"", "DequantizeLinear", LowerDequantize},
};

}  // namespace

std::span<const LoweringEntry> QuantizedRules() { return kRules; }

}  // namespace plexus::cpu
