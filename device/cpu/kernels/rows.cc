// Operators on rows: Softmax, LogSoftmax, the normalisations and the reductions.
#include "device/cpu/kernels/rows.h"

#include <algorithm>
#include <array>

#include "device/cpu/kernels/isa.h"
#include "device/cpu/kernels/row_kernels.h"
#include "device/cpu/kernels/strided.h"

namespace plexus::cpu {

PLEXUS_DEFINE_BEST(RowKernels, kRowKernels)

namespace {

// What a kernel over `units` independent rows needs besides its function.
struct RowsKernel {
  KernelSpec spec;
  int64_t units = 0;
  double work = 0;  // flops of equal duration
};

using RunUnits = std::function<void(int64_t begin, int64_t end, const BlockArgs&)>;

void AddRows(LoweringContext& context, RowsKernel kernel, RunUnits run) {
  kernel.spec.flops = kernel.work;
  kernel.spec.grid = context.GridFor(kernel.work, kernel.spec.bytes, kernel.units);
  kernel.spec.run = [run = std::move(run), units = kernel.units, grid = int64_t{kernel.spec.grid}](
                        uint32_t first, uint32_t count, const BlockArgs& args) {
    run(units * first / grid, units * (int64_t{first} + count) / grid, args);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel.spec));
}

Result<size_t> Axis(int64_t axis, size_t rank) {
  if (axis < 0) axis += static_cast<int64_t>(rank);
  if (axis < 0 || axis >= static_cast<int64_t>(rank)) return InvalidArgumentError("axis");
  return static_cast<size_t>(axis);
}

int64_t Product(const Shape& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t i = begin; i < end; ++i) product *= shape[i];
  return product;
}

bool AllFloat32(const LoweringContext& context, const Node& node) {
  for (ValueId v : node.inputs) {
    if (v.valid() && context.dtype(v) != DType::kFloat32) return false;
  }
  return context.dtype(node.outputs[0]) == DType::kFloat32;
}

Status LowerSoftmax(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  if (!AllFloat32(context, node) || shape.empty()) return UnimplementedError("not float32 rows");
  const bool old = node.version > 0 && node.version < 13;
  PLEXUS_ASSIGN_OR_RETURN(size_t axis, Axis(node.IntAttr("axis", old ? 1 : -1), shape.size()));
  const Layout layout = old ? Layout::kRowMajor : context.PreferredLayout(node);
  const Shape physical = LoweringContext::PhysicalShape(shape, layout);
  if (layout == Layout::kChannelsLast && axis > 0) axis = axis == 1 ? shape.size() - 1 : axis - 1;
  const int64_t outer = Product(physical, 0, axis);
  const int64_t n = old ? Product(physical, axis, physical.size()) : physical[axis];
  const int64_t inner = old ? 1 : Product(physical, axis + 1, physical.size());
  const bool log = node.op == "LogSoftmax";
  RowsKernel kernel;
  kernel.spec.name = context.KernelName(log ? "log softmax" : "softmax", node);
  kernel.spec.bytes = 8.0 * context.num_elements(x);
  kernel.work = 60.0 * context.num_elements(x);
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, layout));
  bool in_place = false;
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.WriteOver(y, layout, x, &in_place));
  kernel.spec.reads = {in};
  kernel.spec.writes = {out};
  if (inner == 1) {
    kernel.units = outer;
    AddRows(context, std::move(kernel), [=](int64_t begin, int64_t end, const BlockArgs& args) {
      BestRowKernels().softmax(args.In<float>(0) + begin * n, args.Out<float>(0) + begin * n,
                               end - begin, n, log);
    });
    return OkStatus();
  }
  const int64_t chunk = 64, chunks = (inner + chunk - 1) / chunk;
  kernel.units = outer * chunks;
  AddRows(context, std::move(kernel), [=](int64_t begin, int64_t end, const BlockArgs& args) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t at = u / chunks * n * inner + u % chunks * chunk;
      BestRowKernels().softmax_columns(args.In<float>(0) + at, args.Out<float>(0) + at, n, inner,
                                       std::min(chunk, inner - u % chunks * chunk), log);
    }
  });
  return OkStatus();
}

