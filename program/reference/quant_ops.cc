// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and the integer products:
// QLinearConv, QLinearMatMul, MatMulInteger.
#include <algorithm>
#include <cmath>

#include "program/reference/conv.h"
#include "program/reference/float8.h"
#include "program/reference/matmul.h"

namespace plexus::reference {
namespace {

struct IntegerRange {
  int64_t low, high;
};
// The range of an integer type that quantisation may produce.
Result<IntegerRange> RangeOf(DType dtype) {
  switch (dtype) {
    case DType::kUint4:
      return IntegerRange{0, 15};
    case DType::kInt4:
      return IntegerRange{-8, 7};
    case DType::kUint8:
      return IntegerRange{0, 255};
    case DType::kInt8:
      return IntegerRange{-128, 127};
    case DType::kUint16:
      return IntegerRange{0, 65535};
    case DType::kInt16:
      return IntegerRange{-32768, 32767};
    default:
      return InvalidArgumentError(std::string(DTypeName(dtype)) + " is not a quantised type");
  }
}

// round-half-even(value) + zero, saturated; NaN counts as 0.
int64_t Saturate(double value, double zero, IntegerRange range) {
  if (std::isnan(value)) value = 0;
  const double v = std::nearbyint(value) + zero;
  return static_cast<int64_t>(
      std::clamp(v, static_cast<double>(range.low), static_cast<double>(range.high)));
}

// Which scale belongs to an element: one for all, one per index of an axis, or one per block of
// an axis.
class ScaleMap {
 public:
  static Result<ScaleMap> Make(const Node& node, const Shape& x, const Shape& scale) {
    ScaleMap map;
    const int64_t block = node.IntAttr("block_size", 0);
    PLEXUS_RETURN_IF_ERROR(CheckRange("block_size", block, 0, int64_t{1} << 31));
    if (block == 0 && NumElementsUnchecked(scale) == 1 && scale.size() <= 1) return map;
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                            NormalizeAxis(node.IntAttr("axis", 1), static_cast<int64_t>(x.size())));
    map.inner_ = DimsProduct(x, axis + 1, x.size());
    map.size_ = x[axis];
    Shape wanted = {x[axis]};
    if (block > 0) {
      wanted = x;
      wanted[axis] = (x[axis] + block - 1) / block;
      map.block_ = block;
      map.blocks_ = wanted[axis];
      map.outer_stride_ = map.blocks_ * map.inner_;
    }
    if (scale != wanted) {
      return InvalidArgumentError("the scale has shape " + ShapeToString(scale) + ", expected " +
                                  ShapeToString(wanted) + " for input " + ShapeToString(x));
    }
    return map;
  }

  size_t operator()(size_t i) const {
    if (size_ < 0) return 0;
    const size_t inner = static_cast<size_t>(inner_), size = static_cast<size_t>(size_);
    const size_t at = i / inner % size;
    if (block_ == 0) return at;
    return i / (inner * size) * outer_stride_ + at / block_ * inner + i % inner;
  }

