// Element types and shapes of tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace plexus {

// ONNX TensorProto.DataType, same numbers.
enum class DType : uint8_t {
  kUndefined = 0,
  kFloat32 = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kUint32 = 12,
  kUint64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBFloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUint4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
};

// Bytes of one element in a Tensor's storage. 4-bit types are stored unpacked, one per byte;
// 0 for kString and kUndefined.
size_t DTypeSizeBytes(DType dtype);
std::string_view DTypeName(DType dtype);          // "float32"
std::string_view DTypeProtocolName(DType dtype);  // "FP32" (Open Inference Protocol)
std::optional<DType> DTypeFromProtocolName(std::string_view name);
bool IsFloatingPoint(DType dtype);
bool IsInteger(DType dtype);  // signed and unsigned, without bool

// Scalar conversions with round-to-nearest-even, NaN and infinities kept.
float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);
float BFloat16ToFloat(uint16_t bits);
uint16_t FloatToBFloat16(float value);

// A concrete shape: every dimension >= 0. A scalar has rank 0. Row-major unless said otherwise.
using Shape = std::vector<int64_t>;
std::string ShapeToString(const Shape& shape);  // "[1,3,224,224]"
// "name=1,3,224,224", or a bare "1,3" (no name), as people write an input's shape.
// kInvalidArgument quotes the text.
struct NamedShape {
  std::string name;
  Shape shape;
};
Result<NamedShape> ParseNamedShape(std::string_view text);
// Product of the dimensions; kInvalidArgument for a negative one, kResourceExhausted on overflow
// or above `max_elements`.
Result<int64_t> NumElements(const Shape& shape, int64_t max_elements = int64_t{1} << 40);
// The same for shapes already validated.
int64_t NumElementsUnchecked(const Shape& shape);

// A dimension that may be unknown (no value), with the model's symbol for it ("N") if it has one.
struct SymbolicDim {
  std::optional<int64_t> value;
  std::string symbol;
  friend bool operator==(const SymbolicDim&, const SymbolicDim&) = default;
};
struct SymbolicShape {
  bool has_rank = false;
  std::vector<SymbolicDim> dims;
  static SymbolicShape FromConcrete(const Shape& shape);
  bool IsConcrete() const;
  Shape ToConcrete() const;      // requires IsConcrete()
  std::string ToString() const;  // "[N,3,?,224]", "?" without a rank
};

}  // namespace plexus
