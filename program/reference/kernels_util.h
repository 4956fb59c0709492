// What the operator files share: element conversion, broadcasting, axes, and moving elements.
//
// An operator file looks like this:
//   namespace plexus::reference {
//   namespace {
//   Status Relu(OpContext& ctx) { ... ctx.outputs[0] = ...; return OkStatus(); }
//   constexpr OpEntry kOps[] = {{"", "Relu", 7, kLatest, Relu}};
//   }  // namespace
//   std::span<const OpEntry> XxxOps() { return kOps; }
//   }  // namespace plexus::reference
//
// Arithmetic on rare types goes through a wide type: AsFloat32 (half types, float8), AsInt64 (small
// integers), then ConvertTensor back. Operators that only move bytes dispatch on the element size.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "program/reference/reference.h"

namespace plexus::reference {

// The largest tensor a reference operator makes.
inline constexpr int64_t kMaxResultBytes = int64_t{1} << 32;

// --- Making and converting tensors -------------------------------------------------------------

// Uninitialised; kResourceExhausted above kMaxResultBytes. Use this in place of Tensor::Allocate.
Result<Tensor> NewTensor(DType dtype, const Shape& shape);
Result<Tensor> NewZeroTensor(DType dtype, const Shape& shape);

// The elements converted as ONNX Cast does, strings included; `t` itself (shared storage) when it
// already has that type. `saturate` concerns the float8 types only.
Result<Tensor> ConvertTensor(const Tensor& t, DType to, bool saturate = true);
inline Result<Tensor> AsFloat32(const Tensor& t) { return ConvertTensor(t, DType::kFloat32); }
inline Result<Tensor> AsFloat64(const Tensor& t) { return ConvertTensor(t, DType::kFloat64); }
inline Result<Tensor> AsInt64(const Tensor& t) { return ConvertTensor(t, DType::kInt64); }

// The type to compute in: kFloat32 for all floats but kFloat64; kInt64 for integers and bool but
// kUint64. kUndefined for strings and complex numbers.
DType ComputeType(DType dtype);
inline bool IsFloatLike(DType dtype) {
  DType compute = ComputeType(dtype);
  return compute == DType::kFloat32 || compute == DType::kFloat64;
}

// Calls f(T{}) with T = float, double, int64_t or uint64_t for a type that ComputeType returned.
// f returns Status.
template <typename F>
Status VisitCompute(DType compute, F&& f) {
  switch (compute) {
    case DType::kFloat32:
      return f(float{});
    case DType::kFloat64:
      return f(double{});
    case DType::kInt64:
      return f(int64_t{});
    case DType::kUint64:
      return f(uint64_t{});
    default:
      return UnimplementedError("type " + std::string(DTypeName(compute)) + " has no arithmetic");
  }
}

// The same for float and double only.
template <typename F>
Status VisitFloat(DType compute, F&& f) {
  if (compute == DType::kFloat32) return f(float{});
  if (compute == DType::kFloat64) return f(double{});
  return InvalidArgumentError("needs a floating point type, got " +
                              std::string(DTypeName(compute)));
}

// --- Checking ----------------------------------------------------------------------------------

// kInvalidArgument when one of inputs [0, count) is left out.
Status RequireInputs(const OpContext& ctx, size_t count);
// -rank <= axis < rank, result in [0, rank).
Result<int64_t> NormalizeAxis(int64_t axis, int64_t rank);
// The same for a list; sorted, kInvalidArgument for duplicates.
Result<std::vector<int64_t>> NormalizeAxes(std::span<const int64_t> axes, int64_t rank);
// Input i as int64 list (shapes, axes, sizes); kInvalidArgument when absent or not integral.
Result<std::vector<int64_t>> IntsInput(const OpContext& ctx, size_t i);
// Input i if present, else attribute `name`, else {}.
Result<std::vector<int64_t>> IntsInputOrAttr(const OpContext& ctx, size_t i,
                                             const std::string& name);
// The single element of input i, or `fallback` when it is left out.
Result<double> ScalarInput(const OpContext& ctx, size_t i, double fallback);

// --- Shapes and walking ------------------------------------------------------------------------

int64_t Product(std::span<const int64_t> dims);  // of validated dimensions
std::vector<int64_t> RowMajorStrides(const Shape& shape);
// Numpy broadcasting; kInvalidArgument names both shapes.
Result<Shape> BroadcastShapes(const Shape& a, const Shape& b);
// Element strides with which a tensor of shape `from` is read as shape `to` (0 where broadcast).
// Requires that `from` broadcasts to `to`.
std::vector<int64_t> BroadcastStrides(const Shape& from, const Shape& to);

// Walks a shape in row-major order and keeps the element offsets of several strided operands.
//   for (Odometer at(shape, {sa, sb}); !at.done(); at.Next()) f(at.offset(0), at.offset(1));
class Odometer {
 public:
  Odometer(Shape shape, std::vector<std::vector<int64_t>> strides);
  bool done() const { return done_; }
  int64_t offset(size_t operand) const { return offsets_[operand]; }
  const std::vector<int64_t>& index() const { return index_; }
  void Next();

 private:
  Shape shape_;
  std::vector<std::vector<int64_t>> strides_;
  std::vector<int64_t> offsets_;
  std::vector<int64_t> index_;
  bool done_ = false;
};

// --- Moving elements of any type, strings included
// ------------------------------------------------

// dst[dst_begin + i] = src[src_begin + i] for i in [0, count). Same dtype; ranges checked by the
// caller.
void CopyElements(const Tensor& src, int64_t src_begin, Tensor& dst, int64_t dst_begin,
                  int64_t count);
// Copies a strided box of shape `shape` (element strides, may be 0 or negative).
void CopyStrided(const Tensor& src, int64_t src_offset, std::span<const int64_t> src_strides,
                 Tensor& dst, int64_t dst_offset, std::span<const int64_t> dst_strides,
                 const Shape& shape);
// All of dst = the single element of `value` (same dtype).
void FillWith(Tensor& dst, const Tensor& value);
// x with its axes permuted: result axis i is x's axis perm[i]; perm is a checked permutation.
Result<Tensor> TransposeTensor(const Tensor& x, std::span<const int64_t> perm);
// Elements [begin, begin + count) of `axis`; checked by the caller.
Result<Tensor> TakeRange(const Tensor& x, int64_t axis, int64_t begin, int64_t count);
// Index `at` of `axis`, without that axis; checked by the caller.
Result<Tensor> TakeSlice(const Tensor& x, int64_t axis, int64_t at);
// At least one tensor; one type and, but for `axis`, one shape, else kInvalidArgument. `axis` may
// be negative.
Result<Tensor> ConcatTensors(std::span<const Tensor> parts, int64_t axis);
// The same along a new axis.
Result<Tensor> StackTensors(std::span<const Tensor> parts, int64_t axis);

}  // namespace plexus::reference