 private:
  int64_t inner_ = 1, size_ = -1, block_ = 0, blocks_ = 0, outer_stride_ = 0;
};

// The zero point has the scale's shape; where both are single values, rank 0 and 1 mix.
Status CheckZeroPoint(const Tensor& zero, const Tensor& scale) {
  if (zero.defined() && zero.num_elements() == 1 && scale.num_elements() == 1) return OkStatus();
  return CheckShapeIfAny("the zero point", zero, scale.shape());
}

Status QuantizeLinear(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& scale = ctx.Input(1);
  const Tensor& zero = ctx.Input(2);
  DType dtype = DType::kUint8;
  const int64_t wanted = ctx.node.IntAttr("output_dtype", 0);
  PLEXUS_RETURN_IF_ERROR(CheckRange("output_dtype", wanted, 0, 255));
  if (wanted != 0) dtype = static_cast<DType>(wanted);
  if (zero.defined()) {
    if (wanted != 0 && zero.dtype() != dtype) {
      return InvalidArgumentError("output_dtype contradicts the zero point's type");
    }
    dtype = zero.dtype();
  }
  PLEXUS_RETURN_IF_ERROR(CheckZeroPoint(zero, scale));
  PLEXUS_ASSIGN_OR_RETURN(const ScaleMap map, ScaleMap::Make(ctx.node, x.shape(), scale.shape()));
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<float>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto scales, Elements<float>::Load(scale));
  PLEXUS_ASSIGN_OR_RETURN(auto zeros, Elements<float>::Load(zero));
  if (IsSmallFloat(dtype)) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kFloat32, x.shape()));
    std::span<float> ys = y.mutable_data<float>();
    for (size_t i = 0; i < xs.size(); ++i) ys[i] = xs[i] / scales[map(i)];
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0],
                            ConvertTensor(y, dtype, ctx.node.IntAttr("saturate", 1) != 0));
    return OkStatus();
  }
  PLEXUS_ASSIGN_OR_RETURN(const IntegerRange range, RangeOf(dtype));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<int64_t>::Make(dtype, x.shape()));
  for (size_t i = 0; i < xs.size(); ++i) {
    const size_t at = map(i);
    y[i] = Saturate(xs[i] / scales[at], zeros.empty() ? 0 : zeros[at], range);
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

Status DequantizeLinear(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& scale = ctx.Input(1);
  const Tensor& zero = ctx.Input(2);
  DType dtype = scale.dtype();
  const int64_t wanted = ctx.node.IntAttr("output_dtype", 0);
  PLEXUS_RETURN_IF_ERROR(CheckRange("output_dtype", wanted, 0, 255));
  if (wanted != 0) dtype = static_cast<DType>(wanted);
  if (!IsFloatLike(dtype)) {
    return InvalidArgumentError("cannot dequantise to " + std::string(DTypeName(dtype)));
  }
  if (zero.defined()) PLEXUS_RETURN_IF_ERROR(CheckSameDType("the zero point", x, zero));
  PLEXUS_RETURN_IF_ERROR(CheckZeroPoint(zero, scale));
  PLEXUS_ASSIGN_OR_RETURN(const ScaleMap map, ScaleMap::Make(ctx.node, x.shape(), scale.shape()));
  PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<double>::Load(x));
  PLEXUS_ASSIGN_OR_RETURN(auto scales, Elements<float>::Load(scale));
  PLEXUS_ASSIGN_OR_RETURN(auto zeros, Elements<double>::Load(zero));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<float>::Make(dtype, x.shape()));
  for (size_t i = 0; i < xs.size(); ++i) {
    const size_t at = map(i);
    const double shifted = xs[i] - (zeros.empty() ? 0.0 : zeros[at]);
    y[i] = static_cast<float>(shifted) * scales[at];
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// x: f32 → y: u8, scale: f32[], zero point: u8[]; the range always includes 0.
Status DynamicQuantizeLinear(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.dtype() != DType::kFloat32) return InvalidArgumentError("the input must be float32");
  const std::span<const float> xs = x.data<float>();
  float low = 0, high = 0;
  for (float v : xs) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  float scale = (high - low) / 255.0f;
  if (scale == 0) scale = 1;
  const IntegerRange range{0, 255};
  const int64_t zero = Saturate(-low / scale, 0, range);
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kUint8, x.shape()));
  PLEXUS_ASSIGN_OR_RETURN(Tensor zero_out, NewTensor(DType::kUint8, {}));
  std::span<uint8_t> ys = y.mutable_data<uint8_t>();
  for (size_t i = 0; i < xs.size(); ++i) {
    ys[i] = static_cast<uint8_t>(Saturate(xs[i] / scale, static_cast<double>(zero), range));
  }
  zero_out.mutable_data<uint8_t>()[0] = static_cast<uint8_t>(zero);
  ctx.outputs[0] = std::move(y);
  if (ctx.WantsOutput(1)) ctx.outputs[1] = Tensor::Scalar(scale);
  if (ctx.WantsOutput(2)) ctx.outputs[2] = std::move(zero_out);
  return OkStatus();
}

