// MatMul, Gemm and plexus.MatMul in float32, on our own packed multiplication (gemm.h).
#include <algorithm>
#include <array>

#include "device/cpu/gemm_job.h"

namespace plexus::cpu {

namespace {

// y = activation(alpha · a·b + bias + residual), as all three operators say it.
struct Product {
  ValueId a, b, bias, residual, y;
  bool trans_a = false, trans_b = false;
  GemmArgs epilogue;                          // alpha and the activation
  int64_t rows = 0, depth = 0, columns = 0;   // of one matrix
  std::vector<int64_t> a_offsets, b_offsets;  // per matrix, in elements; one if b is shared
};

// Sizes and broadcasting of the leading axes.
Status Resolve(const LoweringContext& context, Product& p) {
  Shape a = context.shape(p.a);
  const Shape& b = context.shape(p.b);
  if (a.empty() || b.empty() || (p.trans_a && a.size() < 2) || (p.trans_b && b.size() < 2)) {
    return UnimplementedError("scalar or transposed vector operand");
  }
  if (p.trans_a) {
    // Channels-last, [N, depth, rows] lies as the product reads it, and often does already.
    if (a.size() != 3) return UnimplementedError("transposed left operand");
    std::swap(a[1], a[2]);
  }
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
  job.cut = CutGemm(p.rows, p.columns, p.depth, static_cast<double>(p.rows * p.depth),
                    (wanted + matrices - 1) / matrices);
  job.a_offsets = p.a_offsets;
  job.b_offsets = p.b_offsets;
  job.base = p.epilogue;
  job.base.lda = p.depth;
  job.base.ldc = p.columns;
  job.base.rows = p.rows;
  job.base.depth = p.depth;
  job.base.last_column = p.columns;

  PLEXUS_ASSIGN_OR_RETURN(Operand a,
                          context.Read(p.a, p.trans_a ? Layout::kChannelsLast : Layout::kRowMajor));
  kernel.reads = {a};
  if (job.packed) {
    PLEXUS_ASSIGN_OR_RETURN(
        DerivedPtr packed,
        PackGemmConstant(*context.graph().value(p.b).constant, p.depth, p.columns, p.trans_b, 1));
    kernel.reads.push_back(context.ConstantOperand(std::move(packed)));
  } else {
    PLEXUS_ASSIGN_OR_RETURN(Operand b, context.Read(p.b, Layout::kRowMajor));
    kernel.reads.push_back(b);
    job.b_row_stride = p.trans_b ? 1 : p.columns;
    job.b_column_stride = p.trans_b ? p.depth : 1;
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
  SetGemmKernel(std::move(job), kernel);
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
    p.epilogue.alpha = node.FloatAttr("alpha", 1);
    if (!SetGemmActivation(ActivationOf(node), p.epilogue))
      return UnimplementedError("unknown activation");
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
  p.epilogue.alpha = node.FloatAttr("alpha", 1);
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
