// MatMul, Gemm and plexus.MatMul in float32, on our own packed multiplication (gemm.h).
#include <algorithm>
#include <array>
#include <cstring>

#include "device/cpu/dnnl_conv.h"
#include "device/cpu/gemm.h"

namespace plexus::cpu {

namespace {

// y = activation(alpha · a·b + bias + residual), as all three operators say it.
struct Product {
  ValueId a, b, bias, residual, y;
  bool trans_a = false, trans_b = false;
  float alpha = 1;
  GemmActivation activation = GemmActivation::kNone;
  float p0 = 0, p1 = 0;
  int64_t rows = 0, depth = 0, columns = 0;   // of one matrix
  std::vector<int64_t> a_offsets, b_offsets;  // per matrix, in elements; one if b is shared
};

bool FindActivation(const Activation& activation, Product& product) {
  struct Known {
    const char* name;
    GemmActivation code;
    float p0, p1;
  };
  constexpr float kHuge = 3.4e38f;
  static constexpr Known kKnown[] = {
      {"", GemmActivation::kNone, 0, 0},
      {"Relu", GemmActivation::kRelu, 0, 0},
      {"LeakyRelu", GemmActivation::kLeakyRelu, 0.01f, 0},
      {"Sigmoid", GemmActivation::kSigmoid, 0, 0},
      {"Tanh", GemmActivation::kTanh, 0, 0},
      {"Gelu", GemmActivation::kGelu, 0, 0},
      {"GeluTanh", GemmActivation::kGeluTanh, 0, 0},
      {"Clip", GemmActivation::kClip, -kHuge, kHuge},
      {"HardSigmoid", GemmActivation::kHardSigmoid, 0.2f, 0.5f},
      {"HardSwish", GemmActivation::kHardSwish, 0, 0},
      {"Silu", GemmActivation::kSilu, 0, 0},
  };
  for (const Known& known : kKnown) {
    if (activation.name != known.name) continue;
    product.activation = known.code;
    product.p0 = activation.Param(0, known.p0);
    product.p1 = activation.Param(1, known.p1);
    return true;
  }
  return false;
}

// Sizes and broadcasting of the leading axes.
Status Resolve(const LoweringContext& context, Product& p) {
  const Shape& a = context.shape(p.a);
  const Shape& b = context.shape(p.b);
  if (a.empty() || b.empty() || (p.trans_a && a.size() < 2) || (p.trans_b && b.size() < 2)) {
    return UnimplementedError("scalar or transposed vector operand");
  }
  if (p.trans_a) return UnimplementedError("transposed left operand");
  if (b.size() < 2) return UnimplementedError("vector right operand");
  const int64_t b_rows = b[b.size() - 2], b_columns = b[b.size() - 1];
  p.columns = p.trans_b ? b_rows : b_columns;
  p.depth = p.trans_b ? b_columns : b_rows;
  if (a.back() != p.depth) return InvalidArgumentError("inner dimensions differ");
  const int64_t b_matrices = context.num_elements(p.b) / (b_rows * b_columns);
  if (b_matrices == 1) {
    p.rows = context.num_elements(p.a) / p.depth;
    p.a_offsets = p.b_offsets = {0};
    return OkStatus();
  }
  if (a.size() < 2) return UnimplementedError("vector left operand of a batch");
  p.rows = a[a.size() - 2];
  const size_t batch_rank = std::max(a.size(), b.size()) - 2;
  auto extent = [batch_rank](const Shape& s, size_t axis) {
    const size_t missing = batch_rank - (s.size() - 2);
    return axis < missing ? int64_t{1} : s[axis - missing];
  };
  p.a_offsets = p.b_offsets = {0};
  int64_t a_stride = p.rows * p.depth, b_stride = b_rows * b_columns;
  std::vector<int64_t> a_strides(batch_rank), b_strides(batch_rank), extents(batch_rank);
  for (size_t axis = batch_rank; axis-- > 0;) {
    const int64_t ea = extent(a, axis), eb = extent(b, axis);
    extents[axis] = std::max(ea, eb);
    a_strides[axis] = ea == 1 ? 0 : a_stride;
    b_strides[axis] = eb == 1 ? 0 : b_stride;
    a_stride *= ea;
    b_stride *= eb;
  }
  for (size_t axis = 0; axis < batch_rank; ++axis) {
    std::vector<int64_t> next_a, next_b;
    for (size_t i = 0; i < p.a_offsets.size(); ++i) {
      for (int64_t e = 0; e < extents[axis]; ++e) {
        next_a.push_back(p.a_offsets[i] + e * a_strides[axis]);
        next_b.push_back(p.b_offsets[i] + e * b_strides[axis]);
      }
    }
    p.a_offsets = std::move(next_a);
    p.b_offsets = std::move(next_b);
  }
  return OkStatus();
}

// Blocks of one matrix: row chunks × column chunks.
struct Cut {
  int64_t row_chunks = 1, rows_per_chunk = 0;
  int64_t column_chunks = 1, columns_per_chunk = 0;
};

Cut CutOf(const Product& p, int64_t wanted) {
  const int64_t panel = BestGemm().panel;
  const int64_t panels = (p.columns + panel - 1) / panel;
  Cut cut;
  const int64_t most_rows = std::max<int64_t>(1, p.rows / 48);
  if (p.rows >= 512) {
    cut.row_chunks = std::min(wanted, most_rows);
    cut.column_chunks = std::min(panels, (wanted + cut.row_chunks - 1) / cut.row_chunks);
  } else {
    cut.column_chunks = std::min(panels, wanted);
    cut.row_chunks = std::min(most_rows, (wanted + cut.column_chunks - 1) / cut.column_chunks);
  }
  const int64_t panels_per_chunk = (panels + cut.column_chunks - 1) / cut.column_chunks;
  cut.columns_per_chunk = panels_per_chunk * panel;
  cut.column_chunks = (panels + panels_per_chunk - 1) / panels_per_chunk;
  // Full register tiles: 12 rows suit every build.
  cut.rows_per_chunk = ((p.rows + cut.row_chunks - 1) / cut.row_chunks + 11) / 12 * 12;
  cut.row_chunks = (p.rows + cut.rows_per_chunk - 1) / cut.rows_per_chunk;
  return cut;
}

// b packed once, shared by content; its plain bytes are given up.
Result<DerivedPtr> PackWeights(const LoweringContext& context, const Product& p) {
  const ConstantPtr& constant = context.graph().value(p.b).constant;
  const int64_t depth = p.depth, columns = p.columns;
  const int64_t row_stride = p.trans_b ? 1 : columns, column_stride = p.trans_b ? depth : 1;
  const std::string key = "gemm:" + std::to_string(BestGemm().panel) + ":" + std::to_string(depth) +
                          "x" + std::to_string(columns) + (p.trans_b ? "t" : "n");
  auto make = [&](const Tensor& plain) -> Result<DerivedConstant> {
    DerivedConstant derived;
    // The kernels prefetch beyond the end but never read there.
    PLEXUS_ASSIGN_OR_RETURN(derived.buffer,
                            Buffer::Allocate(PackedFloats(depth, columns) * sizeof(float)));
    PackGemm(plain.data<float>().data(), row_stride, column_stride, depth, 0, columns, columns,
             reinterpret_cast<float*>(derived.buffer->data()));
    return derived;
  };
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed, constant->Derived(key, make));
  const Shape shape = constant->shape();
  constant->EvictPlain(packed, [=](const DerivedConstant& derived) -> Result<Tensor> {
    PLEXUS_ASSIGN_OR_RETURN(Tensor plain, Tensor::Allocate(DType::kFloat32, shape));
    UnpackGemm(reinterpret_cast<const float*>(derived.buffer->data()), depth, columns,
               plain.mutable_data<float>().data(), row_stride, column_stride);
    return plain;
  });
  return packed;
}

// What a block needs, whichever way b comes.
struct GemmJob {
  GemmArgs base;
  Cut cut;
  int64_t columns = 0;
  std::vector<int64_t> a_offsets, b_offsets;
  bool packed = true;
  int64_t b_row_stride = 0, b_column_stride = 0;
  int bias_operand = -1, residual_operand = -1;
};

Status RunGemm(const GemmJob& job, uint32_t first, uint32_t count, const BlockArgs& args) {
  const GemmKernel& kernel = BestGemm();
  const Cut& cut = job.cut;
  const int64_t per_matrix = cut.row_chunks * cut.column_chunks;
  for (int64_t block = first; block < int64_t{first} + count; ++block) {
    const int64_t matrix = block / per_matrix, part = block % per_matrix;
    const int64_t row = part % cut.row_chunks * cut.rows_per_chunk;
    const int64_t column = part / cut.row_chunks * cut.columns_per_chunk;
    const int64_t c_offset = (matrix * job.base.rows + row) * job.base.ldc;
    GemmArgs g = job.base;
    g.rows = std::min(cut.rows_per_chunk, job.base.rows - row);
    g.a = args.In<float>(0) + job.a_offsets[matrix] + row * g.lda;
    g.c = args.Out<float>(0) + c_offset;
    if (job.bias_operand >= 0) g.bias = args.In<float>(job.bias_operand);
    if (job.residual_operand >= 0) g.residual = args.In<float>(job.residual_operand) + c_offset;
    g.first_column = column;
    g.last_column = std::min(job.columns, column + cut.columns_per_chunk);
    if (job.packed) {
      g.b = args.In<float>(1);
      kernel.run(g);
      continue;
    }
    // b is made at run time: pack one panel after the other into the scratch.
    const float* b = args.In<float>(1) + job.b_offsets[matrix];
    float* scratch = reinterpret_cast<float*>(args.scratch);
    const int64_t last = g.last_column;
    for (int64_t c = column; c < last; c += kernel.panel) {
      g.first_column = c;
      g.last_column = std::min(last, c + kernel.panel);
      PackGemm(b, job.b_row_stride, job.b_column_stride, g.depth, c, g.last_column, job.columns,
               scratch - c * g.depth);
      g.b = scratch - c * g.depth;
      kernel.run(g);
    }
  }
  return OkStatus();
}

Status LowerProduct(LoweringContext& context, const Node& node, Product p) {
  if (context.dtype(p.a) != DType::kFloat32 || context.dtype(p.b) != DType::kFloat32) {
    return UnimplementedError("not float32");
  }
  PLEXUS_RETURN_IF_ERROR(Resolve(context, p));
  if (p.bias.valid() && context.num_elements(p.bias) != p.columns) {
    return UnimplementedError("bias is not one number per column");
  }
  if (p.residual.valid() && context.shape(p.residual) != context.shape(p.y)) {
    return UnimplementedError("residual has another shape");
  }
  const int64_t matrices = static_cast<int64_t>(p.a_offsets.size());
  KernelSpec kernel;
  kernel.name = context.KernelName("matmul " + std::to_string(p.rows) + "x" +
                                       std::to_string(p.depth) + "x" + std::to_string(p.columns),
                                   node);
  kernel.flops = 2.0 * matrices * p.rows * p.depth * p.columns;
  kernel.bytes =
      4.0 * (context.num_elements(p.a) + context.num_elements(p.b) + context.num_elements(p.y));
  const int64_t wanted = context.GridFor(kernel.flops, kernel.bytes, int64_t{1} << 16);

  GemmJob job;
  job.packed = context.IsConstant(p.b) && matrices == 1;
  job.cut = CutOf(p, (wanted + matrices - 1) / matrices);
  job.columns = p.columns;
  job.a_offsets = p.a_offsets;
  job.b_offsets = p.b_offsets;
  job.base.lda = p.depth;
  job.base.ldc = p.columns;
  job.base.rows = p.rows;
  job.base.depth = p.depth;
  job.base.alpha = p.alpha;
  job.base.activation = p.activation;
  job.base.p0 = p.p0;
  job.base.p1 = p.p1;
  kernel.grid = static_cast<uint32_t>(matrices * job.cut.row_chunks * job.cut.column_chunks);

  PLEXUS_ASSIGN_OR_RETURN(Operand a, context.Read(p.a, Layout::kRowMajor));
  kernel.reads = {a};
  if (job.packed) {
    PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed, PackWeights(context, p));
    kernel.reads.push_back(context.ConstantOperand(std::move(packed)));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(Operand b, context.Read(p.b, Layout::kRowMajor));
    kernel.reads.push_back(b);
    job.b_row_stride = p.trans_b ? 1 : p.columns;
    job.b_column_stride = p.trans_b ? p.depth : 1;
    kernel.scratch_bytes = PackedFloats(p.depth, BestGemm().panel) * sizeof(float);
  }
  if (p.bias.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(Operand bias, context.Read(p.bias, Layout::kRowMajor));
    job.bias_operand = static_cast<int>(kernel.reads.size());
    kernel.reads.push_back(bias);
  }
  Operand y;
  if (p.residual.valid()) {
    PLEXUS_ASSIGN_OR_RETURN(Operand residual, context.Read(p.residual, Layout::kRowMajor));
    job.residual_operand = static_cast<int>(kernel.reads.size());
    kernel.reads.push_back(residual);
    bool in_place = false;
    // Each element of the residual is read just before its result is written. Not if a is the
    // residual as well: other blocks still read a's rows.
    const ValueId over = p.residual == p.a || p.residual == p.b ? ValueId() : p.residual;
    PLEXUS_ASSIGN_OR_RETURN(y, context.WriteOver(p.y, Layout::kRowMajor, over, &in_place));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(y, context.Write(p.y, Layout::kRowMajor));
  }
  kernel.writes = {y};
  kernel.run = [job = std::move(job)](uint32_t first, uint32_t count, const BlockArgs& args) {
    return RunGemm(job, first, count, args);
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

Status LowerMatMul(LoweringContext& context, const Node& node) {
  Product p;
  p.a = context.In(node, 0);
  p.b = context.In(node, 1);
  p.y = context.Out(node, 0);
  if (node.domain == "plexus") {
    p.bias = context.In(node, 2);
    p.residual = context.In(node, 3);
    p.trans_a = node.IntAttr("trans_a", 0) != 0;
    p.trans_b = node.IntAttr("trans_b", 0) != 0;
    p.alpha = node.FloatAttr("alpha", 1);
    if (!FindActivation(ActivationOf(node), p)) return UnimplementedError("unknown activation");
  }
  return LowerProduct(context, node, p);
}

Status LowerGemm(LoweringContext& context, const Node& node) {
  Product p;
  p.a = context.In(node, 0);
  p.b = context.In(node, 1);
  p.y = context.Out(node, 0);
  p.trans_a = node.IntAttr("transA", 0) != 0;
  p.trans_b = node.IntAttr("transB", 0) != 0;
  p.alpha = node.FloatAttr("alpha", 1);
  const ValueId c = context.In(node, 2);
  if (c.valid()) {
    if (node.FloatAttr("beta", 1) != 1) return UnimplementedError("beta is not 1");
    if (context.shape(c) == context.shape(p.y) && context.shape(c)[0] != 1) {
      p.residual = c;
    } else {
      p.bias = c;  // checked to be one number per column
    }
  }
  return LowerProduct(context, node, p);
}

constexpr std::array kRules = {
    LoweringEntry{"", "MatMul", LowerMatMul},
    LoweringEntry{"", "Gemm", LowerGemm},
    LoweringEntry{"plexus", "MatMul", LowerMatMul},
};

}  // namespace

std::span<const LoweringEntry> MatMulRules() { return kRules; }

}  // namespace plexus::cpu
