// Operators that pick or place elements by index: Gather, Scatter, OneHot and kin. Every index is
// checked before it is used.
#include <algorithm>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// Input i as indices into an axis of `extent`, negative ones counted from the end.
Result<std::vector<int64_t>> AxisIndices(const OpContext& ctx, size_t i, int64_t extent) {
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> indices, IntsInput(ctx, i));
  for (int64_t& index : indices) {
    if (index < -extent || index >= extent) {
      return InvalidArgumentError("index " + std::to_string(index) +
                                  " is out of range for an axis of " + std::to_string(extent));
    }
    if (index < 0) index += extent;
  }
  return indices;
}

Shape Joined(std::span<const int64_t> a, std::span<const int64_t> b,
             std::span<const int64_t> c = {}) {
  Shape shape(a.begin(), a.end());
  shape.insert(shape.end(), b.begin(), b.end());
  shape.insert(shape.end(), c.begin(), c.end());
  return shape;
}

Status GatherOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  const int64_t extent = x.shape()[axis];
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> indices, AxisIndices(ctx, 1, extent));
  const std::span<const int64_t> dims(x.shape());
  PLEXUS_ASSIGN_OR_RETURN(
      Tensor y,
      NewTensor(x.dtype(), Joined(dims.first(axis), ctx.Input(1).shape(), dims.subspan(axis + 1))));
  if (y.num_elements() > 0) {
    const int64_t outer = Product(dims.first(axis));
    const int64_t inner = Product(dims.subspan(axis + 1));
    int64_t at = 0;
    for (int64_t i = 0; i < outer; ++i) {
      for (int64_t index : indices) {
        CopyElements(x, (i * extent + index) * inner, y, at, inner);
        at += inner;
      }
    }
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// `indices` must not exceed `x` in any axis but `axis`.
Status CheckElementsShape(const Tensor& x, const Shape& indices, int64_t axis) {
  bool fits = indices.size() == x.shape().size();
  for (size_t i = 0; fits && i < indices.size(); ++i) {
    fits = static_cast<int64_t>(i) == axis || indices[i] <= x.shape()[i];
  }
  if (fits) return OkStatus();
  return InvalidArgumentError("indices " + ShapeToString(indices) + " do not fit data " +
                              ShapeToString(x.shape()));
}

Status GatherElementsOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Shape& shape = ctx.Input(1).shape();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  PLEXUS_RETURN_IF_ERROR(CheckElementsShape(x, shape, axis));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> indices, AxisIndices(ctx, 1, x.shape()[axis]));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  std::vector<int64_t> strides = RowMajorStrides(x.shape());
  const int64_t step = strides[axis];
  strides[axis] = 0;
  int64_t i = 0;
  for (Odometer at(shape, {strides}); !at.done(); at.Next(), ++i) {
    CopyElements(x, at.offset(0) + indices[i] * step, y, i, 1);
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// --- Scatter -------------------------------------------------------------------------------------

enum class Reduction { kNone, kAdd, kMul, kMax, kMin };

Result<Reduction> GetReduction(const Node& node) {
  const std::string name = node.StringAttr("reduction", "none");
  if (name == "none") return Reduction::kNone;
  if (name == "add") return Reduction::kAdd;
  if (name == "mul") return Reduction::kMul;
  if (name == "max") return Reduction::kMax;
  if (name == "min") return Reduction::kMin;
  return InvalidArgumentError("attribute 'reduction' is '" + name + "'");
}

template <typename T>
T Reduce(Reduction reduction, T a, T b) {
  using W = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;  // integers wrap
  switch (reduction) {
    case Reduction::kAdd:
      return static_cast<T>(W(a) + W(b));
    case Reduction::kMul:
      return static_cast<T>(W(a) * W(b));
    case Reduction::kMax:
      return std::max(a, b);
    case Reduction::kMin:
      return std::min(a, b);
    case Reduction::kNone:
      break;
  }
  return b;
}

// Copies of `data` with runs of updates placed or reduced into it: Place(dst, src, count) for
// ranges the caller has checked.
template <typename Walk>
Result<Tensor> ScatterInto(const Tensor& data, const Tensor& updates, Reduction reduction,
                           Walk walk) {
  if (data.dtype() != updates.dtype()) {
    return InvalidArgumentError("data and updates have different types");
  }
  if (reduction == Reduction::kNone) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor y, data.Clone());
    walk([&](int64_t dst, int64_t src, int64_t count) {
      CopyElements(updates, src, y, dst, count);
    });
    return y;
  }
  const DType compute = ComputeType(data.dtype());
  Tensor y;
  PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
    PLEXUS_ASSIGN_OR_RETURN(y, ConvertTensor(data, compute));
    PLEXUS_ASSIGN_OR_RETURN(y, y.Clone());
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(updates, compute));
    T* out = y.mutable_data<T>().data();
    const T* in = wide.data<T>().data();
    walk([&](int64_t dst, int64_t src, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        out[dst + i] = Reduce(reduction, out[dst + i], in[src + i]);
      }
    });
    return OkStatus();
  }));
  return ConvertTensor(y, data.dtype());
}

