#include "device/cpu/layout_kernels.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "program/reference/reference.h"

namespace plexus::cpu {

namespace {

struct Same {
  template <typename T>
  static T Convert(T v) {
    return v;
  }
};
struct ToBFloat16 {
  static uint16_t Convert(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 64);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }
};
struct FromBFloat16 {
  static float Convert(uint16_t v) {
    const uint32_t bits = static_cast<uint32_t>(v) << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  }
};

// to[p * to_stride + c] or to[c * pixels + p] from the other order; `pixels` is the whole plane,
// [begin, end) the range of pixels to convert.
struct PlaneJob {
  int64_t channels, pixels;
  bool from_last, to_last;
  int64_t from_stride, to_stride;
};

template <typename Op, typename From, typename To>
void ConvertPlane(const PlaneJob& job, const From* from, To* to, int64_t begin, int64_t end) {
  const int64_t from_p = job.from_last ? job.from_stride : 1;
  const int64_t from_c = job.from_last ? 1 : job.pixels;
  const int64_t to_p = job.to_last ? job.to_stride : 1;
  const int64_t to_c = job.to_last ? 1 : job.pixels;
  constexpr int64_t kTile = 16;
  if (from_c == 1 && to_c == 1) {
    if (std::is_same_v<Op, Same> && job.channels > 1) {
      for (int64_t p = begin; p < end; ++p) {
        std::memcpy(to + p * to_p, from + p * from_p, job.channels * sizeof(To));
      }
      return;
    }
    for (int64_t p = begin; p < end; ++p) {
      for (int64_t c = 0; c < job.channels; ++c) {
        to[p * to_p + c] = Op::Convert(from[p * from_p + c]);
      }
    }
    return;
  }
  if (job.channels <= 4) {
    for (int64_t c = 0; c < job.channels; ++c) {
      const From* source = from + c * from_c;
      To* target = to + c * to_c;
      for (int64_t p = begin; p < end; ++p) target[p * to_p] = Op::Convert(source[p * from_p]);
    }
    return;
  }
  for (int64_t p0 = begin; p0 < end; p0 += kTile) {
    const int64_t p1 = std::min(end, p0 + kTile);
    for (int64_t c0 = 0; c0 < job.channels; c0 += kTile) {
      const int64_t c1 = std::min(job.channels, c0 + kTile);
      for (int64_t c = c0; c < c1; ++c) {
        const From* source = from + c * from_c;
        To* target = to + c * to_c;
        for (int64_t p = p0; p < p1; ++p) target[p * to_p] = Op::Convert(source[p * from_p]);
      }
    }
  }
}

using PlaneFunction = void (*)(const PlaneJob&, const std::byte*, std::byte*, int64_t, int64_t);

template <typename Op, typename From, typename To>
void ConvertBytes(const PlaneJob& job, const std::byte* from, std::byte* to, int64_t begin,
                  int64_t end) {
  ConvertPlane<Op>(job, reinterpret_cast<const From*>(from), reinterpret_cast<To*>(to), begin, end);
}

PlaneFunction FindPlaneFunction(DType from, DType to) {
  if (from == to) {
    switch (DTypeSizeBytes(from)) {
      case 1:
        return ConvertBytes<Same, uint8_t, uint8_t>;
      case 2:
        return ConvertBytes<Same, uint16_t, uint16_t>;
      case 4:
        return ConvertBytes<Same, uint32_t, uint32_t>;
      case 8:
        return ConvertBytes<Same, uint64_t, uint64_t>;
      default:
        return nullptr;
    }
  }
  if (from == DType::kFloat32 && to == DType::kBFloat16) {
    return ConvertBytes<ToBFloat16, float, uint16_t>;
  }
  if (from == DType::kBFloat16 && to == DType::kFloat32) {
    return ConvertBytes<FromBFloat16, uint16_t, float>;
  }
  return nullptr;
}

struct Conversion {
  PlaneFunction function = nullptr;
  PlaneJob job;
  int64_t images = 1;
  size_t from_image_bytes = 0, to_image_bytes = 0;
};

Result<Conversion> MakeConversion(const ConversionSpec& spec) {
  Conversion conversion;
  conversion.function = FindPlaneFunction(spec.from_dtype, spec.to_dtype);
  if (!conversion.function) {
    return UnimplementedError("no conversion from " + std::string(DTypeName(spec.from_dtype)) +
                              " to " + std::string(DTypeName(spec.to_dtype)));
  }
  PlaneJob& job = conversion.job;
  const int64_t elements = NumElementsUnchecked(spec.shape);
  job.from_last = spec.from_layout == Layout::kChannelsLast;
  job.to_last = spec.to_layout == Layout::kChannelsLast;
  if (!job.from_last && !job.to_last) {
    // Plain copy: one "pixel" per element.
    job.from_last = job.to_last = true;
    job.channels = 1;
    job.pixels = elements;
    job.from_stride = job.to_stride = 1;
  } else {
    conversion.images = spec.shape[0];
    job.channels = spec.shape[1];
    job.pixels = elements / (spec.shape[0] * spec.shape[1]);
    job.from_stride = spec.from_pixel_stride ? spec.from_pixel_stride : job.channels;
    job.to_stride = spec.to_pixel_stride ? spec.to_pixel_stride : job.channels;
  }
  conversion.from_image_bytes = static_cast<size_t>(job.pixels) *
                                (job.from_last ? job.from_stride : job.channels) *
                                DTypeSizeBytes(spec.from_dtype);
  conversion.to_image_bytes = static_cast<size_t>(job.pixels) *
                              (job.to_last ? job.to_stride : job.channels) *
                              DTypeSizeBytes(spec.to_dtype);
  return conversion;
}

const char* LayoutName(Layout layout) {
  return layout == Layout::kChannelsLast ? "channels-last" : "row-major";
}

}  // namespace

