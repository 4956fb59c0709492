// Operators that combine several tensors element by element, with broadcasting.
#include <cmath>
#include <type_traits>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// out[i] = f(a[i], b[i]) over `shape`, where a and b are read with broadcasting.
template <typename T, typename R, typename F>
void BroadcastLoop(const T* a, const Shape& a_shape, const T* b, const Shape& b_shape, R* out,
                   const Shape& shape, F f) {
  if (a_shape == b_shape) {
    const int64_t count = Product(shape);
    for (int64_t i = 0; i < count; ++i) out[i] = f(a[i], b[i]);
    return;
  }
  std::vector<int64_t> sa = BroadcastStrides(a_shape, shape);
  std::vector<int64_t> sb = BroadcastStrides(b_shape, shape);
  const int64_t inner = shape.back(), step_a = sa.back(), step_b = sb.back();
  Shape outer(shape.begin(), shape.end() - 1);
  sa.pop_back();
  sb.pop_back();
  if (inner == 0) return;
  for (Odometer at(outer, {sa, sb}); !at.done(); at.Next()) {
    const T* pa = a + at.offset(0);
    const T* pb = b + at.offset(1);
    for (int64_t i = 0; i < inner; ++i) out[i] = f(pa[i * step_a], pb[i * step_b]);
    out += inner;
  }
}

Status RequireSameType(const Tensor& a, const Tensor& b) {
  if (a.dtype() == b.dtype()) return OkStatus();
  return InvalidArgumentError("inputs have different types: " + std::string(DTypeName(a.dtype())) +
                              " and " + std::string(DTypeName(b.dtype())));
}

// f(T, T) → R, where R is T (kUndefined: result in a's type) or uint8_t (result bool).
template <typename F>
Result<Tensor> Combine(const Tensor& a, const Tensor& b, bool to_bool, F f) {
  PLEXUS_RETURN_IF_ERROR(RequireSameType(a, b));
  PLEXUS_ASSIGN_OR_RETURN(Shape shape, BroadcastShapes(a.shape(), b.shape()));
  const DType compute = ComputeType(a.dtype());
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(to_bool ? DType::kBool : compute, shape));
  PLEXUS_RETURN_IF_ERROR(VisitCompute(compute, [&]<typename T>(T) -> Status {
    using R = std::conditional_t<std::is_same_v<decltype(f(T{}, T{})), bool>, uint8_t, T>;
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide_a, ConvertTensor(a, compute));
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide_b, ConvertTensor(b, compute));
    BroadcastLoop(wide_a.data<T>().data(), a.shape(), wide_b.data<T>().data(), b.shape(),
                  y.mutable_data<R>().data(), shape, f);
    return OkStatus();
  }));
  return to_bool ? Result<Tensor>(y) : ConvertTensor(y, a.dtype());
}

// Integers wrap: computed unsigned, where overflow is defined.
template <typename T>
using Wrapping = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;

struct AddFn {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(Wrapping<T>(a) + Wrapping<T>(b));
  }
};
struct SubFn {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(Wrapping<T>(a) - Wrapping<T>(b));
  }
};
struct MulFn {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(Wrapping<T>(a) * Wrapping<T>(b));
  }
};
struct DivFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) return 0;  // rejected before the loop
      if constexpr (std::is_signed_v<T>) {
        if (b == -1) return SubFn()(T(0), a);
      }
    }
    return a / b;
  }
};
struct MaxFn {
  template <typename T>
  T operator()(T a, T b) const {
    return a != a || a > b ? a : b;  // NaN wins
  }
};
struct MinFn {
  template <typename T>
  T operator()(T a, T b) const {
    return a != a || a < b ? a : b;
  }
};
// The result has the divisor's sign.
struct FloorModFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) return 0;  // rejected before the loop
      if constexpr (std::is_signed_v<T>) {
        if (b == -1) return 0;
        const T rest = a % b;
        return rest != 0 && ((rest < 0) != (b < 0)) ? rest + b : rest;
      }
      return a % b;
    } else {
      const T rest = std::fmod(a, b);
      return rest != 0 && ((rest < 0) != (b < 0)) ? rest + b : rest;
    }
  }
};
// The result has the dividend's sign.
struct TruncModFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0) return 0;
      if constexpr (std::is_signed_v<T>) {
        if (b == -1) return 0;
      }
      return a % b;
    } else {
      return std::fmod(a, b);
    }
  }
};