Status ScatterElementsOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& data = ctx.Input(0);
  const Tensor& updates = ctx.Input(2);
  const Shape& shape = ctx.Input(1).shape();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(ctx.node.IntAttr("axis", 0), data.rank()));
  PLEXUS_ASSIGN_OR_RETURN(const Reduction reduction, GetReduction(ctx.node));
  PLEXUS_RETURN_IF_ERROR(CheckElementsShape(data, shape, axis));
  if (updates.shape() != shape) return InvalidArgumentError("updates and indices differ in shape");
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> indices,
                          AxisIndices(ctx, 1, data.shape()[axis]));
  std::vector<int64_t> strides = RowMajorStrides(data.shape());
  const int64_t step = strides[axis];
  strides[axis] = 0;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ScatterInto(data, updates, reduction, [&](auto place) {
                            int64_t i = 0;
                            for (Odometer at(shape, {strides}); !at.done(); at.Next(), ++i) {
                              place(at.offset(0) + indices[i] * step, i, 1);
                            }
                          }));
  return OkStatus();
}

// Element offsets that rows of an index tensor [..., k] name in the first k axes after `skip` of
// `shape`; batch_stride is added per leading batch.
struct RowOffsets {
  std::vector<int64_t> offsets;
  int64_t slice = 1;  // elements per row
};

Result<RowOffsets> ResolveRows(const OpContext& ctx, const Tensor& x, const Tensor& indices,
                               int64_t batch_dims) {
  if (indices.rank() < 1) return InvalidArgumentError("indices must not be a scalar");
  const int64_t depth = indices.shape().back();
  if (depth < 0 || depth + batch_dims > x.rank()) {
    return InvalidArgumentError("indices " + ShapeToString(indices.shape()) +
                                " name more axes than data " + ShapeToString(x.shape()) + " has");
  }
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> flat, IntsInput(ctx, 1));
  const std::span<const int64_t> dims(x.shape());
  const std::vector<int64_t> strides = RowMajorStrides(x.shape());
  const std::span<const int64_t> lead = std::span(indices.shape()).first(indices.rank() - 1);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t rows, NumElements(Shape(lead.begin(), lead.end()),
                                                          kMaxResultBytes / sizeof(int64_t)));
  const int64_t batches = Product(dims.first(batch_dims));
  const int64_t batch_stride = Product(dims.subspan(batch_dims));
  const int64_t rows_per_batch = batches > 0 ? rows / batches : 0;
  RowOffsets result;
  result.slice = Product(dims.subspan(batch_dims + depth));
  result.offsets.resize(rows, 0);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t offset = rows_per_batch > 0 ? row / rows_per_batch * batch_stride : 0;
    for (int64_t k = 0; k < depth; ++k) {
      const int64_t extent = dims[batch_dims + k];
      int64_t index = flat[row * depth + k];
      if (index < -extent || index >= extent) {
        return InvalidArgumentError("index " + std::to_string(index) +
                                    " is out of range for axis " + std::to_string(batch_dims + k) +
                                    " of " + ShapeToString(x.shape()));
      }
      offset += (index < 0 ? index + extent : index) * strides[batch_dims + k];
    }
    result.offsets[row] = offset;
  }
  return result;
}

