// Typed views for operators that compute in one wide type (see ComputeType): what goes in is
// borrowed or converted, what comes out is converted back. And the checks these operators share.
#pragma once

#include <string_view>
#include <type_traits>
#include <utility>

#include "program/reference/kernels_util.h"

namespace plexus::reference {

template <typename T>
constexpr DType DTypeOf() {
  if constexpr (std::is_same_v<T, float>) return DType::kFloat32;
  if constexpr (std::is_same_v<T, double>) return DType::kFloat64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kInt32;
  if constexpr (std::is_same_v<T, uint64_t>) return DType::kUint64;
  return DType::kInt64;
}

// A tensor's elements as T; keeps their storage alive. Empty when made from an undefined tensor.
template <typename T>
class Elements {
 public:
  Elements() = default;
  // kInvalidArgument where the elements do not convert to T.
  static Result<Elements> Load(const Tensor& t) {
    Elements e;
    if (!t.defined()) return e;
    if (ComputeType(t.dtype()) == DType::kUndefined) {
      return InvalidArgumentError("element type " + std::string(DTypeName(t.dtype())) +
                                  " is not a number type this operator takes");
    }
    PLEXUS_ASSIGN_OR_RETURN(e.tensor_, ConvertTensor(t, DTypeOf<T>()));
    e.span_ = std::as_const(e.tensor_).template data<T>();
    return e;
  }

  const T* data() const { return span_.data(); }
  size_t size() const { return span_.size(); }
  bool empty() const { return span_.empty(); }
  const T& operator[](size_t i) const { return span_[i]; }
  auto begin() const { return span_.begin(); }
  auto end() const { return span_.end(); }

 private:
  Tensor tensor_;
  std::span<const T> span_;
};

// A tensor in the making: the operator writes T, Finish() yields the tensor in its dtype.
template <typename T>
class Output {
 public:
  static Result<Output> Make(DType dtype, const Shape& shape, bool zeroed = false) {
    Output o;
    o.dtype_ = dtype;
    PLEXUS_ASSIGN_OR_RETURN(
        o.tensor_, zeroed ? NewZeroTensor(DTypeOf<T>(), shape) : NewTensor(DTypeOf<T>(), shape));
    o.span_ = o.tensor_.template mutable_data<T>();
    return o;
  }

  T* data() { return span_.data(); }
  size_t size() const { return span_.size(); }
  T& operator[](size_t i) { return span_[i]; }
  auto begin() const { return span_.begin(); }
  auto end() const { return span_.end(); }
  Status FinishInto(Tensor* out) && {
    PLEXUS_ASSIGN_OR_RETURN(*out, ConvertTensor(tensor_, dtype_));
    return OkStatus();
  }

 private:
  DType dtype_ = DType::kUndefined;
  Tensor tensor_;
  std::span<T> span_;
};

// kInvalidArgument unless lowest <= value <= highest.
Status CheckRange(std::string_view what, int64_t value, int64_t lowest, int64_t highest);
// kInvalidArgument unless the tensor is there and has this rank / these dimensions.
Status CheckRank(std::string_view what, const Tensor& t, int64_t rank);
Status CheckShape(std::string_view what, const Tensor& t, const Shape& shape);
// CheckShape for an input that may be left out.
Status CheckShapeIfAny(std::string_view what, const Tensor& t, const Shape& shape);
// kInvalidArgument unless both have one dtype.
Status CheckSameDType(std::string_view what, const Tensor& a, const Tensor& b);
// Product of shape[from, to); INT64_MAX where it overflows, which a shape with a zero elsewhere
// may do: operators return early on empty tensors.
int64_t DimsProduct(const Shape& shape, size_t from, size_t to);

}  // namespace plexus::reference
