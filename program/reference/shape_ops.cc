// Operators that make tensors from shapes and scalars, or give a tensor another shape.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

Status SetReshaped(OpContext& ctx, const Shape& shape) {
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(int64_t count, NumElements(shape));
  if (count != x.num_elements()) {
    return InvalidArgumentError("shape " + ShapeToString(x.shape()) + " cannot become " +
                                ShapeToString(shape));
  }
  ctx.outputs[0] = x.Reshaped(shape);
  return OkStatus();
}

// Passes sequences through too (they are undefined as tensors, see sequence.h).
Status IdentityOp(OpContext& ctx) {
  ctx.outputs[0] = ctx.Input(0);
  return OkStatus();
}

Status ReshapeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  PLEXUS_ASSIGN_OR_RETURN(Shape shape, IntsInput(ctx, 1));
  const Shape& from = ctx.Input(0).shape();
  const bool allow_zero = ctx.node.IntAttr("allowzero", 0) != 0;
  int64_t known = 1;
  int64_t free_axis = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0 && !allow_zero) {
      if (i >= from.size()) return InvalidArgumentError("a 0 dimension has nothing to copy");
      shape[i] = from[i];
    }
    if (shape[i] == -1) {
      if (free_axis >= 0) return InvalidArgumentError("shape has more than one -1");
      free_axis = i;
    } else if (shape[i] < 0 || __builtin_mul_overflow(known, shape[i], &known)) {
      return InvalidArgumentError("shape " + ShapeToString(shape) + " is not possible");
    }
  }
  if (free_axis >= 0) {
    const int64_t count = ctx.Input(0).num_elements();
    if (known == 0 ? count != 0 : count % known != 0) {
      return InvalidArgumentError("shape " + ShapeToString(from) + " cannot become " +
                                  ShapeToString(shape));
    }
    shape[free_axis] = known == 0 ? 0 : count / known;
  }
  return SetReshaped(ctx, shape);
}

Status FlattenOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Shape& shape = ctx.Input(0).shape();
  const int64_t rank = shape.size();
  int64_t axis = ctx.node.IntAttr("axis", 1);
  if (axis < -rank || axis > rank) return InvalidArgumentError("axis is out of range");
  if (axis < 0) axis += rank;
  const std::span<const int64_t> dims(shape);
  return SetReshaped(ctx, {Product(dims.first(axis)), Product(dims.subspan(axis))});
}

Status SqueezeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Shape& from = ctx.Input(0).shape();
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> axes, IntsInputOrAttr(ctx, 1, "axes"));
  PLEXUS_ASSIGN_OR_RETURN(axes, NormalizeAxes(axes, from.size()));
  const bool all = !ctx.HasInput(1) && !ctx.node.HasAttr("axes");
  Shape shape;
  for (size_t i = 0; i < from.size(); ++i) {
    const bool named = std::binary_search(axes.begin(), axes.end(), static_cast<int64_t>(i));
    if (named && from[i] != 1) {
      return InvalidArgumentError("axis " + std::to_string(i) + " of " + ShapeToString(from) +
                                  " is not 1");
    }
    if (!(named || (all && from[i] == 1))) shape.push_back(from[i]);
  }
  return SetReshaped(ctx, shape);
}

Status UnsqueezeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Shape& from = ctx.Input(0).shape();
  PLEXUS_ASSIGN_OR_RETURN(std::vector<int64_t> axes, IntsInputOrAttr(ctx, 1, "axes"));
  const int64_t rank = from.size() + axes.size();
  PLEXUS_ASSIGN_OR_RETURN(axes, NormalizeAxes(axes, rank));
  Shape shape;
  size_t next = 0;
  for (int64_t i = 0; i < rank; ++i) {
    shape.push_back(std::binary_search(axes.begin(), axes.end(), i) ? 1 : from[next++]);
  }
  return SetReshaped(ctx, shape);
}

Status ShapeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Shape& shape = ctx.Input(0).shape();
  const int64_t rank = shape.size();
  auto clamp = [&](int64_t at) { return std::clamp(at < 0 ? at + rank : at, int64_t{0}, rank); };
  const int64_t begin = clamp(ctx.node.IntAttr("start", 0));
  const int64_t end = std::max(begin, clamp(ctx.node.IntAttr("end", rank)));
  ctx.outputs[0] = Tensor::VectorInt64({shape.begin() + begin, shape.begin() + end});
  return OkStatus();
}

Status SizeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  ctx.outputs[0] = Tensor::ScalarInt64(ctx.Input(0).num_elements());
  return OkStatus();
}

