#include "program/reference/kernels_util.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace plexus::reference {

// --- Making tensors ----------------------------------------------------------------------------

Result<Tensor> NewTensor(DType dtype, const Shape& shape) {
  const int64_t element_bytes = std::max<int64_t>(1, DTypeSizeBytes(dtype));
  PLEXUS_RETURN_IF_ERROR(NumElements(shape, kMaxResultBytes / element_bytes)
                             .status()
                             .WithContext("result " + ShapeToString(shape)));
  return Tensor::Allocate(dtype, shape);
}

Result<Tensor> NewZeroTensor(DType dtype, const Shape& shape) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor t, NewTensor(dtype, shape));
  if (t.size_bytes() > 0) std::memset(t.raw_mutable(), 0, t.size_bytes());
  return t;
}

DType ComputeType(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat8E4M3FN:
    case DType::kFloat8E4M3FNUZ:
    case DType::kFloat8E5M2:
    case DType::kFloat8E5M2FNUZ:
    case DType::kFloat4E2M1:
      return DType::kFloat32;
    case DType::kFloat64:
      return DType::kFloat64;
    case DType::kUint64:
      return DType::kUint64;
    case DType::kUndefined:
    case DType::kString:
    case DType::kComplex64:
    case DType::kComplex128:
      return DType::kUndefined;
    default:
      return DType::kInt64;
  }
}

// --- Checking ----------------------------------------------------------------------------------

Status RequireInputs(const OpContext& ctx, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (!ctx.HasInput(i)) {
      return InvalidArgumentError("input " + std::to_string(i) + " is missing");
    }
  }
  return OkStatus();
}

Result<int64_t> NormalizeAxis(int64_t axis, int64_t rank) {
  if (axis < -rank || axis >= rank) {
    return InvalidArgumentError("axis " + std::to_string(axis) + " is out of range for rank " +
                                std::to_string(rank));
  }
  return axis < 0 ? axis + rank : axis;
}

Result<std::vector<int64_t>> NormalizeAxes(std::span<const int64_t> axes, int64_t rank) {
  std::vector<int64_t> result;
  for (int64_t axis : axes) {
    PLEXUS_ASSIGN_OR_RETURN(int64_t normal, NormalizeAxis(axis, rank));
    result.push_back(normal);
  }
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end()) {
    return InvalidArgumentError("an axis is named twice");
  }
  return result;
}

Result<std::vector<int64_t>> IntsInput(const OpContext& ctx, size_t i) {
  const Tensor& t = ctx.Input(i);
  if (!t.defined()) return InvalidArgumentError("input " + std::to_string(i) + " is missing");
  if (!IsInteger(t.dtype())) {
    return InvalidArgumentError("input " + std::to_string(i) + " must hold integers, not " +
                                std::string(DTypeName(t.dtype())));
  }
  return ToInt64Vector(t);
}

Result<std::vector<int64_t>> IntsInputOrAttr(const OpContext& ctx, size_t i,
                                             const std::string& name) {
  if (ctx.HasInput(i)) return IntsInput(ctx, i);
  return ctx.node.IntsAttr(name);
}

Result<double> ScalarInput(const OpContext& ctx, size_t i, double fallback) {
  if (!ctx.HasInput(i)) return fallback;
  const Tensor& t = ctx.Input(i);
  if (t.num_elements() != 1) {
    return InvalidArgumentError("input " + std::to_string(i) + " must hold one element, has " +
                                std::to_string(t.num_elements()));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor value, AsFloat64(t));
  return value.data<double>()[0];
}

// --- Shapes and walking ------------------------------------------------------------------------

int64_t Product(std::span<const int64_t> dims) {
  uint64_t product = 1;  // unsigned, for the same reason as in RowMajorStrides
  for (int64_t d : dims) product *= static_cast<uint64_t>(d);
  return static_cast<int64_t>(product);
}

std::vector<int64_t> RowMajorStrides(const Shape& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) {
    // Unsigned: an empty tensor may have dimensions whose product means nothing.
    strides[i - 1] =
        static_cast<int64_t>(static_cast<uint64_t>(strides[i]) * static_cast<uint64_t>(shape[i]));
  }
  return strides;
}