// LayerNormalization, RMSNormalization: the trailing axes from `axis`.
Status LowerLayerNorm(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), scale = context.In(node, 1), bias = context.In(node, 2);
  const ValueId y = context.Out(node, 0);
  if (!AllFloat32(context, node)) return UnimplementedError("not float32");
  if (context.Out(node, 1).valid() || context.Out(node, 2).valid()) {
    return UnimplementedError("mean or deviation wanted");
  }
  const Shape& shape = context.shape(x);
  PLEXUS_ASSIGN_OR_RETURN(const size_t axis, Axis(node.IntAttr("axis", -1), shape.size()));
  const int64_t rows = Product(shape, 0, axis), n = Product(shape, axis, shape.size());
  for (ValueId v : {scale, bias}) {
    if (v.valid() && context.num_elements(v) != n) return UnimplementedError("scale broadcasts");
  }
  const bool centred = node.op == "LayerNormalization";
  const float epsilon = node.FloatAttr("epsilon", 1e-5f);
  RowsKernel kernel;
  kernel.spec.name = context.KernelName(centred ? "layer norm" : "rms norm", node);
  kernel.spec.bytes = 8.0 * context.num_elements(x);
  kernel.work = 20.0 * context.num_elements(x);
  kernel.units = rows;
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, Layout::kRowMajor));
  kernel.spec.reads = {in};
  int operand[2] = {-1, -1};
  for (int i = 0; i < 2; ++i) {
    const ValueId v = i == 0 ? scale : bias;
    if (!v.valid()) continue;
    PLEXUS_ASSIGN_OR_RETURN(Operand parameter, context.Read(v, Layout::kRowMajor));
    operand[i] = static_cast<int>(kernel.spec.reads.size());
    kernel.spec.reads.push_back(parameter);
  }
  bool in_place = false;
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.WriteOver(y, Layout::kRowMajor, x, &in_place));
  kernel.spec.writes = {out};
  const int scale_at = operand[0], bias_at = operand[1];
  AddRows(context, std::move(kernel), [=](int64_t begin, int64_t end, const BlockArgs& args) {
    BestRowKernels().norm(args.In<float>(0) + begin * n,
                          scale_at < 0 ? nullptr : args.In<float>(scale_at),
                          bias_at < 0 ? nullptr : args.In<float>(bias_at),
                          args.Out<float>(0) + begin * n, end - begin, n, epsilon, centred);
  });
  return OkStatus();
}

// InstanceNormalization, and GroupNormalization with a scale for each channel (version 21), on
// row-major data: each group of channels is one row.
Status LowerGroupNorm(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), scale = context.In(node, 1), bias = context.In(node, 2);
  const ValueId y = context.Out(node, 0);
  const Shape& shape = context.shape(x);
  if (!AllFloat32(context, node) || shape.size() < 3) return UnimplementedError("not float32");
  const int64_t channels = shape[1];
  const int64_t groups =
      node.op == "InstanceNormalization" ? channels : node.IntAttr("num_groups", 1);
  if (groups < 1 || channels % groups != 0) return InvalidArgumentError("num_groups");
  if (context.num_elements(scale) != channels || context.num_elements(bias) != channels) {
    return UnimplementedError("scales of groups");
  }
  const int64_t parts = channels / groups, rows = shape[0] * groups;
  const int64_t n = context.num_elements(x) / rows;
  const float epsilon = node.FloatAttr("epsilon", 1e-5f);
  RowsKernel kernel;
  kernel.spec.name = context.KernelName("group norm", node);
  kernel.spec.bytes = 8.0 * context.num_elements(x);
  kernel.work = 20.0 * context.num_elements(x);
  kernel.units = rows;
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, Layout::kRowMajor));
  PLEXUS_ASSIGN_OR_RETURN(Operand s, context.Read(scale, Layout::kRowMajor));
  PLEXUS_ASSIGN_OR_RETURN(Operand b, context.Read(bias, Layout::kRowMajor));
  bool in_place = false;
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.WriteOver(y, Layout::kRowMajor, x, &in_place));
  kernel.spec.reads = {in, s, b};
  kernel.spec.writes = {out};
  AddRows(context, std::move(kernel), [=](int64_t begin, int64_t end, const BlockArgs& args) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t channel = r % groups * parts;
      BestRowKernels().norm_parts(args.In<float>(0) + r * n, args.In<float>(1) + channel,
                                  args.In<float>(2) + channel, args.Out<float>(0) + r * n, n, parts,
                                  epsilon);
    }
  });
  return OkStatus();
}

struct ReduceName {
  std::string_view name;
  ReduceOp op;
};
constexpr ReduceName kReduceNames[] = {
    {"ReduceSum", ReduceOp::kSum},   {"ReduceMean", ReduceOp::kMean},
    {"ReduceMax", ReduceOp::kMax},   {"ReduceMin", ReduceOp::kMin},
    {"ReduceProd", ReduceOp::kProd}, {"ReduceSumSquare", ReduceOp::kSumSquare},
    {"ReduceL2", ReduceOp::kL2},     {"ReduceL1", ReduceOp::kL1},
};

// [outer, n, inner] in memory order with n reduced; false if the reduced axes are not neighbours.
bool AsOneAxis(const Shape& physical, const std::vector<bool>& reduced, int64_t* outer, int64_t* n,
               int64_t* inner) {
  *outer = *n = *inner = 1;
  int phase = 0;
  for (size_t i = 0; i < physical.size(); ++i) {
    if (physical[i] == 1) continue;
    if (reduced[i]) {
      if (phase == 2) return false;
      phase = 1;
      *n *= physical[i];
    } else {
      if (phase == 1) phase = 2;
      (phase == 2 ? *inner : *outer) *= physical[i];
    }
  }
  return true;
}