Status AddConversion(LoweringContext& context, const ConversionSpec& spec, Operand from, Operand to,
                     const std::string& value_name) {
  PLEXUS_ASSIGN_OR_RETURN(Conversion conversion, MakeConversion(spec));
  const double elements = static_cast<double>(NumElementsUnchecked(spec.shape));
  KernelSpec kernel;
  if (spec.from_layout == spec.to_layout && spec.from_dtype == spec.to_dtype) {
    kernel.name = "copy (" + value_name + ")";
  } else {
    kernel.name = std::string("to ") + LayoutName(spec.to_layout) + " " +
                  std::string(DTypeName(spec.to_dtype)) + " (" + value_name + ")";
  }
  kernel.bytes = elements * (DTypeSizeBytes(spec.from_dtype) + DTypeSizeBytes(spec.to_dtype));
  const int64_t pixels = conversion.job.pixels;
  const int64_t chunks_per_image = std::max<int64_t>(
      1, std::min<int64_t>(pixels / 16, context.GridFor(0, kernel.bytes, int64_t{1} << 16) /
                                            std::max<int64_t>(conversion.images, 1)));
  kernel.grid = static_cast<uint32_t>(conversion.images * chunks_per_image);
  if (context.GridFor(0, kernel.bytes, int64_t{1} << 16) == 1) kernel.grid = 1;
  kernel.reads = {from};
  kernel.writes = {to};
  const int64_t total = conversion.images * chunks_per_image;
  const uint32_t grid = kernel.grid;
  kernel.run = [conversion, chunks_per_image, total, grid](uint32_t first, uint32_t count,
                                                           const BlockArgs& args) {
    const int64_t begin = grid == 1 ? 0 : first;
    const int64_t end = grid == 1 ? total : int64_t{first} + count;
    const int64_t pixels = conversion.job.pixels;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t image = block / chunks_per_image, chunk = block % chunks_per_image;
      conversion.function(
          conversion.job, args.In<std::byte>(0) + image * conversion.from_image_bytes,
          args.Out<std::byte>(0) + image * conversion.to_image_bytes,
          pixels * chunk / chunks_per_image, pixels * (chunk + 1) / chunks_per_image);
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

Result<Tensor> ConvertConstant(const Tensor& plain, Layout layout, DType dtype) {
  ConversionSpec spec;
  spec.shape = plain.shape();
  spec.from_dtype = plain.dtype();
  spec.to_layout = layout;
  spec.to_dtype = dtype;
  PLEXUS_ASSIGN_OR_RETURN(Tensor result, Tensor::Allocate(dtype, LoweringContext::PhysicalShape(
                                                                     plain.shape(), layout)));
  if (plain.num_elements() == 0) return result;
  PLEXUS_ASSIGN_OR_RETURN(Conversion conversion, MakeConversion(spec));
  for (int64_t image = 0; image < conversion.images; ++image) {
    conversion.function(conversion.job, plain.raw() + image * conversion.from_image_bytes,
                        result.raw_mutable() + image * conversion.to_image_bytes, 0,
                        conversion.job.pixels);
  }
  return result;
}

namespace {

// What a reference kernel keeps: a graph with just the node's neighbourhood is not needed, the
// region is copied once per program and shared by all its reference kernels.
struct ReferenceCall {
  std::shared_ptr<const Graph> graph;
  NodeId node;
  struct Source {
    bool defined = false;
    Tensor constant;       // defined(): use this
    uint32_t operand = 0;  // else read this operand
    DType dtype = DType::kUndefined;
    Shape shape;
  };
  std::vector<Source> inputs, captures;
  struct Target {
    bool wanted = false;
    uint32_t operand = 0;
    DType dtype = DType::kUndefined;
    Shape shape;
  };
  std::vector<Target> outputs;

  Status Run(const BlockArgs& args) const;
};

Tensor WrapOperand(const ReferenceCall::Source& source, const BlockArgs& args) {
  if (!source.defined) return Tensor();
  if (source.constant.defined()) return source.constant;
  const size_t size =
      static_cast<size_t>(NumElementsUnchecked(source.shape)) * DTypeSizeBytes(source.dtype);
  // The reference only reads its inputs.
  auto* data = const_cast<std::byte*>(args.In<std::byte>(source.operand));
  return Tensor::FromBuffer(source.dtype, source.shape, Buffer::Wrap(data, size, nullptr));
}

Status ReferenceCall::Run(const BlockArgs& args) const {
  std::vector<Tensor> in, captured;
  for (const Source& source : inputs) in.push_back(WrapOperand(source, args));
  for (const Source& source : captures) captured.push_back(WrapOperand(source, args));
  const Node& n = graph->node(node);
  PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> results,
                          ReferenceEvaluator::Get().Evaluate(*graph, n, in, captured));
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].wanted) continue;
    if (i >= results.size() || results[i].dtype() != outputs[i].dtype ||
        results[i].shape() != outputs[i].shape) {
      return InternalError("node '" + n.name + "' (" + n.op + "): output " + std::to_string(i) +
                           " should be " + std::string(DTypeName(outputs[i].dtype)) +
                           ShapeToString(outputs[i].shape) + " but is " +
                           (i < results.size() ? TensorToString(results[i], 0) : "missing"));
    }
    if (results[i].size_bytes() > 0) {
      std::memcpy(args.Out<std::byte>(outputs[i].operand), results[i].raw(),
                  results[i].size_bytes());
    }
  }
  return OkStatus();
}

}  // namespace

