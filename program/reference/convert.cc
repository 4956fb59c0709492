// ConvertTensor, and the operators Cast, CastLike and BitCast on top of it.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "program/reference/float8.h"
#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

// Conversions go in chunks through one of three wide types, so that n types need 2·n loops and not
// n². Every step but the last is exact.
constexpr int64_t kChunk = 512;

template <typename S, typename W>
void Widen(const std::byte* raw, int64_t begin, int64_t count, W* wide) {
  const S* src = reinterpret_cast<const S*>(raw) + begin;
  for (int64_t i = 0; i < count; ++i) wide[i] = static_cast<W>(src[i]);
}

void LoadDoubles(const Tensor& t, int64_t begin, int64_t count, double* wide) {
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(t.raw()) + begin;
  switch (t.dtype()) {
    case DType::kFloat32:
      return Widen<float>(t.raw(), begin, count, wide);
    case DType::kFloat64:
      return Widen<double>(t.raw(), begin, count, wide);
    case DType::kFloat16:
      for (int64_t i = 0; i < count; ++i) wide[i] = HalfToFloat(halves[i]);
      return;
    case DType::kBFloat16:
      for (int64_t i = 0; i < count; ++i) wide[i] = BFloat16ToFloat(halves[i]);
      return;
    default: {
      const uint8_t* bytes = reinterpret_cast<const uint8_t*>(t.raw()) + begin;
      for (int64_t i = 0; i < count; ++i) wide[i] = SmallFloatToFloat(bytes[i], t.dtype());
    }
  }
}

void LoadInts(const Tensor& t, int64_t begin, int64_t count, int64_t* wide) {
  switch (t.dtype()) {
    case DType::kBool:
    case DType::kUint8:
    case DType::kUint4:
      return Widen<uint8_t>(t.raw(), begin, count, wide);
    case DType::kInt8:
    case DType::kInt4:
      return Widen<int8_t>(t.raw(), begin, count, wide);
    case DType::kUint16:
      return Widen<uint16_t>(t.raw(), begin, count, wide);
    case DType::kInt16:
      return Widen<int16_t>(t.raw(), begin, count, wide);
    case DType::kUint32:
      return Widen<uint32_t>(t.raw(), begin, count, wide);
    case DType::kInt32:
      return Widen<int32_t>(t.raw(), begin, count, wide);
    default:
      return Widen<int64_t>(t.raw(), begin, count, wide);
  }
}

// Truncation that is defined everywhere: out of range gives the nearest end, NaN the lowest value
// (what x86 gives).
int64_t TruncateToInt64(double value) {
  if (!(value >= -0x1p63)) return std::numeric_limits<int64_t>::min();
  if (value >= 0x1p63) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(value);
}

uint64_t TruncateToUint64(double value) {
  if (value >= 0x1p64) return std::numeric_limits<uint64_t>::max();
  if (value >= 0x1p63) return static_cast<uint64_t>(value);
  return static_cast<uint64_t>(TruncateToInt64(value));
}

template <typename D, typename W>
D NarrowOne(W value) {
  if constexpr (std::is_same_v<W, double> && std::is_same_v<D, uint64_t>) {
    return TruncateToUint64(value);
  } else if constexpr (std::is_same_v<W, double> && std::is_integral_v<D>) {
    return static_cast<D>(TruncateToInt64(value));  // narrower types wrap, as numpy does
  } else {
    return static_cast<D>(value);
  }
}

template <typename D, typename W>
void Narrow(const W* wide, std::byte* raw, int64_t begin, int64_t count) {
  D* dst = reinterpret_cast<D*>(raw) + begin;
  for (int64_t i = 0; i < count; ++i) dst[i] = NarrowOne<D>(wide[i]);
}

template <typename W>
void Store(const W* wide, Tensor& t, int64_t begin, int64_t count, bool saturate) {
  std::byte* raw = t.raw_mutable();
  uint8_t* bytes = reinterpret_cast<uint8_t*>(raw) + begin;
  uint16_t* halves = reinterpret_cast<uint16_t*>(raw) + begin;
  switch (t.dtype()) {
    case DType::kFloat32:
      return Narrow<float>(wide, raw, begin, count);
    case DType::kFloat64:
      return Narrow<double>(wide, raw, begin, count);
    case DType::kUint8:
      return Narrow<uint8_t>(wide, raw, begin, count);
    case DType::kInt8:
      return Narrow<int8_t>(wide, raw, begin, count);
    case DType::kUint16:
      return Narrow<uint16_t>(wide, raw, begin, count);
    case DType::kInt16:
      return Narrow<int16_t>(wide, raw, begin, count);
    case DType::kUint32:
      return Narrow<uint32_t>(wide, raw, begin, count);
    case DType::kInt32:
      return Narrow<int32_t>(wide, raw, begin, count);
    case DType::kUint64:
      return Narrow<uint64_t>(wide, raw, begin, count);
    case DType::kInt64:
      return Narrow<int64_t>(wide, raw, begin, count);
    case DType::kBool:
      for (int64_t i = 0; i < count; ++i) bytes[i] = wide[i] != W{0};
      return;
    case DType::kFloat16:
      for (int64_t i = 0; i < count; ++i) halves[i] = FloatToHalf(static_cast<float>(wide[i]));
      return;
    case DType::kBFloat16:
      for (int64_t i = 0; i < count; ++i) halves[i] = FloatToBFloat16(static_cast<float>(wide[i]));
      return;
    case DType::kUint4:
      for (int64_t i = 0; i < count; ++i) bytes[i] = NarrowOne<uint8_t>(wide[i]) & 0xf;
      return;
    case DType::kInt4:
      for (int64_t i = 0; i < count; ++i) {
        const uint8_t low = NarrowOne<uint8_t>(wide[i]) & 0xf;
        bytes[i] = low >= 8 ? low | 0xf0 : low;  // sign extended
      }
      return;
    default:
      for (int64_t i = 0; i < count; ++i) {
        bytes[i] = FloatToSmallFloat(static_cast<float>(wide[i]), t.dtype(), saturate);
      }
  }
}