// Strides of a quantisation parameter over `shape`: a single value, one per row (`rows`) or column
// of the last two dimensions, or a shape that broadcasts.
Result<std::vector<int64_t>> ParameterStrides(std::string_view what, const Tensor& p,
                                              const Shape& shape, bool rows) {
  Shape own = p.shape();
  if (p.num_elements() == 1) own.clear();
  if (own.size() == 1 && rows && shape.size() >= 2) own.push_back(1);
  Result<Shape> joined = BroadcastShapes(own, shape);
  if (!joined.ok() || *joined != shape) {
    return InvalidArgumentError(std::string(what) + " " + ShapeToString(p.shape()) +
                                " does not fit a matrix of shape " + ShapeToString(shape));
  }
  return BroadcastStrides(own, shape);
}

// The elements of `t` less their zero points (`zero` may be left out).
Result<std::vector<double>> Shifted(std::string_view what, const Tensor& t, const Tensor& zero,
                                    bool rows) {
  PLEXUS_ASSIGN_OR_RETURN(auto elements, Elements<double>::Load(t));
  std::vector<double> result(elements.begin(), elements.end());
  if (!zero.defined() || result.empty()) return result;
  PLEXUS_ASSIGN_OR_RETURN(const auto strides, ParameterStrides(what, zero, t.shape(), rows));
  PLEXUS_ASSIGN_OR_RETURN(auto zeros, Elements<double>::Load(zero));
  size_t i = 0;
  for (Odometer at(t.shape(), {strides}); !at.done(); at.Next()) {
    result[i++] -= zeros[at.offset(0)];
  }
  return result;
}

