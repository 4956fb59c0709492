#include "device/cpu/dnnl_conv.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace plexus::cpu {

namespace {

using dnnl::algorithm;
using dnnl::memory;
using Tag = dnnl::memory::format_tag;

// Tiles shorter than this spend too much time outside the inner loops.
constexpr int64_t kMinTilePixels = 24;

int64_t SplitExtent(const WindowGeometry& g) {
  return g.one_dimensional ? g.out_width : g.out_height;
}

double ConvFlops(const WindowGeometry& g, int64_t groups) {
  return 2.0 * g.images * g.out_height * g.out_width * g.out_channels * g.kernel_height *
         g.kernel_width * (g.in_channels / groups);
}

double ConvBytes(const WindowGeometry& g, const DnnlConvMath& math) {
  const double in = 1.0 * g.images * g.in_channels * g.in_height * g.in_width;
  const double out = 1.0 * g.images * g.out_channels * g.out_height * g.out_width;
  const double weights =
      1.0 * g.out_channels * g.kernel_height * g.kernel_width * (g.in_channels / math.groups);
  return in * DTypeSizeBytes(math.source) + out * DTypeSizeBytes(math.target) +
         weights * DTypeSizeBytes(math.weights);
}

std::string MathKey(const DnnlConvMath& m) {
  std::string key = "t";
  for (DType t : {m.source, m.weights, m.target, m.bias, m.sum_type}) {
    key += std::to_string(static_cast<int>(t)) + ",";
  }
  auto add_float = [&](float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    key += std::to_string(bits) + ",";
  };
  key += "g" + std::to_string(m.groups) + m.activation.name + ":";
  for (float p : m.activation.params) add_float(p);
  for (float v : {m.activation_scale, m.sum_scale, m.final_scale}) add_float(v);
  key += "s" + std::to_string(m.sum) + "," + std::to_string(m.sum_zero_point) + "z" +
         std::to_string(m.source_zero_point) + "," + std::to_string(m.target_zero_point) + "o";
  for (float v : m.output_scales) add_float(v);
  return key;
}

dnnl::primitive_attr AttributesOf(const DnnlConvMath& m) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (!m.output_scales.empty()) {
    attr.set_output_scales(m.output_scales.size() == 1 ? 0 : 2, m.output_scales);
  }
  if (m.source_zero_point) attr.set_zero_points(DNNL_ARG_SRC, 0, {m.source_zero_point});
  if (m.target_zero_point) attr.set_zero_points(DNNL_ARG_DST, 0, {m.target_zero_point});
  dnnl::post_ops ops;
  if (m.sum) {
    ops.append_sum(
        m.sum_scale, m.sum_zero_point,
        m.sum_type == DType::kUndefined ? memory::data_type::undef : DnnlType(m.sum_type));
  }
  if (!m.activation.name.empty()) AppendActivation(m.activation, m.activation_scale, ops);
  if (m.final_scale != 1) ops.append_eltwise(1, algorithm::eltwise_linear, m.final_scale, 0);
  attr.set_post_ops(ops);
  return attr;
}

}  // namespace

memory::data_type DnnlType(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return memory::data_type::bf16;
    case DType::kUint8:
      return memory::data_type::u8;
    case DType::kInt8:
      return memory::data_type::s8;
    case DType::kInt32:
      return memory::data_type::s32;
    default:
      return memory::data_type::f32;
  }
}

Activation ActivationOf(const Node& node) {
  return {node.StringAttr("activation", ""), node.FloatsAttr("activation_params")};
}

bool DnnlKnows(const Activation& activation) {
  for (const char* name : {"", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Gelu", "GeluTanh", "Clip",
                           "HardSigmoid", "HardSwish", "Silu", "Elu", "Softplus"}) {
    if (activation.name == name) return true;
  }
  return false;
}

bool IsScalable(const Activation& activation) {
  return activation.name.empty() || activation.name == "Relu" || activation.name == "LeakyRelu" ||
         activation.name == "Clip";
}