std::string FormatFloat(double value, bool single) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "INF" : "-INF";
  char text[64];
  auto end = single ? std::to_chars(text, text + sizeof(text), static_cast<float>(value))
                    : std::to_chars(text, text + sizeof(text), value);
  return std::string(text, end.ptr);
}

Result<Tensor> ToStrings(const Tensor& t) {
  std::vector<std::string> values(t.num_elements());
  const DType compute = ComputeType(t.dtype());
  if (IsFloatLike(t.dtype())) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, AsFloat64(t));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = FormatFloat(wide.data<double>()[i], compute == DType::kFloat32);
    }
  } else if (compute == DType::kUint64) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::to_string(t.data<uint64_t>()[i]);
  } else {
    PLEXUS_ASSIGN_OR_RETURN(Tensor wide, AsInt64(t));
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::to_string(wide.data<int64_t>()[i]);
  }
  return Tensor::FromStrings(t.shape(), std::move(values));
}

Result<Tensor> FromStrings(const Tensor& t, DType to) {
  const bool as_int = IsInteger(to);
  PLEXUS_ASSIGN_OR_RETURN(Tensor wide,
                          NewTensor(as_int ? DType::kInt64 : DType::kFloat64, t.shape()));
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    const std::string& text = t.strings()[i];
    char* end = nullptr;
    if (as_int) {
      wide.mutable_data<int64_t>()[i] = std::strtoll(text.c_str(), &end, 10);
      if (end && *end != '\0') {  // "1e3", "2.0"
        wide.mutable_data<int64_t>()[i] = TruncateToInt64(std::strtod(text.c_str(), &end));
      }
    } else {
      wide.mutable_data<double>()[i] = std::strtod(text.c_str(), &end);
    }
    if (text.empty() || end == nullptr || *end != '\0') {
      return InvalidArgumentError("'" + text.substr(0, 64) + "' is not a number");
    }
  }
  return ConvertTensor(wide, to);
}

}  // namespace

Result<Tensor> ConvertTensor(const Tensor& t, DType to, bool saturate) {
  if (!t.defined()) return InvalidArgumentError("an input is missing");
  if (t.dtype() == to) return t;
  const DType from_type = ComputeType(t.dtype());
  if (t.dtype() == DType::kString && ComputeType(to) != DType::kUndefined) {
    return FromStrings(t, to);
  }
  if (from_type != DType::kUndefined && to == DType::kString) return ToStrings(t);
  if (from_type == DType::kUndefined || ComputeType(to) == DType::kUndefined) {
    return UnimplementedError("conversion of " + std::string(DTypeName(t.dtype())) + " to " +
                              std::string(DTypeName(to)));
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor result, NewTensor(to, t.shape()));
  union {
    double doubles[kChunk];
    int64_t ints[kChunk];
  } wide;
  for (int64_t begin = 0; begin < t.num_elements(); begin += kChunk) {
    const int64_t count = std::min(kChunk, t.num_elements() - begin);
    if (IsFloatLike(t.dtype())) {
      LoadDoubles(t, begin, count, wide.doubles);
      Store(wide.doubles, result, begin, count, saturate);
    } else if (from_type == DType::kUint64) {
      Store(t.data<uint64_t>().data() + begin, result, begin, count, saturate);
    } else {
      LoadInts(t, begin, count, wide.ints);
      Store(wide.ints, result, begin, count, saturate);
    }
  }
  return result;
}

namespace {

Status Cast(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const int64_t to = ctx.node.IntAttr("to", 0);
  if (to <= 0 || to > static_cast<int64_t>(DType::kFloat4E2M1)) {
    return InvalidArgumentError("attribute 'to' names no element type: " + std::to_string(to));
  }
  const bool saturate = ctx.node.IntAttr("saturate", 1) != 0;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0],
                          ConvertTensor(ctx.Input(0), static_cast<DType>(to), saturate));
  return OkStatus();
}

Status CastLike(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const bool saturate = ctx.node.IntAttr("saturate", 1) != 0;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0],
                          ConvertTensor(ctx.Input(0), ctx.Input(1).dtype(), saturate));
  return OkStatus();
}

Status BitCast(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const int64_t to = ctx.node.IntAttr("to", 0);
  const size_t size = to > 0 && to <= static_cast<int64_t>(DType::kFloat4E2M1)
                          ? DTypeSizeBytes(static_cast<DType>(to))
                          : 0;
  if (size == 0 || size != DTypeSizeBytes(x.dtype())) {
    return InvalidArgumentError("BitCast needs types of equal size");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(static_cast<DType>(to), x.shape()));
  std::memcpy(y.raw_mutable(), x.raw(), x.size_bytes());
  ctx.outputs[0] = std::move(y);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "Cast", 6, kLatest, Cast},
    {"", "CastLike", 15, kLatest, CastLike},
    {"", "BitCast", 26, kLatest, BitCast},
};

}  // namespace

std::span<const OpEntry> CastOps() { return kOps; }

}  // namespace plexus::reference
