#include "graph/dtype.h"

#include <array>
#include <bit>
#include <charconv>

namespace plexus {
namespace {

struct DTypeRow {
  std::string_view name;
  std::string_view protocol_name;
  uint8_t size_bytes;
};

// Indexed by DType.
constexpr std::array<DTypeRow, 24> kRows = {{
    {"undefined", "", 0},      {"float32", "FP32", 4},  {"uint8", "UINT8", 1},
    {"int8", "INT8", 1},       {"uint16", "UINT16", 2}, {"int16", "INT16", 2},
    {"int32", "INT32", 4},     {"int64", "INT64", 8},   {"string", "BYTES", 0},
    {"bool", "BOOL", 1},       {"float16", "FP16", 2},  {"float64", "FP64", 8},
    {"uint32", "UINT32", 4},   {"uint64", "UINT64", 8}, {"complex64", "", 8},
    {"complex128", "", 16},    {"bfloat16", "BF16", 2}, {"float8e4m3fn", "", 1},
    {"float8e4m3fnuz", "", 1}, {"float8e5m2", "", 1},   {"float8e5m2fnuz", "", 1},
    {"uint4", "", 1},          {"int4", "", 1},         {"float4e2m1", "", 1},
}};

const DTypeRow& Row(DType dtype) {
  const auto i = static_cast<size_t>(dtype);
  return kRows[i < kRows.size() ? i : 0];
}

}  // namespace

size_t DTypeSizeBytes(DType dtype) { return Row(dtype).size_bytes; }
std::string_view DTypeName(DType dtype) { return Row(dtype).name; }
std::string_view DTypeProtocolName(DType dtype) { return Row(dtype).protocol_name; }

std::optional<DType> DTypeFromProtocolName(std::string_view name) {
  if (name.empty()) return std::nullopt;
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].protocol_name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

bool IsFloatingPoint(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kFloat64:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat8E4M3FN:
    case DType::kFloat8E4M3FNUZ:
    case DType::kFloat8E5M2:
    case DType::kFloat8E5M2FNUZ:
    case DType::kFloat4E2M1:
      return true;
    default:
      return false;
  }
}

bool IsInteger(DType dtype) {
  switch (dtype) {
    case DType::kUint8:
    case DType::kInt8:
    case DType::kUint16:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
    case DType::kUint32:
    case DType::kUint64:
    case DType::kUint4:
    case DType::kInt4:
      return true;
    default:
      return false;
  }
}

float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31;
  const uint32_t mantissa = h & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {  // zero and subnormals: mantissa × 2^-24, exact in float
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;   // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds above 65504: infinity
  if (magnitude < 0x38800000) {                       // below 2^-14: subnormal
    // Adding 0.5 puts the 2^-24 digit at the last bit of the mantissa, so that the hardware rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - 0x38000000u) >> 13);
}

float BFloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);  // NaN
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::string ShapeToString(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out.push_back(',');
    out += std::to_string(shape[i]);
  }
  return out + "]";
}

Result<NamedShape> ParseNamedShape(std::string_view text) {
  NamedShape named;
  const size_t equals = text.rfind('=');
  if (equals != std::string_view::npos) named.name = text.substr(0, equals);
  const char* at = text.data() + (equals == std::string_view::npos ? 0 : equals + 1);
  const char* const end = text.data() + text.size();
  while (at != end) {
    int64_t dim = 0;
    const auto parsed = std::from_chars(at, end, dim);
    const bool more = parsed.ptr != end && *parsed.ptr == ',' && parsed.ptr + 1 != end;
    if (parsed.ec != std::errc() || dim < 0 || (parsed.ptr != end && !more)) {
      return InvalidArgumentError("'" + std::string(text.substr(0, 200)) +
                                  "': expected NAME=1,3,224,224");
    }
    named.shape.push_back(dim);
    at = parsed.ptr + (more ? 1 : 0);
  }
  return named;
}

Result<int64_t> NumElements(const Shape& shape, int64_t max_elements) {
  int64_t n = 1;
  bool zero = false;
  for (int64_t d : shape) {
    if (d < 0) return InvalidArgumentError("negative dimension in shape " + ShapeToString(shape));
    zero |= d == 0;
  }
  if (zero) return int64_t{0};
  for (int64_t d : shape) {
    if (__builtin_mul_overflow(n, d, &n) || n > max_elements) {
      return ResourceExhaustedError("shape " + ShapeToString(shape) + " has too many elements");
    }
  }
  return n;
}

int64_t NumElementsUnchecked(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

SymbolicShape SymbolicShape::FromConcrete(const Shape& shape) {
  SymbolicShape out;
  out.has_rank = true;
  for (int64_t d : shape) out.dims.push_back({d, ""});
  return out;
}

bool SymbolicShape::IsConcrete() const {
  if (!has_rank) return false;
  for (const SymbolicDim& d : dims) {
    if (!d.value) return false;
  }
  return true;
}

Shape SymbolicShape::ToConcrete() const {
  Shape out;
  for (const SymbolicDim& d : dims) out.push_back(d.value.value());
  return out;
}

std::string SymbolicShape::ToString() const {
  if (!has_rank) return "?";
  std::string out = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) out.push_back(',');
    if (dims[i].value) {
      out += std::to_string(*dims[i].value);
    } else {
      out += dims[i].symbol.empty() ? "?" : dims[i].symbol;
    }
  }
  return out + "]";
}

}  // namespace plexus