void AppendActivation(const Activation& activation, float scale, dnnl::post_ops& ops) {
  const std::string& name = activation.name;
  if (name == "Relu") {
    ops.append_eltwise(1, algorithm::eltwise_relu, 0, 0);
  } else if (name == "LeakyRelu") {
    ops.append_eltwise(1, algorithm::eltwise_relu, activation.Param(0, 0.01f), 0);
  } else if (name == "Sigmoid") {
    ops.append_eltwise(1, algorithm::eltwise_logistic, 0, 0);
  } else if (name == "Tanh") {
    ops.append_eltwise(1, algorithm::eltwise_tanh, 0, 0);
  } else if (name == "Gelu") {
    ops.append_eltwise(1, algorithm::eltwise_gelu_erf, 0, 0);
  } else if (name == "GeluTanh") {
    ops.append_eltwise(1, algorithm::eltwise_gelu_tanh, 0, 0);
  } else if (name == "Clip") {
    ops.append_eltwise(1, algorithm::eltwise_clip, activation.Param(0, -3.4e38f) / scale,
                       activation.Param(1, 3.4e38f) / scale);
  } else if (name == "HardSigmoid") {
    ops.append_eltwise(1, algorithm::eltwise_linear, activation.Param(0, 0.2f),
                       activation.Param(1, 0.5f));
    ops.append_eltwise(1, algorithm::eltwise_clip, 0, 1);
  } else if (name == "HardSwish") {
    ops.append_eltwise(1, algorithm::eltwise_hardswish, 0, 0);
  } else if (name == "Silu") {
    ops.append_eltwise(1, algorithm::eltwise_swish, 1, 0);
  } else if (name == "Elu") {
    ops.append_eltwise(1, algorithm::eltwise_elu, activation.Param(0, 1), 0);
  } else if (name == "Softplus") {
    ops.append_eltwise(1, algorithm::eltwise_soft_relu, 0, 0);
  }
}

// The constant's own order; `stored` is its dtype, which bf16 weights are rounded from.
memory::desc PlainWeightsDesc(const WindowGeometry& g, const DnnlConvMath& math, DType stored) {
  const auto type = DnnlType(stored);
  if (math.weights_by_input) {
    return memory::desc({g.out_channels, g.in_channels, 1, 1}, type,
                        memory::dims{1, g.out_channels, 1, 1});
  }
  if (math.groups == 1) {
    return memory::desc({g.out_channels, g.in_channels, g.kernel_height, g.kernel_width}, type,
                        Tag::oihw);
  }
  return memory::desc({math.groups, g.out_channels / math.groups, g.in_channels / math.groups,
                       g.kernel_height, g.kernel_width},
                      type, Tag::goihw);
}

Result<DnnlPrimitivePtr> MakeDnnlConv(const WindowGeometry& g, const DnnlConvMath& math,
                                      const memory::desc* weights_desc, memory::desc* chosen) {
  memory::desc packed;
  auto make_desc = [&] {
    const memory::desc source({g.images, g.in_channels, g.in_height, g.in_width},
                              DnnlType(math.source), Tag::nhwc);
    const memory::desc target({g.images, g.out_channels, g.out_height, g.out_width},
                              DnnlType(math.target), Tag::nhwc);
    memory::desc weights;
    if (weights_desc) {
      weights = *weights_desc;
    } else {
      const memory::desc plain = PlainWeightsDesc(g, math, math.weights);
      weights = memory::desc(plain.dims(), plain.data_type(), Tag::any);
    }
    memory::desc bias;
    if (math.bias != DType::kUndefined) {
      bias = memory::desc({g.out_channels}, DnnlType(math.bias), Tag::x);
    }
    return dnnl::convolution_forward::desc(
        dnnl::prop_kind::forward_inference, algorithm::convolution_direct, source, weights, bias,
        target, {g.stride_height, g.stride_width}, {g.dilation_height - 1, g.dilation_width - 1},
        {g.pad_top, g.pad_left}, {g.pad_bottom, g.pad_right});
  };
  using PrimitiveDesc = dnnl::convolution_forward::primitive_desc;
  std::string key = "conv:" + GeometryKey(g) + MathKey(math);
  if (!weights_desc || chosen) {
    try {
      OneThreadScope one_thread;
      packed = PrimitiveDesc(make_desc(), AttributesOf(math), DnnlEngine()).weights_desc();
    } catch (const dnnl::error& e) {
      return UnimplementedError(std::string("oneDNN: ") + (e.message ? e.message : "error"));
    }
    if (chosen) *chosen = packed;
    weights_desc = &packed;
  }
  key += DescKey(*weights_desc);
  PLEXUS_ASSIGN_OR_RETURN(DnnlPrimitivePtr primitive, CachedPrimitive(key, [&] {
                            PrimitiveDesc desc(make_desc(), AttributesOf(math), DnnlEngine());
                            std::vector<DnnlPrimitive::Slot> slots = {
                                {DNNL_ARG_SRC, desc.src_desc()}, {DNNL_ARG_DST, desc.dst_desc()}};
                            return std::make_shared<DnnlPrimitive>(
                                dnnl::convolution_forward(desc), std::move(slots),
                                desc.scratchpad_desc(), desc.impl_info_str());
                          }));
  if (primitive->implementation().rfind("ref", 0) == 0) {
    return UnimplementedError("oneDNN has only its reference convolution");
  }
  return primitive;
}