template <typename F>
Status Binary(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], Combine(ctx.Input(0), ctx.Input(1), false, F()));
  return OkStatus();
}

Status RejectZeroDivisor(const Tensor& b) {
  if (!b.defined() || !IsInteger(b.dtype())) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(Tensor wide, AsInt64(b));
  for (int64_t value : wide.data<int64_t>()) {
    if (value == 0) return InvalidArgumentError("integer division by zero");
  }
  return OkStatus();
}

Status DivOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RejectZeroDivisor(ctx.Input(1)));
  return Binary<DivFn>(ctx);
}

Status ModOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RejectZeroDivisor(ctx.Input(1)));
  return ctx.node.IntAttr("fmod", 0) != 0 ? Binary<TruncModFn>(ctx) : Binary<FloorModFn>(ctx);
}

template <typename F>
Status Variadic(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, std::max<size_t>(1, ctx.num_inputs())));
  Tensor total = ctx.Input(0);
  for (size_t i = 1; i < ctx.num_inputs(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(total, Combine(total, ctx.Input(i), false, F()));
  }
  ctx.outputs[0] = std::move(total);
  return OkStatus();
}

Status MeanOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(Variadic<AddFn>(ctx));
  if (!IsFloatLike(ctx.outputs[0].dtype())) return InvalidArgumentError("needs floats");
  PLEXUS_ASSIGN_OR_RETURN(
      Tensor count,
      ConvertTensor(Tensor::Scalar(static_cast<float>(ctx.num_inputs())), ctx.outputs[0].dtype()));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], Combine(ctx.outputs[0], count, false, DivFn()));
  return OkStatus();
}

int64_t IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
  uint64_t result = 1, factor = static_cast<uint64_t>(base);
  for (uint64_t left = exponent; left > 0; left >>= 1) {
    if (left & 1) result *= factor;
    factor *= factor;
  }
  return static_cast<int64_t>(result);
}

// The result has the base's type; the exponent may have another one.
Status PowOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const DType type = ctx.Input(0).dtype();
  const bool integers = IsInteger(type) && IsInteger(ctx.Input(1).dtype());
  const DType wide = integers ? DType::kInt64 : DType::kFloat64;
  PLEXUS_ASSIGN_OR_RETURN(Tensor a, ConvertTensor(ctx.Input(0), wide));
  PLEXUS_ASSIGN_OR_RETURN(Tensor b, ConvertTensor(ctx.Input(1), wide));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, Combine(a, b, false, []<typename T>(T base, T exponent) -> T {
                            if constexpr (std::is_integral_v<T>) {
                              return static_cast<T>(IntegerPower(base, exponent));
                            } else {
                              return std::pow(base, exponent);
                            }
                          }));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], ConvertTensor(y, type));
  return OkStatus();
}

Status PReluOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0],
                          Combine(ctx.Input(0), ctx.Input(1), false, []<typename T>(T x, T slope) {
                            return x < T(0) ? MulFn()(x, slope) : x;
                          }));
  return OkStatus();
}

// --- Comparison ----------------------------------------------------------------------------------

Status EqualStrings(OpContext& ctx) {
  const Tensor& a = ctx.Input(0);
  const Tensor& b = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(RequireSameType(a, b));
  PLEXUS_ASSIGN_OR_RETURN(Shape shape, BroadcastShapes(a.shape(), b.shape()));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kBool, shape));
  BroadcastLoop(a.strings().data(), a.shape(), b.strings().data(), b.shape(),
                y.mutable_data<uint8_t>().data(), shape,
                [](const std::string& x, const std::string& y) { return x == y; });
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

struct EqualFn {
  template <typename T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct LessFn {
  template <typename T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct LessOrEqualFn {
  template <typename T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};

template <typename F, bool kSwap = false>
Status Compare(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& a = ctx.Input(kSwap ? 1 : 0);
  const Tensor& b = ctx.Input(kSwap ? 0 : 1);
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], Combine(a, b, true, F()));
  return OkStatus();
}

Status EqualOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  if (ctx.Input(0).dtype() == DType::kString) return EqualStrings(ctx);
  return Compare<EqualFn>(ctx);
}

// --- Logic and bits
// --------------------------------------------------------------------------------