Status MatMulInteger(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& a = ctx.Input(0);
  const Tensor& b = ctx.Input(1);
  PLEXUS_ASSIGN_OR_RETURN(const MatMulGeometry g, MakeMatMulGeometry(a.shape(), b.shape()));
  PLEXUS_ASSIGN_OR_RETURN(const auto as, Shifted("a_zero_point", a, ctx.Input(2), true));
  PLEXUS_ASSIGN_OR_RETURN(const auto bs, Shifted("b_zero_point", b, ctx.Input(3), false));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(DType::kInt32, g.output, true));
  MatMulAdd(g, as.data(), bs.data(), y.data());
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// Inputs: a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point.
Status QLinearMatMul(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 8));
  const Tensor& a = ctx.Input(0);
  const Tensor& b = ctx.Input(3);
  PLEXUS_ASSIGN_OR_RETURN(const MatMulGeometry g, MakeMatMulGeometry(a.shape(), b.shape()));
  PLEXUS_ASSIGN_OR_RETURN(const auto as, Shifted("a_zero_point", a, ctx.Input(2), true));
  PLEXUS_ASSIGN_OR_RETURN(const auto bs, Shifted("b_zero_point", b, ctx.Input(5), false));
  std::vector<std::vector<int64_t>> strides;
  std::vector<Elements<double>> parameters;
  for (size_t i : {1, 4, 6, 7}) {  // the scales of a, b and y; y's zero point
    PLEXUS_ASSIGN_OR_RETURN(
        auto s, ParameterStrides("a scale or zero point", ctx.Input(i), g.output, i != 4));
    PLEXUS_ASSIGN_OR_RETURN(auto p, Elements<double>::Load(ctx.Input(i)));
    strides.push_back(std::move(s));
    parameters.push_back(std::move(p));
  }
  const DType dtype = ctx.Input(7).dtype();
  PLEXUS_ASSIGN_OR_RETURN(const IntegerRange range, RangeOf(dtype));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(dtype, g.output, true));
  if (y.size() > 0) MatMulAdd(g, as.data(), bs.data(), y.data());
  size_t i = 0;
  for (Odometer at(g.output, strides); !at.done() && y.size() > 0; at.Next(), ++i) {
    const double factor =
        parameters[0][at.offset(0)] * parameters[1][at.offset(1)] / parameters[2][at.offset(2)];
    y[i] = static_cast<double>(Saturate(y[i] * factor, parameters[3][at.offset(3)], range));
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// One value, or one per filter.
Result<std::vector<double>> PerFilter(std::string_view what, const Tensor& t, int64_t filters) {
  PLEXUS_ASSIGN_OR_RETURN(auto elements, Elements<double>::Load(t));
  if (elements.size() == 1) return std::vector<double>(filters, elements[0]);
  if (t.rank() != 1 || t.num_elements() != filters) {
    return InvalidArgumentError(std::string(what) + " " + ShapeToString(t.shape()) +
                                " must be a scalar or have one value per filter");
  }
  return std::vector<double>(elements.begin(), elements.end());
}

// Inputs: x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias (i32).
Status QLinearConv(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 8));
  const Tensor& x = ctx.Input(0);
  const Tensor& w = ctx.Input(3);
  for (size_t i : {1, 2, 6, 7}) {
    if (ctx.Input(i).num_elements() != 1) {
      return InvalidArgumentError("scale and zero point of x and y must be scalars");
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(const ConvGeometry g, MakeConvGeometry(ctx.node, x.shape(), w.shape()));
  const int64_t filters = g.out_channels;
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("the bias", ctx.Input(8), {filters}));
  PLEXUS_ASSIGN_OR_RETURN(const auto xs, Shifted("x_zero_point", x, ctx.Input(2), true));
  PLEXUS_ASSIGN_OR_RETURN(const auto w_scale, PerFilter("w_scale", ctx.Input(4), filters));
  PLEXUS_ASSIGN_OR_RETURN(const auto w_zero, PerFilter("w_zero_point", ctx.Input(5), filters));
  PLEXUS_ASSIGN_OR_RETURN(auto ws, Shifted("w", w, Tensor(), true));
  for (size_t i = 0; i < ws.size(); ++i) ws[i] -= w_zero[i / (ws.size() / filters)];
  PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<double>::Load(ctx.Input(8)));
  PLEXUS_ASSIGN_OR_RETURN(auto x_scale, Elements<double>::Load(ctx.Input(1)));
  PLEXUS_ASSIGN_OR_RETURN(auto y_scale, Elements<double>::Load(ctx.Input(6)));
  PLEXUS_ASSIGN_OR_RETURN(auto y_zero, Elements<double>::Load(ctx.Input(7)));
  const DType dtype = ctx.Input(7).dtype();
  PLEXUS_ASSIGN_OR_RETURN(const IntegerRange range, RangeOf(dtype));
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<double>::Make(dtype, g.OutputShape(), true));
  if (y.size() > 0) ConvolveAdd(g, xs.data(), ws.data(), y.data());
  const size_t inner = static_cast<size_t>(g.window.OutSize());
  for (size_t i = 0; i < y.size(); ++i) {
    const size_t m = i / inner % filters;
    const double sum = y[i] + (bias.empty() ? 0 : bias[m]);
    y[i] = static_cast<double>(
        Saturate(sum * (x_scale[0] * w_scale[m] / y_scale[0]), y_zero[0], range));
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

constexpr OpEntry kOps[] = {
    {"", "DequantizeLinear", 10, kLatest, DequantizeLinear},
    {"", "DynamicQuantizeLinear", 11, kLatest, DynamicQuantizeLinear},
    {"", "MatMulInteger", 10, kLatest, MatMulInteger},
    {"", "QLinearConv", 10, kLatest, QLinearConv},
    {"", "QLinearMatMul", 10, kLatest, QLinearMatMul},
    {"", "QuantizeLinear", 10, kLatest, QuantizeLinear},
};

}  // namespace

std::span<const OpEntry> QuantOps() { return kOps; }

}  // namespace plexus::reference