Result<Shape> BroadcastShapes(const Shape& a, const Shape& b) {
  const size_t rank = std::max(a.size(), b.size());
  Shape result(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t da = i < rank - a.size() ? 1 : a[i - (rank - a.size())];
    const int64_t db = i < rank - b.size() ? 1 : b[i - (rank - b.size())];
    if (da != db && da != 1 && db != 1) {
      return InvalidArgumentError("shapes " + ShapeToString(a) + " and " + ShapeToString(b) +
                                  " do not broadcast");
    }
    result[i] = da == 1 ? db : da;
  }
  return result;
}

std::vector<int64_t> BroadcastStrides(const Shape& from, const Shape& to) {
  std::vector<int64_t> result(to.size(), 0);
  const std::vector<int64_t> strides = RowMajorStrides(from);
  const size_t lead = to.size() - from.size();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] != 1) result[lead + i] = strides[i];
  }
  return result;
}

Odometer::Odometer(Shape shape, std::vector<std::vector<int64_t>> strides)
    : shape_(std::move(shape)),
      strides_(std::move(strides)),
      offsets_(strides_.size(), 0),
      index_(shape_.size(), 0) {
  done_ = std::find(shape_.begin(), shape_.end(), 0) != shape_.end();
}

void Odometer::Next() {
  for (size_t axis = shape_.size(); axis-- > 0;) {
    if (++index_[axis] < shape_[axis]) {
      for (size_t k = 0; k < offsets_.size(); ++k) offsets_[k] += strides_[k][axis];
      return;
    }
    index_[axis] = 0;
    for (size_t k = 0; k < offsets_.size(); ++k) {
      offsets_[k] -= strides_[k][axis] * (shape_[axis] - 1);
    }
  }
  done_ = true;
}

// --- Moving elements -----------------------------------------------------------------------------

namespace {

struct Bytes16 {
  uint64_t half[2];
};

// Calls f(typed source, typed destination): elements of equal size move alike. Not for strings.
template <typename F>
void VisitStorage(const Tensor& src, Tensor& dst, F&& f) {
  const std::byte* from = src.raw();
  std::byte* to = dst.raw_mutable();
  switch (DTypeSizeBytes(src.dtype())) {
    case 1:
      return f(reinterpret_cast<const uint8_t*>(from), reinterpret_cast<uint8_t*>(to));
    case 2:
      return f(reinterpret_cast<const uint16_t*>(from), reinterpret_cast<uint16_t*>(to));
    case 4:
      return f(reinterpret_cast<const uint32_t*>(from), reinterpret_cast<uint32_t*>(to));
    case 8:
      return f(reinterpret_cast<const uint64_t*>(from), reinterpret_cast<uint64_t*>(to));
    default:
      return f(reinterpret_cast<const Bytes16*>(from), reinterpret_cast<Bytes16*>(to));
  }
}

}  // namespace

void CopyElements(const Tensor& src, int64_t src_begin, Tensor& dst, int64_t dst_begin,
                  int64_t count) {
  if (count <= 0) return;
  PLEXUS_CHECK(src.dtype() == dst.dtype() && src_begin >= 0 && dst_begin >= 0 &&
               src_begin + count <= src.num_elements() && dst_begin + count <= dst.num_elements());
  if (src.dtype() == DType::kString) {
    for (int64_t i = 0; i < count; ++i) {
      dst.AssignString(dst_begin + i, src.strings()[src_begin + i]);
    }
    return;
  }
  const size_t size = DTypeSizeBytes(src.dtype());
  std::memcpy(dst.raw_mutable() + dst_begin * size, src.raw() + src_begin * size, count * size);
}

void CopyStrided(const Tensor& src, int64_t src_offset, std::span<const int64_t> src_strides,
                 Tensor& dst, int64_t dst_offset, std::span<const int64_t> dst_strides,
                 const Shape& shape) {
  PLEXUS_CHECK(src.dtype() == dst.dtype() && src_strides.size() == shape.size() &&
               dst_strides.size() == shape.size());
  // The last axis is the inner loop; the axes before it are walked. A scalar is one element.
  const size_t rank = shape.size();
  const int64_t inner = rank == 0 ? 1 : shape[rank - 1];
  const int64_t src_step = rank == 0 ? 0 : src_strides[rank - 1];
  const int64_t dst_step = rank == 0 ? 0 : dst_strides[rank - 1];
  const size_t outer_rank = rank == 0 ? 0 : rank - 1;
  if (inner == 0) return;
  Shape outer(shape.begin(), shape.begin() + outer_rank);
  Odometer at(outer, {{src_strides.begin(), src_strides.begin() + outer_rank},
                      {dst_strides.begin(), dst_strides.begin() + outer_rank}});
  if (src.dtype() == DType::kString) {
    for (; !at.done(); at.Next()) {
      const int64_t in = src_offset + at.offset(0), out = dst_offset + at.offset(1);
      for (int64_t i = 0; i < inner; ++i) {
        dst.AssignString(out + i * dst_step, src.strings()[in + i * src_step]);
      }
    }
    return;
  }
  VisitStorage(src, dst, [&](const auto* from, auto* to) {
    for (; !at.done(); at.Next()) {
      const auto* in = from + src_offset + at.offset(0);
      auto* out = to + dst_offset + at.offset(1);
      for (int64_t i = 0; i < inner; ++i) out[i * dst_step] = in[i * src_step];
    }
  });
}