namespace {

// One block: a tile of one image, or several whole images.
struct ConvBlock {
  uint32_t primitive = 0;
  int64_t in_pixel = 0, out_pixel = 0, out_pixels = 0;  // from the tensors' first pixels
};

struct ConvPlan {
  std::vector<DnnlPrimitivePtr> primitives;
  std::vector<ConvBlock> blocks;
  memory::desc weights;
  size_t scratch_bytes = 0;
};

// Tile sizes: `tiles` nearly equal parts of the split axis. kUnimplemented as MakeDnnlConv.
Status PlanTiles(const WindowGeometry& g, const DnnlConvMath& math, int64_t tiles, ConvPlan& plan) {
  const int64_t extent = SplitExtent(g);
  std::map<std::string, uint32_t> known;
  const int64_t in_pixels = g.in_height * g.in_width, out_pixels = g.out_height * g.out_width;
  for (int64_t image = 0; image < g.images; ++image) {
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t rows = (extent + tiles - 1) / tiles;
      const int64_t begin = t * rows, end = std::min(extent, begin + rows);
      if (begin >= end) continue;
      const WindowTile tile = TileOf(g, begin, end - begin);
      const WindowGeometry& tg = tile.geometry;
      if (tg.pad_top < 0 || tg.pad_left < 0 || tg.pad_bottom < 0 || tg.pad_right < 0) {
        return UnimplementedError("a window lies wholly in the padding");
      }
      const std::string key = GeometryKey(tg);
      auto [it, fresh] = known.try_emplace(key, static_cast<uint32_t>(plan.primitives.size()));
      if (fresh) {
        PLEXUS_ASSIGN_OR_RETURN(DnnlPrimitivePtr primitive,
                                MakeDnnlConv(tg, math, &plan.weights, nullptr));
        plan.scratch_bytes = std::max(plan.scratch_bytes, primitive->scratch_bytes());
        plan.primitives.push_back(std::move(primitive));
      }
      plan.blocks.push_back({it->second, image * in_pixels + tile.in_offset,
                             image * out_pixels + tile.out_offset, tg.out_height * tg.out_width});
    }
  }
  return OkStatus();
}

// Groups of whole images, for batches of small ones.
Status PlanImages(const WindowGeometry& g, const DnnlConvMath& math, int64_t blocks,
                  ConvPlan& plan) {
  const int64_t per_block = (g.images + blocks - 1) / blocks;
  const int64_t in_pixels = g.in_height * g.in_width, out_pixels = g.out_height * g.out_width;
  std::map<int64_t, uint32_t> known;
  for (int64_t image = 0; image < g.images; image += per_block) {
    WindowGeometry part = g;
    part.images = std::min(per_block, g.images - image);
    auto [it, fresh] =
        known.try_emplace(part.images, static_cast<uint32_t>(plan.primitives.size()));
    if (fresh) {
      PLEXUS_ASSIGN_OR_RETURN(DnnlPrimitivePtr primitive,
                              MakeDnnlConv(part, math, &plan.weights, nullptr));
      plan.scratch_bytes = std::max(plan.scratch_bytes, primitive->scratch_bytes());
      plan.primitives.push_back(std::move(primitive));
    }
    plan.blocks.push_back(
        {it->second, image * in_pixels, image * out_pixels, part.images * out_pixels});
  }
  return OkStatus();
}