Status ConstantOp(OpContext& ctx) {
  const Node& node = ctx.node;
  Tensor& out = ctx.outputs[0];
  if (const Tensor* value = node.TensorAttr("value")) {
    out = *value;
  } else if (node.HasAttr("value_float")) {
    out = Tensor::Scalar(node.FloatAttr("value_float", 0));
  } else if (node.HasAttr("value_int")) {
    out = Tensor::ScalarInt64(node.IntAttr("value_int", 0));
  } else if (node.HasAttr("value_string")) {
    out = Tensor::FromStrings({}, {node.StringAttr("value_string", "")});
  } else if (node.HasAttr("value_ints")) {
    out = Tensor::VectorInt64(node.IntsAttr("value_ints"));
  } else if (node.HasAttr("value_floats")) {
    const std::vector<float> values = node.FloatsAttr("value_floats");
    out = Tensor::Of(DType::kFloat32, {static_cast<int64_t>(values.size())}, values);
  } else if (auto it = node.attributes.find("value_strings");
             it != node.attributes.end() &&
             std::holds_alternative<std::vector<std::string>>(it->second)) {
    const auto& values = std::get<std::vector<std::string>>(it->second);
    out = Tensor::FromStrings({static_cast<int64_t>(values.size())}, values);
  } else {
    return UnimplementedError("this kind of constant");
  }
  return OkStatus();
}

Status ConstantOfShapeOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(Shape shape, IntsInput(ctx, 0));
  const Tensor* value = ctx.node.TensorAttr("value");
  if (value != nullptr && value->num_elements() != 1) {
    return InvalidArgumentError("attribute 'value' must hold one element");
  }
  const Tensor zero = Tensor::Scalar(0);
  if (value == nullptr) value = &zero;
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(value->dtype(), shape));
  FillWith(y, *value);
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

Status RangeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const DType type = ctx.Input(0).dtype();
  const DType compute = ComputeType(type);
  for (int i = 0; i < 3; ++i) {
    if (ctx.Input(i).num_elements() != 1) return InvalidArgumentError("inputs must be scalars");
  }
  return VisitCompute(compute, [&]<typename T>(T) -> Status {
    T value[3];
    for (int i = 0; i < 3; ++i) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor wide, ConvertTensor(ctx.Input(i), compute));
      value[i] = wide.data<T>()[0];
    }
    const auto [start, limit, delta] = std::tie(value[0], value[1], value[2]);
    if (delta == T(0)) return InvalidArgumentError("delta is 0");
    const double steps = std::ceil((static_cast<double>(limit) - static_cast<double>(start)) /
                                   static_cast<double>(delta));
    if (!(steps < 0x1p40)) return ResourceExhaustedError("range is too long");
    const int64_t count = std::max<int64_t>(0, static_cast<int64_t>(std::max(steps, 0.0)));
    PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(compute, {count}));
    for (int64_t i = 0; i < count; ++i) {
      if constexpr (std::is_integral_v<T>) {
        y.mutable_data<T>()[i] = static_cast<T>(
            static_cast<uint64_t>(start) + static_cast<uint64_t>(i) * static_cast<uint64_t>(delta));
      } else {
        y.mutable_data<T>()[i] = start + static_cast<T>(i) * delta;
      }
    }
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, type));
    return OkStatus();
  });
}

Status EyeLikeOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.rank() != 2) return InvalidArgumentError("needs a matrix");
  const DType type = static_cast<DType>(ctx.node.IntAttr("dtype", static_cast<int64_t>(x.dtype())));
  const int64_t k = ctx.node.IntAttr("k", 0);
  PLEXUS_ASSIGN_OR_RETURN(Tensor eye, NewZeroTensor(DType::kUint8, x.shape()));
  const int64_t columns = x.shape()[1];
  for (int64_t row = 0; row < x.shape()[0]; ++row) {
    int64_t column;
    if (!__builtin_add_overflow(row, k, &column) && column >= 0 && column < columns) {
      eye.mutable_data<uint8_t>()[row * columns + column] = 1;
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(eye, type));
  return OkStatus();
}

Status ExpandOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(Shape target, IntsInput(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(Shape shape, BroadcastShapes(x.shape(), target));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(x.dtype(), shape));
  CopyStrided(x, 0, BroadcastStrides(x.shape(), shape), y, 0, RowMajorStrides(shape), shape);
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "Constant", 1, kLatest, ConstantOp},
    {"", "ConstantOfShape", 9, kLatest, ConstantOfShapeOp},
    {"", "Expand", 8, kLatest, ExpandOp},
    {"", "EyeLike", 9, kLatest, EyeLikeOp},
    {"", "Flatten", 1, kLatest, FlattenOp},
    {"", "Identity", 1, kLatest, IdentityOp},
    {"", "Range", 11, kLatest, RangeOp},
    {"", "Reshape", 5, kLatest, ReshapeOp},
    {"", "Shape", 1, kLatest, ShapeOp},
    {"", "Size", 1, kLatest, SizeOp},
    {"", "Squeeze", 1, kLatest, SqueezeOp},
    {"", "Unsqueeze", 1, kLatest, UnsqueezeOp},
};

}  // namespace

std::span<const OpEntry> ShapeOps() { return kOps; }

}  // namespace plexus::reference
