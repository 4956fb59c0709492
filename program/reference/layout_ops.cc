// Operators that move elements without looking at them: Transpose, Concat, Slice, Pad and kin.
#include <algorithm>
#include <limits>
#include <numeric>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// out[i0, i1, ...] = x[tables[0][i0], tables[1][i1], ...]; elements with a -1 are left as they are.
void TakeByTables(const Tensor& x, const std::vector<std::vector<int64_t>>& tables, Tensor& out) {
  const std::vector<int64_t> strides = RowMajorStrides(x.shape());
  int64_t at = 0;
  for (Odometer walk(out.shape(), {}); !walk.done(); walk.Next(), ++at) {
    int64_t source = 0;
    for (size_t axis = 0; axis < tables.size() && source >= 0; ++axis) {
      const int64_t index = tables[axis][walk.index()[axis]];
      source = index < 0 ? -1 : source + index * strides[axis];
    }
    if (source >= 0) CopyElements(x, source, out, at, 1);
  }
}

Status TransposeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const int64_t rank = ctx.Input(0).rank();
  std::vector<int64_t> perm = ctx.node.IntsAttr("perm");
  if (!ctx.node.HasAttr("perm")) {
    perm.resize(rank);
    std::iota(perm.rbegin(), perm.rend(), 0);
  }
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> sorted, NormalizeAxes(perm, rank));
  if (static_cast<int64_t>(sorted.size()) != rank) {
    return InvalidArgumentError("attribute 'perm' does not name every axis");
  }
  for (int64_t& axis : perm) axis += axis < 0 ? rank : 0;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], TransposeTensor(ctx.Input(0), perm));
  return OkStatus();
}

Status ConcatOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, std::max<size_t>(1, ctx.num_inputs())));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConcatTensors(ctx.inputs, ctx.node.IntAttr("axis", 1)));
  return OkStatus();
}

Result<std::vector<int64_t>> SplitSizes(const OpContext& ctx, int64_t extent) {
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> sizes, IntsInputOrAttr(ctx, 1, "split"));
  const int64_t parts = ctx.num_outputs();
  if (!ctx.HasInput(1) && !ctx.node.HasAttr("split")) {
    // From opset 18 the last part may be smaller.
    const bool uneven = ctx.node.HasAttr("num_outputs");
    if (!uneven && extent % parts != 0) {
      return InvalidArgumentError("axis of " + std::to_string(extent) +
                                  " does not split evenly into " + std::to_string(parts));
    }
    const int64_t size = (extent + parts - 1) / parts;
    for (int64_t i = 0; i < parts; ++i) {
      sizes.push_back(std::clamp<int64_t>(extent - i * size, 0, size));
    }
  }
  int64_t left = extent;
  for (int64_t size : sizes) {
    if (size < 0 || size > left) return InvalidArgumentError("the sizes do not add up");
    left -= size;
  }
  if (left != 0 || static_cast<int64_t>(sizes.size()) != parts) {
    return InvalidArgumentError("the sizes do not add up");
  }
  return sizes;
}

Status SplitOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(int64_t axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> sizes, SplitSizes(ctx, x.shape()[axis]));
  int64_t begin = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[i], TakeRange(x, axis, begin, sizes[i]));
    begin += sizes[i];
  }
  return OkStatus();
}

// --- Slice ---------------------------------------------------------------------------------------

struct SliceAxis {
  int64_t start;
  int64_t step;
  int64_t count;
};

SliceAxis ResolveSlice(int64_t extent, int64_t start, int64_t end, int64_t step) {
  // Steps beyond any extent act alike; the clamp keeps the arithmetic below in range.
  step = std::clamp(step, -(int64_t{1} << 60), int64_t{1} << 60);
  if (start < 0) start += extent;
  if (end < 0) end += extent;
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, extent);
    end = std::clamp<int64_t>(end, 0, extent);
    return {start, step, end > start ? (end - start - 1) / step + 1 : 0};
  }
  start = std::clamp<int64_t>(start, -1, extent - 1);
  end = std::clamp<int64_t>(end, -1, extent - 1);
  return {start, step, start > end ? (start - end - 1) / -step + 1 : 0};
}