void FillWith(Tensor& dst, const Tensor& value) {
  PLEXUS_CHECK(value.dtype() == dst.dtype() && value.num_elements() >= 1);
  if (dst.dtype() == DType::kString) {
    for (int64_t i = 0; i < dst.num_elements(); ++i) dst.AssignString(i, value.strings()[0]);
    return;
  }
  VisitStorage(value, dst,
               [&](const auto* from, auto* to) { std::fill_n(to, dst.num_elements(), from[0]); });
}

Result<Tensor> TransposeTensor(const Tensor& x, std::span<const int64_t> perm) {
  const std::vector<int64_t> strides = RowMajorStrides(x.shape());
  Shape shape(perm.size());
  std::vector<int64_t> permuted(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) {
    shape[i] = x.shape()[perm[i]];
    permuted[i] = strides[perm[i]];
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  CopyStrided(x, 0, permuted, y, 0, RowMajorStrides(shape), shape);
  return y;
}

Result<Tensor> TakeRange(const Tensor& x, int64_t axis, int64_t begin, int64_t count) {
  Shape shape = x.shape();
  shape[axis] = count;
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  const std::vector<int64_t> strides = RowMajorStrides(x.shape());
  CopyStrided(x, begin * strides[axis], strides, y, 0, RowMajorStrides(shape), shape);
  return y;
}

Result<Tensor> TakeSlice(const Tensor& x, int64_t axis, int64_t at) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, TakeRange(x, axis, at, 1));
  Shape shape = x.shape();
  shape.erase(shape.begin() + axis);
  return y.Reshaped(shape);
}

Result<Tensor> ConcatTensors(std::span<const Tensor> parts, int64_t axis) {
  if (parts.empty() || !parts[0].defined()) return InvalidArgumentError("nothing to concatenate");
  Shape shape = parts[0].shape();
  PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(axis, shape.size()));
  for (size_t i = 1; i < parts.size(); ++i) {
    Shape other = parts[i].shape();
    if (other.size() != shape.size() || parts[i].dtype() != parts[0].dtype()) {
      return InvalidArgumentError("the parts differ in rank or type");
    }
    const int64_t extent = std::exchange(other[axis], shape[axis]);
    if (other != shape || __builtin_add_overflow(shape[axis], extent, &shape[axis])) {
      return InvalidArgumentError("shapes " + ShapeToString(parts[0].shape()) + " and " +
                                  ShapeToString(parts[i].shape()) + " do not concatenate");
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(parts[0].dtype(), shape));
  if (y.num_elements() == 0) return y;
  const int64_t rows = Product(std::span(shape).first(axis));
  const int64_t row = y.num_elements() / rows;
  int64_t begin = 0;
  for (const Tensor& x : parts) {
    const int64_t part = x.num_elements() / rows;
    for (int64_t i = 0; i < rows; ++i) CopyElements(x, i * part, y, i * row + begin, part);
    begin += part;
  }
  return y;
}

Result<Tensor> StackTensors(std::span<const Tensor> parts, int64_t axis) {
  if (parts.empty() || !parts[0].defined()) return InvalidArgumentError("nothing to stack");
  PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(axis, parts[0].rank() + 1));
  std::vector<Tensor> widened;
  for (const Tensor& part : parts) {
    if (!part.defined() || part.rank() != parts[0].rank()) {
      return InvalidArgumentError("the parts differ in rank or type");
    }
    Shape shape = part.shape();
    shape.insert(shape.begin() + axis, 1);
    widened.push_back(part.Reshaped(shape));
  }
  return ConcatTensors(widened, axis);
}

}  // namespace plexus::reference