struct BitAndFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) return a & b;
    return a;
  }
};
struct BitOrFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) return a | b;
    return a;
  }
};
struct BitXorFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) return a ^ b;
    return a;
  }
};
// A shift by the type's width or more gives 0.
struct ShiftLeftFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      const uint64_t by = static_cast<uint64_t>(b);
      return by > 63 ? T(0) : static_cast<T>(static_cast<uint64_t>(a) << by);
    }
    return a;
  }
};
struct ShiftRightFn {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      const uint64_t by = static_cast<uint64_t>(b);
      return by > 63 ? T(0) : static_cast<T>(a >> by);
    }
    return a;
  }
};

template <typename F>
Status Logical(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  if (ctx.Input(0).dtype() != DType::kBool) return InvalidArgumentError("needs bool");
  return Binary<F>(ctx);
}

template <typename F>
Status Bitwise(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  if (!IsInteger(ctx.Input(0).dtype())) return InvalidArgumentError("needs an integer type");
  return Binary<F>(ctx);
}

Status BitShiftOp(OpContext& ctx) {
  const std::string direction = ctx.node.StringAttr("direction", "");
  if (direction == "LEFT") return Bitwise<ShiftLeftFn>(ctx);
  if (direction == "RIGHT") return Bitwise<ShiftRightFn>(ctx);
  return InvalidArgumentError("attribute 'direction' is '" + direction + "'");
}

// --- Where ---------------------------------------------------------------------------------------

Status WhereOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& condition = ctx.Input(0);
  const Tensor& x = ctx.Input(1);
  const Tensor& y = ctx.Input(2);
  PLEXUS_RETURN_IF_ERROR(RequireSameType(x, y));
  if (condition.dtype() != DType::kBool) return InvalidArgumentError("condition is not bool");
  PLEXUS_ASSIGN_OR_RETURN(Shape pair, BroadcastShapes(x.shape(), y.shape()));
  PLEXUS_ASSIGN_OR_RETURN(Shape shape, BroadcastShapes(condition.shape(), pair));
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, NewTensor(x.dtype(), shape));
  const uint8_t* chosen = condition.data<uint8_t>().data();
  const size_t size = DTypeSizeBytes(x.dtype());
  int64_t i = 0;
  for (Odometer at(shape, {BroadcastStrides(condition.shape(), shape),
                           BroadcastStrides(x.shape(), shape), BroadcastStrides(y.shape(), shape)});
       !at.done(); at.Next(), ++i) {
    const bool first = chosen[at.offset(0)] != 0;
    const Tensor& from = first ? x : y;
    const int64_t offset = at.offset(first ? 1 : 2);
    if (size == 0) {
      out.AssignString(i, from.strings()[offset]);
    } else {
      __builtin_memcpy(out.raw_mutable() + i * size, from.raw() + offset * size, size);
    }
  }
  ctx.outputs[0] = std::move(out);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "Add", 7, kLatest, Binary<AddFn>},
    {"", "And", 7, kLatest, Logical<BitAndFn>},
    {"", "BitShift", 11, kLatest, BitShiftOp},
    {"", "BitwiseAnd", 18, kLatest, Bitwise<BitAndFn>},
    {"", "BitwiseOr", 18, kLatest, Bitwise<BitOrFn>},
    {"", "BitwiseXor", 18, kLatest, Bitwise<BitXorFn>},
    {"", "Div", 7, kLatest, DivOp},
    {"", "Equal", 7, kLatest, EqualOp},
    {"", "Greater", 7, kLatest, Compare<LessFn, true>},
    {"", "GreaterOrEqual", 12, kLatest, Compare<LessOrEqualFn, true>},
    {"", "Less", 7, kLatest, Compare<LessFn>},
    {"", "LessOrEqual", 12, kLatest, Compare<LessOrEqualFn>},
    {"", "Max", 6, kLatest, Variadic<MaxFn>},
    {"", "Mean", 6, kLatest, MeanOp},
    {"", "Min", 6, kLatest, Variadic<MinFn>},
    {"", "Mod", 10, kLatest, ModOp},
    {"", "Mul", 7, kLatest, Binary<MulFn>},
    {"", "Or", 7, kLatest, Logical<BitOrFn>},
    {"", "PRelu", 7, kLatest, PReluOp},
    {"", "Pow", 7, kLatest, PowOp},
    {"", "Sub", 7, kLatest, Binary<SubFn>},
    {"", "Sum", 6, kLatest, Variadic<AddFn>},
    {"", "Where", 9, kLatest, WhereOp},
    {"", "Xor", 7, kLatest, Logical<BitXorFn>},
};

}  // namespace

std::span<const OpEntry> ElementwiseBinaryOps() { return kOps; }

}  // namespace plexus::reference