Status SliceWith(OpContext& ctx, const std::vector<int64_t>& starts,
                 const std::vector<int64_t>& ends, std::vector<int64_t> axes,
                 std::vector<int64_t> steps, bool has_axes) {
  const Tensor& x = ctx.Input(0);
  if (!has_axes) {
    axes.resize(starts.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() ||
      steps.size() != starts.size()) {
    return InvalidArgumentError("starts, ends, axes and steps differ in length");
  }
  PLEXUS_RETURN_IF_ERROR(NormalizeAxes(axes, x.rank()).status());
  std::vector<int64_t> strides = RowMajorStrides(x.shape());
  Shape shape = x.shape();
  int64_t offset = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(int64_t axis, NormalizeAxis(axes[i], x.rank()));
    if (steps[i] == 0) return InvalidArgumentError("a step is 0");
    const SliceAxis slice = ResolveSlice(x.shape()[axis], starts[i], ends[i], steps[i]);
    shape[axis] = slice.count;
    if (slice.count > 0) offset += slice.start * strides[axis];
    strides[axis] = slice.count > 1 ? strides[axis] * slice.step : 0;
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  CopyStrided(x, offset, strides, y, 0, RowMajorStrides(shape), shape);
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status SliceOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> starts, IntsInput(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> ends, IntsInput(ctx, 2));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> axes, IntsInputOrAttr(ctx, 3, ""));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> steps, IntsInputOrAttr(ctx, 4, ""));
  return SliceWith(ctx, starts, ends, axes, steps, ctx.HasInput(3));
}

Status SliceOp1(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  return SliceWith(ctx, ctx.node.IntsAttr("starts"), ctx.node.IntsAttr("ends"),
                   ctx.node.IntsAttr("axes"), {}, ctx.node.HasAttr("axes"));
}

// --- Tile, Pad, crop -----------------------------------------------------------------------------