Status GatherNDOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& indices = ctx.Input(1);
  const int64_t batch_dims = ctx.node.IntAttr("batch_dims", 0);
  if (batch_dims < 0 || batch_dims >= std::max<int64_t>(1, std::min(x.rank(), indices.rank())) ||
      !std::equal(x.shape().begin(), x.shape().begin() + batch_dims, indices.shape().begin())) {
    return InvalidArgumentError("batch_dims do not match");
  }
  PLEXUS_ASSIGN_OR_RETURN(const RowOffsets rows, ResolveRows(ctx, x, indices, batch_dims));
  PLEXUS_ASSIGN_OR_RETURN(
      Tensor y, NewTensor(x.dtype(), Joined(std::span(indices.shape()).first(indices.rank() - 1),
                                            std::span(x.shape()).subspan(batch_dims +
                                                                         indices.shape().back()))));
  for (size_t i = 0; y.num_elements() > 0 && i < rows.offsets.size(); ++i) {
    CopyElements(x, rows.offsets[i], y, i * rows.slice, rows.slice);
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status ScatterNDOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& x = ctx.Input(0);
  const Tensor& indices = ctx.Input(1);
  const Tensor& updates = ctx.Input(2);
  PLEXUS_ASSIGN_OR_RETURN(const Reduction reduction, GetReduction(ctx.node));
  PLEXUS_ASSIGN_OR_RETURN(const RowOffsets rows, ResolveRows(ctx, x, indices, 0));
  const Shape expected = Joined(std::span(indices.shape()).first(indices.rank() - 1),
                                std::span(x.shape()).subspan(indices.shape().back()));
  if (updates.shape() != expected) {
    return InvalidArgumentError("updates have shape " + ShapeToString(updates.shape()) +
                                ", expected " + ShapeToString(expected));
  }
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ScatterInto(x, updates, reduction, [&](auto place) {
                            for (size_t i = 0;
                                 updates.num_elements() > 0 && i < rows.offsets.size(); ++i) {
                              place(rows.offsets[i], i * rows.slice, rows.slice);
                            }
                          }));
  return OkStatus();
}

// --- OneHot, Compress, ReverseSequence, TensorScatter
// -----------------------------------------------

