// ConvTranspose in float32 whose windows do not overlap: enlargement by a learnt pattern.
#include "device/cpu/conv_transpose.h"

#include <algorithm>

#include "device/cpu/gemm_job.h"

namespace plexus::cpu {

namespace {

struct Job {
  int64_t in_rows = 0;  // of all images
  int64_t in_width = 0, in_channels = 0;
  int64_t kernel_height = 1;
  int64_t line = 0;         // floats that one pixel makes in one row of the output
  int64_t line_floats = 0;  // of one kernel row's packed weights
};

// Every pixel's kernel rows lie side by side in as many rows of the output: one matrix product of a
// row of pixels per kernel row.
void RunRow(const Job& job, int64_t row, const BlockArgs& args) {
  GemmArgs g;
  g.a = args.In<float>(0) + row * job.in_width * job.in_channels;
  g.lda = g.depth = job.in_channels;
  g.rows = job.in_width;
  g.ldc = g.last_column = job.line;
  g.bias = args.In<float>(2);
  for (int64_t ky = 0; ky < job.kernel_height; ++ky) {
    g.b = args.In<float>(1) + ky * job.line_floats;
    g.c = args.Out<float>(0) + (row * job.kernel_height + ky) * job.in_width * job.line;
    BestGemm().run(g);
  }
}

// [C, M, kh, kw] as kh packed matrices [C, kw · M].
Result<DerivedPtr> PackWeights(const Constant& weights, int64_t kernel_height,
                               int64_t kernel_width) {
  const int64_t depth = weights.shape()[0], filters = weights.shape()[1];
  const int64_t line = kernel_width * filters, taps = kernel_height * kernel_width;
  const std::string key = "conv_transpose:" + std::to_string(BestGemm().panel) + ":" +
                          std::to_string(kernel_height) + "x" + std::to_string(kernel_width);
  return weights.Derived(key, [=](const Tensor& plain) -> Result<DerivedConstant> {
    DerivedConstant derived;
    const int64_t line_floats = PackedFloats(depth, line);
    PLEXUS_ASSIGN_OR_RETURN(derived.buffer,
                            Buffer::Allocate(kernel_height * line_floats * sizeof(float)));
    const float* from = plain.data<float>().data();
    float* to = reinterpret_cast<float*>(derived.buffer->data());
    std::vector<float> matrix(depth * line);
    for (int64_t ky = 0; ky < kernel_height; ++ky, to += line_floats) {
      float* element = matrix.data();
      for (int64_t c = 0; c < depth; ++c) {
        for (int64_t kx = 0; kx < kernel_width; ++kx) {
          for (int64_t m = 0; m < filters; ++m) {
            *element++ = from[(c * filters + m) * taps + ky * kernel_width + kx];
          }
        }
      }
      PackGemm(matrix.data(), line, 1, depth, 0, line, line, to);
    }
    return derived;
  });
}

// The bias once for each kernel column; zeros without one.
Result<Tensor> LineBias(const LoweringContext& context, ValueId b, int64_t filters, int64_t line) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor bias, Tensor::Allocate(DType::kFloat32, {line}));
  float* to = bias.mutable_data<float>().data();
  std::fill_n(to, line, 0.0f);
  if (!b.valid()) return bias;
  PLEXUS_ASSIGN_OR_RETURN(const Tensor given, context.Contents(b));
  for (int64_t i = 0; i < line; ++i) to[i] = given.data<float>()[i % filters];
  return bias;
}

bool AllAre(const std::vector<int64_t>& values, int64_t wanted) {
  return std::all_of(values.begin(), values.end(), [=](int64_t v) { return v == wanted; });
}

Status CheckTiles(const LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), w = context.In(node, 1), b = context.In(node, 2);
  if (context.dtype(x) != DType::kFloat32 || !context.IsConstant(w) ||
      (b.valid() && !context.IsConstant(b))) {
    return UnimplementedError("not float32, or weights are not constant");
  }
  const Shape &in = context.shape(x), &kernel = context.shape(w);
  const Shape& out = context.shape(context.Out(node, 0));
  std::vector<int64_t> strides = node.IntsAttr("strides");
  if (strides.empty()) strides.assign(in.size() - 2, 1);
  bool tiles = in.size() >= 3 && in.size() <= 4 && strides.size() == in.size() - 2 &&
               node.IntAttr("group", 1) == 1 && node.StringAttr("auto_pad", "NOTSET") == "NOTSET" &&
               !node.HasAttr("output_shape") && AllAre(node.IntsAttr("pads"), 0) &&
               AllAre(node.IntsAttr("output_padding"), 0) && AllAre(node.IntsAttr("dilations"), 1);
  for (size_t i = 2; tiles && i < in.size(); ++i) {
    tiles = strides[i - 2] == kernel[i] && out[i] == in[i] * kernel[i];
  }
  return tiles ? OkStatus() : UnimplementedError("windows overlap, are padded or grouped");
}

}  // namespace

Status LowerConvTranspose(LoweringContext& context, const Node& node) {
  PLEXUS_RETURN_IF_ERROR(CheckTiles(context, node));
  const ValueId x = context.In(node, 0), w = context.In(node, 1), y = context.Out(node, 0);
  const Shape &in = context.shape(x), &weights = context.shape(w);
  const bool plane = in.size() == 4;
  const int64_t kernel_width = weights.back(), filters = weights[1];
  Job job;
  job.kernel_height = plane ? weights[2] : 1;
  job.in_rows = in[0] * (plane ? in[2] : 1);
  job.in_width = in.back();
  job.in_channels = in[1];
  job.line = kernel_width * filters;
  job.line_floats = PackedFloats(job.in_channels, job.line);
  PLEXUS_ASSIGN_OR_RETURN(Tensor bias, LineBias(context, context.In(node, 2), filters, job.line));
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed, PackWeights(*context.graph().value(w).constant,
                                                         job.kernel_height, kernel_width));

  KernelSpec kernel;
  kernel.name = context.KernelName(
      "transposed conv " + std::to_string(job.kernel_height) + "x" + std::to_string(kernel_width) +
          " " + std::to_string(job.in_channels) + "→" + std::to_string(filters),
      node);
  const auto in_floats = static_cast<double>(context.num_elements(x));
  kernel.flops = 2 * in_floats * static_cast<double>(job.kernel_height * job.line);
  kernel.bytes = 4 * (in_floats + static_cast<double>(context.num_elements(y)));
  kernel.grid = context.GridFor(kernel.flops, kernel.bytes, job.in_rows);
  PLEXUS_ASSIGN_OR_RETURN(Operand source, context.Read(x, Layout::kChannelsLast));
  kernel.reads = {source, context.ConstantOperand(std::move(packed)),
                  context.ConstantOperand(std::move(bias))};
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.Write(y, Layout::kChannelsLast));
  kernel.writes = {target};
  kernel.run = [job, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                  const BlockArgs& args) {
    const int64_t end = job.in_rows * (int64_t{first} + count) / grid;
    for (int64_t row = job.in_rows * first / grid; row < end; ++row) RunRow(job, row, args);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