Status TileOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> repeats, IntsInput(ctx, 1));
  if (static_cast<int64_t>(repeats.size()) != x.rank()) {
    return InvalidArgumentError("needs one repeat count per axis");
  }
  Shape shape = x.shape();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (repeats[i] < 0 || __builtin_mul_overflow(shape[i], repeats[i], &shape[i])) {
      return InvalidArgumentError("repeat count " + std::to_string(repeats[i]));
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  if (y.num_elements() > 0) {
    // Axis by axis as [repeat, extent]: a copy with stride 0 over the repeats.
    Shape split;
    std::vector<int64_t> strides;
    const std::vector<int64_t> from = RowMajorStrides(x.shape());
    for (size_t i = 0; i < shape.size(); ++i) {
      split.insert(split.end(), {repeats[i], x.shape()[i]});
      strides.insert(strides.end(), {0, from[i]});
    }
    CopyStrided(x, 0, strides, y, 0, RowMajorStrides(split), split);
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// Where position `i` of an axis of `extent` elements, extended on both sides, comes from; -1: from
// the padding value.
int64_t PadSource(const std::string& mode, int64_t i, int64_t extent) {
  if (i >= 0 && i < extent) return i;
  if (mode == "edge") return i < 0 ? 0 : extent - 1;
  if (mode == "reflect") {
    if (extent == 1) return 0;
    const int64_t period = 2 * (extent - 1);
    const int64_t at = ((i % period) + period) % period;
    return at < extent ? at : period - at;
  }
  if (mode == "wrap") return ((i % extent) + extent) % extent;
  return -1;
}

Status PadWith(OpContext& ctx, const std::vector<int64_t>& pads, const std::vector<int64_t>& axes,
               const Tensor& value) {
  const Tensor& x = ctx.Input(0);
  const std::string mode = ctx.node.StringAttr("mode", "constant");
  if (mode != "constant" && mode != "edge" && mode != "reflect" && mode != "wrap") {
    return InvalidArgumentError("attribute 'mode' is '" + mode + "'");
  }
  if (pads.size() != 2 * axes.size()) return InvalidArgumentError("needs two pads per axis");
  Shape shape = x.shape();
  std::vector<int64_t> before(x.rank(), 0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = axes[i];
    before[axis] = pads[i];
    if (__builtin_add_overflow(shape[axis], pads[i], &shape[axis]) ||
        __builtin_add_overflow(shape[axis], pads[axes.size() + i], &shape[axis]) ||
        shape[axis] < 0) {
      return InvalidArgumentError("the pads leave nothing of axis " + std::to_string(axis));
    }
    if (mode != "constant" && x.shape()[axis] == 0 && shape[axis] > 0) {
      return InvalidArgumentError("an empty axis has nothing to pad with");
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  if (mode == "constant") {
    if (value.num_elements() != 1 || value.dtype() != x.dtype()) {
      return InvalidArgumentError("the padding value must be one element of the input's type");
    }
    FillWith(y, value);
  }
  std::vector<std::vector<int64_t>> tables(x.rank());
  for (int64_t axis = 0; y.num_elements() > 0 && axis < x.rank(); ++axis) {
    for (int64_t i = 0; i < shape[axis]; ++i) {
      tables[axis].push_back(PadSource(mode, i - before[axis], x.shape()[axis]));
    }
  }
  TakeByTables(x, tables, y);
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Result<Tensor> ZeroOf(DType dtype) {
  if (dtype == DType::kString) return Tensor::FromStrings({}, {""});
  return NewZeroTensor(dtype, {});
}

Status PadOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const int64_t rank = ctx.Input(0).rank();
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> pads, IntsInput(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> axes, IntsInputOrAttr(ctx, 3, ""));
  if (!ctx.HasInput(3)) {
    axes.resize(rank);
    std::iota(axes.begin(), axes.end(), 0);
  }
  PLEXUS_RETURN_IF_ERROR(NormalizeAxes(axes, rank).status());
  for (int64_t& axis : axes) axis += axis < 0 ? rank : 0;
  Tensor value = ctx.Input(2);
  if (!value.defined()) {
    PLEXUS_ASSIGN_OR_RETURN(value, ZeroOf(ctx.Input(0).dtype()));
  }
  return PadWith(ctx, pads, axes, value);
}

// Before opset 11 pads and value are attributes.
Status PadOp2(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  std::vector<int64_t> axes(ctx.Input(0).rank());
  std::iota(axes.begin(), axes.end(), 0);
  PLEXUS_ASSIGN_OR_RETURN(
      Tensor value,
      ConvertTensor(Tensor::Scalar(ctx.node.FloatAttr("value", 0)), ctx.Input(0).dtype()));
  return PadWith(ctx, ctx.node.IntsAttr("pads"), axes, value);
}

Status CenterCropPadOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> sizes, IntsInput(ctx, 1));
  std::vector<int64_t> axes = ctx.node.IntsAttr("axes");
  if (!ctx.node.HasAttr("axes")) {
    axes.resize(x.rank());
    std::iota(axes.begin(), axes.end(), 0);
  }
  PLEXUS_RETURN_IF_ERROR(NormalizeAxes(axes, x.rank()).status());
  if (sizes.size() != axes.size()) return InvalidArgumentError("needs one size per axis");
  Shape shape = x.shape();
  std::vector<int64_t> first(x.rank(), 0);  // where result index 0 lies in x
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = axes[i] < 0 ? axes[i] + x.rank() : axes[i];
    if (sizes[i] < 0) return InvalidArgumentError("a size is negative");
    const int64_t extra = x.shape()[axis] - sizes[i];
    first[axis] = extra / 2;
    shape[axis] = sizes[i];
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  PLEXUS_ASSIGN_OR_RETURN(Tensor zero, ZeroOf(x.dtype()));
  FillWith(y, zero);
  std::vector<std::vector<int64_t>> tables(x.rank());
  for (int64_t axis = 0; y.num_elements() > 0 && axis < x.rank(); ++axis) {
    for (int64_t i = 0; i < shape[axis]; ++i) {
      tables[axis].push_back(PadSource("constant", i + first[axis], x.shape()[axis]));
    }
  }
  TakeByTables(x, tables, y);
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// --- Blocks and triangles ------------------------------------------------------------------------

Status DepthToSpaceOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t b = ctx.node.IntAttr("blocksize", 0);
  if (x.rank() != 4 || b <= 0 || b > (1 << 20) || x.shape()[1] % (b * b) != 0) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " has no blocks of " +
                                std::to_string(b));
  }
  const int64_t n = x.shape()[0], c = x.shape()[1] / (b * b), h = x.shape()[2], w = x.shape()[3];
  const bool column_row = ctx.node.StringAttr("mode", "DCR") == "CRD";
  const Tensor split = column_row ? x.Reshaped({n, c, b, b, h, w}) : x.Reshaped({n, b, b, c, h, w});
  const std::vector<int64_t> perm =
      column_row ? std::vector<int64_t>{0, 1, 4, 2, 5, 3} : std::vector<int64_t>{0, 3, 4, 1, 5, 2};
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, TransposeTensor(split, perm));
  ctx.outputs[0] = y.Reshaped({n, c, h * b, w * b});
  return OkStatus();
}