Status OneHotOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& values = ctx.Input(2);
  PLEXUS_ASSIGN_OR_RETURN(Tensor indices, AsInt64(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(const double depth_value, ScalarInput(ctx, 1, 0));
  if (!(depth_value >= 0 && depth_value < 0x1p40)) return InvalidArgumentError("bad depth");
  if (values.num_elements() != 2) return InvalidArgumentError("values must hold [off, on]");
  const int64_t depth = static_cast<int64_t>(depth_value);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(ctx.node.IntAttr("axis", -1), indices.rank() + 1));
  Shape shape = indices.shape();
  shape.insert(shape.begin() + axis, depth);
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(values.dtype(), shape));
  FillWith(y, values);
  const int64_t inner = Product(std::span(shape).subspan(axis + 1));
  for (int64_t i = 0; y.num_elements() > 0 && i < indices.num_elements(); ++i) {
    const int64_t index = indices.data<int64_t>()[i];
    if (index < -depth || index >= depth) continue;  // out of range: all off, by the standard
    const int64_t hot = index < 0 ? index + depth : index;
    CopyElements(values, 1, y, (i / inner * depth + hot) * inner + i % inner, 1);
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status CompressOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& condition = ctx.Input(1);
  if (condition.dtype() != DType::kBool || condition.rank() != 1) {
    return InvalidArgumentError("condition must be a bool vector");
  }
  Tensor x = ctx.Input(0);
  int64_t axis = 0;
  if (ctx.node.HasAttr("axis")) {
    PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  } else {
    x = x.Reshaped({x.num_elements()});
  }
  const int64_t extent = x.shape()[axis];
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < std::min(extent, condition.num_elements()); ++i) {
    if (condition.data<uint8_t>()[i]) kept.push_back(i);
  }
  Shape shape = x.shape();
  shape[axis] = kept.size();
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  const int64_t inner = Product(std::span(shape).subspan(axis + 1));
  int64_t at = 0;
  for (int64_t i = 0; y.num_elements() > 0 && at < y.num_elements(); ++i) {
    for (int64_t index : kept) {
      CopyElements(x, (i * extent + index) * inner, y, at, inner);
      at += inner;
    }
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status ReverseSequenceOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const int64_t batch_axis = ctx.node.IntAttr("batch_axis", 1);
  const int64_t time_axis = ctx.node.IntAttr("time_axis", 0);
  if (x.rank() < 2 || batch_axis + time_axis != 1 || batch_axis * time_axis != 0) {
    return InvalidArgumentError("needs rank 2 or more and batch and time axes 0 and 1");
  }
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, IntsInput(ctx, 1));
  const int64_t batch = x.shape()[batch_axis], time = x.shape()[time_axis];
  if (static_cast<int64_t>(lengths.size()) != batch) {
    return InvalidArgumentError("needs one length per batch entry");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), x.shape()));
  const std::vector<int64_t> strides = RowMajorStrides(x.shape());
  const int64_t inner = Product(std::span(x.shape()).subspan(2));
  for (int64_t b = 0; b < batch; ++b) {
    if (lengths[b] < 0 || lengths[b] > time) return InvalidArgumentError("a length exceeds time");
    for (int64_t t = 0; t < time; ++t) {
      const int64_t from = t < lengths[b] ? lengths[b] - 1 - t : t;
      CopyElements(x, b * strides[batch_axis] + from * strides[time_axis], y,
                   b * strides[batch_axis] + t * strides[time_axis], inner);
    }
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

// A key-value cache [batch, ..., length, ...] takes `update` at each batch entry's position.
Status TensorScatterOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& cache = ctx.Input(0);
  const Tensor& update = ctx.Input(1);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                          NormalizeAxis(ctx.node.IntAttr("axis", -2), cache.rank()));
  const std::string mode = ctx.node.StringAttr("mode", "linear");
  const bool circular = mode == "circular";
  if (!circular && mode != "linear") return InvalidArgumentError("unknown mode '" + mode + "'");
  if (axis == 0 || update.rank() != cache.rank() || update.dtype() != cache.dtype()) {
    return InvalidArgumentError("update does not match the cache");
  }
  const int64_t length = cache.shape()[axis], steps = update.shape()[axis];
  Shape expected = cache.shape();
  expected[axis] = steps;
  if (update.shape() != expected || steps > length) {
    return InvalidArgumentError("update " + ShapeToString(update.shape()) + " does not fit cache " +
                                ShapeToString(cache.shape()));
  }
  const int64_t batch = cache.shape()[0];
  std::vector<int64_t> positions(batch, 0);
  if (ctx.HasInput(2)) {
    PLEXUS_ASSIGN_OR_RETURN(positions, IntsInput(ctx, 2));
  }
  if (static_cast<int64_t>(positions.size()) != batch) {
    return InvalidArgumentError("needs one write index per batch entry");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, cache.Clone());
  const int64_t inner = Product(std::span(cache.shape()).subspan(axis + 1));
  const int64_t middle = Product(std::span(cache.shape()).subspan(1, axis - 1));
  for (int64_t b = 0; update.num_elements() > 0 && b < batch; ++b) {
    if (positions[b] < 0 || positions[b] > length || (!circular && positions[b] + steps > length)) {
      return InvalidArgumentError("write index " + std::to_string(positions[b]) +
                                  " is out of range");
    }
    for (int64_t m = b * middle; m < (b + 1) * middle; ++m) {
      for (int64_t s = 0; s < steps; ++s) {
        const int64_t at = (positions[b] + s) % length;
        CopyElements(update, (m * steps + s) * inner, y, (m * length + at) * inner, inner);
      }
    }
  }
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "Compress", 9, kLatest, CompressOp},
    {"", "Gather", 1, kLatest, GatherOp},
    {"", "GatherElements", 11, kLatest, GatherElementsOp},
    {"", "GatherND", 11, kLatest, GatherNDOp},
    {"", "OneHot", 9, kLatest, OneHotOp},
    {"", "ReverseSequence", 10, kLatest, ReverseSequenceOp},
    {"", "Scatter", 9, kLatest, ScatterElementsOp},
    {"", "ScatterElements", 11, kLatest, ScatterElementsOp},
    {"", "ScatterND", 11, kLatest, ScatterNDOp},
    {"", "TensorScatter", 24, kLatest, TensorScatterOp},
};

}  // namespace

std::span<const OpEntry> IndexOps() { return kOps; }

}  // namespace plexus::reference