Status LowerReduce(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0), list = context.In(node, 1);
  const Shape& shape = context.shape(x);
  if (context.dtype(x) != DType::kFloat32) return UnimplementedError("not float32");
  std::vector<int64_t> axes = node.IntsAttr("axes");
  if (list.valid()) {
    if (!context.IsConstant(list)) return UnimplementedError("axes are not constant");
    PLEXUS_ASSIGN_OR_RETURN(Tensor contents, context.Contents(list));
    PLEXUS_ASSIGN_OR_RETURN(axes, ToInt64Vector(contents));
  }
  if (axes.empty() && node.IntAttr("noop_with_empty_axes", 0) != 0) {
    return UnimplementedError("no axes");
  }
  std::vector<bool> reduced(shape.size(), axes.empty());
  for (int64_t a : axes) {
    PLEXUS_ASSIGN_OR_RETURN(const size_t axis, Axis(a, shape.size()));
    reduced[axis] = true;
  }
  // Where the input is held channels-last, reduce it so if the output's bytes are in that order.
  const Shape& out_shape = context.shape(y);
  const bool keeps = out_shape.size() == shape.size();
  Layout layout = shape.size() >= 3 ? context.layout(x) : Layout::kRowMajor;
  Layout out_layout = layout;
  if (layout == Layout::kChannelsLast && !keeps) {
    bool all_spatial = true;
    for (size_t i = 2; i < shape.size(); ++i) {
      all_spatial = all_spatial && (reduced[i] || shape[i] == 1);
    }
    out_layout = Layout::kRowMajor;
    const bool channel_gone = reduced[1] || shape[1] == 1;
    if (!all_spatial && !channel_gone) layout = Layout::kRowMajor;
  }
  auto physical_reduced = [&] {
    std::vector<bool> in_order;
    for (size_t axis : MemoryOrder(shape.size(), layout)) in_order.push_back(reduced[axis]);
    return in_order;
  };
  int64_t outer, n, inner;
  if (!AsOneAxis(LoweringContext::PhysicalShape(shape, layout), physical_reduced(), &outer, &n,
                 &inner)) {
    layout = out_layout = Layout::kRowMajor;
    if (!AsOneAxis(shape, physical_reduced(), &outer, &n, &inner)) {
      return UnimplementedError("axes are not neighbours");
    }
  }
  const auto* name = std::find_if(std::begin(kReduceNames), std::end(kReduceNames),
                                  [&](const ReduceName& r) { return r.name == node.op; });
  const int op = static_cast<int>(name->op);
  RowsKernel kernel;
  kernel.spec.name = context.KernelName(std::string(node.op), node);
  kernel.spec.bytes = 4.0 * (context.num_elements(x) + context.num_elements(y));
  kernel.work = static_cast<double>(context.num_elements(x));
  PLEXUS_ASSIGN_OR_RETURN(Operand in, context.Read(x, layout));
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.Write(y, out_layout));
  kernel.spec.reads = {in};
  kernel.spec.writes = {out};
  if (inner == 1) {
    kernel.units = outer;
    AddRows(context, std::move(kernel), [=](int64_t begin, int64_t end, const BlockArgs& args) {
      const auto reduce = BestRowKernels().reduce_row[op];
      for (int64_t r = begin; r < end; ++r) {
        args.Out<float>(0)[r] = reduce(args.In<float>(0) + r * n, n);
      }
    });
    return OkStatus();
  }
  const int64_t chunk = 64, chunks = (inner + chunk - 1) / chunk;
  kernel.units = outer * chunks;
  AddRows(context, std::move(kernel), [=](int64_t begin, int64_t end, const BlockArgs& args) {
    const auto reduce = BestRowKernels().reduce_columns[op];
    for (int64_t u = begin; u < end; ++u) {
      const int64_t column = u % chunks * chunk;
      reduce(args.In<float>(0) + u / chunks * n * inner + column,
             args.Out<float>(0) + u / chunks * inner + column, n, inner,
             std::min(chunk, inner - column));
    }
  });
  return OkStatus();
}

constexpr std::array kRules = {
    LoweringEntry{"", "Softmax", LowerSoftmax},
    LoweringEntry{"", "LogSoftmax", LowerSoftmax},
    LoweringEntry{"", "LayerNormalization", LowerLayerNorm},
    LoweringEntry{"", "RMSNormalization", LowerLayerNorm},
    LoweringEntry{"", "InstanceNormalization", LowerGroupNorm},
    LoweringEntry{"", "GroupNormalization", LowerGroupNorm},
    LoweringEntry{"", "ReduceSum", LowerReduce},
    LoweringEntry{"", "ReduceMean", LowerReduce},
    LoweringEntry{"", "ReduceMax", LowerReduce},
    LoweringEntry{"", "ReduceMin", LowerReduce},
    LoweringEntry{"", "ReduceProd", LowerReduce},
    LoweringEntry{"", "ReduceSumSquare", LowerReduce},
    LoweringEntry{"", "ReduceL2", LowerReduce},
    LoweringEntry{"", "ReduceL1", LowerReduce},
};

}  // namespace

std::span<const LoweringEntry> RowRules() { return kRules; }

}  // namespace plexus::cpu