Result<ConvPlan> PlanConv(const LoweringContext& context, const WindowGeometry& g,
                          const DnnlConvMath& math) {
  ConvPlan plan;
  WindowGeometry one = g;
  one.images = 1;
  PLEXUS_ASSIGN_OR_RETURN(DnnlPrimitivePtr whole, MakeDnnlConv(one, math, nullptr, &plan.weights));
  const double flops = ConvFlops(g, math.groups), bytes = ConvBytes(g, math);
  const int64_t wanted = context.GridFor(flops, bytes, int64_t{1} << 16);
  if (wanted < 2 * g.images && g.images > 1) {
    PLEXUS_RETURN_IF_ERROR(PlanImages(g, math, std::min(wanted, g.images), plan));
    return plan;
  }
  const int64_t row_pixels = g.one_dimensional ? 1 : g.out_width;
  const int64_t min_rows = std::max<int64_t>(1, (kMinTilePixels + row_pixels - 1) / row_pixels);
  const int64_t most = (SplitExtent(g) + min_rows - 1) / min_rows;
  const int64_t tiles = std::clamp<int64_t>((wanted + g.images - 1) / g.images, 1, most);
  // The layout of the packed weights that suits a whole image need not suit a tile: then the tile's
  // own choice, if all tiles can use that.
  const memory::desc whole_weights = plan.weights;
  auto attempt = [&](int64_t count, const memory::desc& weights) {
    plan.primitives.clear();
    plan.blocks.clear();
    plan.scratch_bytes = 0;
    plan.weights = weights;
    return PlanTiles(g, math, count, plan);
  };
  if (attempt(tiles, whole_weights).ok()) return plan;
  for (int64_t count = tiles; count > 1; count = (count + 1) / 2) {
    const int64_t rows = (SplitExtent(g) + count - 1) / count;
    memory::desc tile_weights;
    const WindowGeometry middle = TileOf(g, rows, std::min(rows, SplitExtent(g) - rows)).geometry;
    if (MakeDnnlConv(middle, math, nullptr, &tile_weights).ok() &&
        attempt(count, tile_weights).ok()) {
      return plan;
    }
    if (count < tiles && attempt(count, whole_weights).ok()) return plan;
    if (count == 2) break;
  }
  PLEXUS_RETURN_IF_ERROR(attempt(1, whole_weights));
  return plan;
}

}  // namespace

Status CheckDnnlConv(const LoweringContext& context, const WindowGeometry& geometry,
                     const DnnlConvMath& math) {
  return PlanConv(context, geometry, math).status();
}

Status AddDnnlConv(LoweringContext& context, const WindowGeometry& g, const DnnlConvMath& math,
                   DnnlConvOperands operands) {
  PLEXUS_ASSIGN_OR_RETURN(ConvPlan plan, PlanConv(context, g, math));
  std::vector<FixedArgument> fixed;
  PLEXUS_ASSIGN_OR_RETURN(
      DerivedPtr packed,
      PackConstant(*operands.weights, PlainWeightsDesc(g, math, operands.weights->dtype()),
                   plan.weights));
  fixed.push_back({DNNL_ARG_WEIGHTS, memory(plan.weights, DnnlEngine(), packed->buffer->data())});
  if (math.bias != DType::kUndefined) {
    fixed.push_back({DNNL_ARG_BIAS, memory({{g.out_channels}, DnnlType(math.bias), Tag::x},
                                           DnnlEngine(), operands.bias.raw_mutable())});
  }
  context.CountConstantBytes(packed->size_bytes() + operands.bias.size_bytes());

  KernelSpec kernel;
  kernel.name = operands.name;
  kernel.grid = static_cast<uint32_t>(plan.blocks.size());
  kernel.flops = ConvFlops(g, math.groups);
  kernel.bytes = ConvBytes(g, math);
  kernel.scratch_bytes = plan.scratch_bytes;
  kernel.reads = {operands.source};
  if (operands.copy_residual) kernel.reads.push_back(operands.residual);
  kernel.writes = {operands.target};
  const size_t in_bytes = static_cast<size_t>(g.in_channels) * DTypeSizeBytes(math.source);
  const size_t out_bytes = static_cast<size_t>(g.out_channels) * DTypeSizeBytes(math.target);
  struct Shared {
    ConvPlan plan;
    std::vector<FixedArgument> fixed;
    DerivedPtr packed;
    Tensor bias;
  };
  auto shared = std::make_shared<const Shared>(
      Shared{std::move(plan), std::move(fixed), packed, operands.bias});
  const bool copy = operands.copy_residual;
  kernel.run = [shared, in_bytes, out_bytes, copy](uint32_t first, uint32_t count,
                                                   const BlockArgs& args) -> Status {
    for (uint32_t i = first; i < first + count; ++i) {
      const ConvBlock& block = shared->plan.blocks[i];
      std::byte* target = args.Out<std::byte>(0) + block.out_pixel * out_bytes;
      if (copy) {
        std::memcpy(target, args.In<std::byte>(1) + block.out_pixel * out_bytes,
                    block.out_pixels * out_bytes);
      }
      void* addresses[2] = {args.operands[0] + block.in_pixel * in_bytes, target};
      PLEXUS_RETURN_IF_ERROR(
          shared->plan.primitives[block.primitive]->Run(addresses, shared->fixed, args.scratch));
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