Status SpaceToDepthOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t b = ctx.node.IntAttr("blocksize", 0);
  if (x.rank() != 4 || b <= 0 || x.shape()[2] % b != 0 || x.shape()[3] % b != 0) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " has no blocks of " +
                                std::to_string(b));
  }
  const int64_t n = x.shape()[0], c = x.shape()[1], h = x.shape()[2] / b, w = x.shape()[3] / b;
  PLEXUS_RETURN_IF_ERROR(NumElements({n, c, b, b, h, w}).status());
  const std::vector<int64_t> perm = {0, 3, 5, 1, 2, 4};
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, TransposeTensor(x.Reshaped({n, c, h, b, w, b}), perm));
  ctx.outputs[0] = y.Reshaped({n, c * b * b, h, w});
  return OkStatus();
}

Status TriluOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.rank() < 2 || x.dtype() == DType::kString) return InvalidArgumentError("needs matrices");
  int64_t k = 0;
  if (ctx.HasInput(1)) {
    PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> value, IntsInput(ctx, 1));
    if (value.size() != 1) return InvalidArgumentError("k must be a scalar");
    k = std::clamp(value[0], -(int64_t{1} << 60), int64_t{1} << 60);
  }
  const bool upper = ctx.node.IntAttr("upper", 1) != 0;
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewZeroTensor(x.dtype(), x.shape()));
  const int64_t rows = x.shape()[x.rank() - 2], columns = x.shape()[x.rank() - 1];
  for (int64_t at = 0, row = 0; at < x.num_elements(); at += columns, row = (row + 1) % rows) {
    // Upper keeps columns >= row + k, lower keeps columns <= row + k.
    const int64_t edge = std::clamp<int64_t>(upper ? row + k : row + k + 1, 0, columns);
    if (upper) {
      CopyElements(x, at + edge, y, at + edge, columns - edge);
    } else {
      CopyElements(x, at, y, at, edge);
    }
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "CenterCropPad", 18, kLatest, CenterCropPadOp},
    {"", "Concat", 4, kLatest, ConcatOp},
    {"", "DepthToSpace", 1, kLatest, DepthToSpaceOp},
    {"", "Pad", 2, 11, PadOp2},
    {"", "Pad", 11, kLatest, PadOp},
    {"", "Slice", 1, 10, SliceOp1},
    {"", "Slice", 10, kLatest, SliceOp},
    {"", "SpaceToDepth", 1, kLatest, SpaceToDepthOp},
    {"", "Split", 2, kLatest, SplitOp},
    {"", "Tile", 6, kLatest, TileOp},
    {"", "Transpose", 1, kLatest, TransposeOp},
    {"", "Trilu", 14, kLatest, TriluOp},
};

}  // namespace

std::span<const OpEntry> LayoutOps() { return kOps; }

}  // namespace plexus::reference