Status AddReferenceKernel(LoweringContext& context, const Node& node) {
  if (!ReferenceEvaluator::Get().Supports(node)) {
    return UnimplementedError("operator " + (node.domain.empty() ? "" : node.domain + ".") +
                              node.op + " version " + std::to_string(node.version) +
                              " is not known");
  }
  auto call = std::make_shared<ReferenceCall>();
  call->graph = context.shared_graph();
  call->node = NodeId(static_cast<uint32_t>(&node - context.graph().nodes().data()));
  KernelSpec kernel;
  kernel.name = context.KernelName(node.op + " by reference", node);
  auto add_source = [&](ValueId v, std::vector<ReferenceCall::Source>& to) -> Status {
    ReferenceCall::Source source;
    if (v.valid()) {
      source.defined = true;
      source.dtype = context.dtype(v);
      source.shape = context.shape(v);
      if (context.IsConstant(v)) {
        PLEXUS_ASSIGN_OR_RETURN(source.constant, context.Contents(v));
      } else {
        PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Read(v, Layout::kRowMajor));
        source.operand = static_cast<uint32_t>(kernel.reads.size());
        kernel.reads.push_back(operand);
      }
      kernel.bytes += static_cast<double>(context.num_elements(v)) * DTypeSizeBytes(source.dtype);
    }
    to.push_back(std::move(source));
    return OkStatus();
  };
  for (ValueId v : node.inputs) PLEXUS_RETURN_IF_ERROR(add_source(v, call->inputs));
  for (ValueId v : node.implicit_inputs) PLEXUS_RETURN_IF_ERROR(add_source(v, call->captures));
  for (ValueId v : node.outputs) {
    ReferenceCall::Target target;
    if (v.valid()) {
      target.wanted = true;
      target.dtype = context.dtype(v);
      target.shape = context.shape(v);
      PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Write(v, Layout::kRowMajor));
      target.operand = static_cast<uint32_t>(kernel.writes.size());
      kernel.writes.push_back(operand);
      kernel.bytes += static_cast<double>(context.num_elements(v)) * DTypeSizeBytes(target.dtype);
    }
    call->outputs.push_back(std::move(target));
  }
  // References take a few nanoseconds per byte, and tensors are wrapped.
  kernel.time = Duration(2000) + Duration(static_cast<int64_t>(kernel.bytes * 2));
  kernel.run = [call](uint32_t, uint32_t, const BlockArgs& args) { return call->Run(args); };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
