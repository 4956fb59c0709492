#include "graph/onnx/tensor_proto.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace plexus::onnx {
namespace {

constexpr size_t kMaxRank = 64;

// The fields of one TensorProto; at most one of the data fields is in use.
struct TensorFields {
  std::string name;
  Shape dims;
  int64_t data_type = 0;
  std::shared_ptr<Buffer> raw;
  std::vector<float> floats;
  std::vector<int32_t> int32s;
  std::vector<int64_t> int64s;
  std::vector<int64_t> uint64s;  // bit patterns
  std::vector<double> doubles;
  std::vector<std::string> strings;
  std::map<std::string, std::string> external;
  bool is_external = false;
  bool has_segment = false;
};

void ParseStringEntry(WireReader& r, std::map<std::string, std::string>* out) {
  std::string key, value;
  while (r.Next()) {
    if (r.field() == 1) {
      key = r.Bytes();
    } else if (r.field() == 2) {
      value = r.Bytes();
    } else {
      r.Skip();
    }
  }
  (*out)[key] = value;
}

TensorFields ParseFields(WireReader& r) {
  TensorFields t;
  while (r.Next()) {
    switch (r.field()) {
      case 1:
        r.AppendVarints(&t.dims);
        break;
      case 2:
        t.data_type = r.Int64();
        break;
      case 3:
        t.has_segment = true;
        r.Skip();
        break;
      case 4:
        r.AppendFloats(&t.floats);
        break;
      case 5:
        r.AppendInt32s(&t.int32s);
        break;
      case 6:
        t.strings.push_back(r.Bytes());
        break;
      case 7:
        r.AppendVarints(&t.int64s);
        break;
      case 8:
        t.name = r.Name();
        break;
      case 9:
        t.raw = r.BytesToBuffer();
        break;
      case 10:
        r.AppendDoubles(&t.doubles);
        break;
      case 11:
        r.AppendVarints(&t.uint64s);
        break;
      case 13:
        r.Message([&] { ParseStringEntry(r, &t.external); });
        break;
      case 14:
        t.is_external = r.Int64() == 1;
        break;
      default:
        r.Skip();
    }
  }
  return t;
}

bool Is4Bit(DType dtype) {
  return dtype == DType::kInt4 || dtype == DType::kUint4 || dtype == DType::kFloat4E2M1;
}

uint64_t StoredBytes(DType dtype, int64_t elements) {
  const auto n = static_cast<uint64_t>(elements);
  return Is4Bit(dtype) ? n / 2 + n % 2 : n * DTypeSizeBytes(dtype);
}

Status SizeError(uint64_t got, uint64_t want, const char* unit) {
  return InvalidArgumentError("holds " + std::to_string(got) + " " + unit + ", its shape needs " +
                              std::to_string(want));
}

// Two to the byte, low half first, to one per byte; int4 with its sign.
Result<Tensor> Unpack4Bit(DType dtype, const Shape& shape, const std::byte* packed) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(dtype, shape));
  std::byte* to = out.raw_mutable();
  for (int64_t i = 0; i < out.num_elements(); ++i) {
    const int both = static_cast<uint8_t>(packed[i / 2]);
    int value = i % 2 == 0 ? both & 15 : both >> 4;
    if (dtype == DType::kInt4 && value >= 8) value -= 16;
    to[i] = static_cast<std::byte>(value);
  }
  return out;
}

// Stored bytes, of the right number, to a tensor; shares the buffer where it can.
Result<Tensor> FromStoredBytes(DType dtype, const Shape& shape, std::shared_ptr<Buffer> buffer) {
  if (Is4Bit(dtype)) return Unpack4Bit(dtype, shape, buffer->data());
  Tensor tensor = Tensor::FromBuffer(dtype, shape, buffer);
  if (dtype != DType::kBool) return tensor;
  // A bool that is neither 0 nor 1 is undefined behaviour for whoever reads it as one.
  const auto* bytes = reinterpret_cast<const uint8_t*>(buffer->data());
  if (std::all_of(bytes, bytes + buffer->size_bytes(), [](uint8_t b) { return b <= 1; })) {
    return tensor;
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor clean, tensor.Clone());
  for (uint8_t& b : clean.mutable_data<uint8_t>()) b = b != 0;
  return clean;
}

template <typename T>
void Narrow(const std::vector<int32_t>& from, Tensor* to) {
  std::span<T> out = to->mutable_data<T>();
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<T>(from[i]);
}

Result<Tensor> FromInt32s(DType dtype, const Shape& shape, int64_t elements,
                          const std::vector<int32_t>& values) {
  if (Is4Bit(dtype)) {
    const uint64_t want = StoredBytes(dtype, elements);
    if (values.size() != want) return SizeError(values.size(), want, "packed values");
    std::vector<std::byte> packed(values.size());
    for (size_t i = 0; i < values.size(); ++i) packed[i] = static_cast<std::byte>(values[i]);
    return Unpack4Bit(dtype, shape, packed.data());
  }
  if (values.size() != static_cast<uint64_t>(elements)) {
    return SizeError(values.size(), elements, "values");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(dtype, shape));
  if (dtype == DType::kBool) {
    std::span<uint8_t> bytes = out.mutable_data<uint8_t>();
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = values[i] != 0;
    return out;
  }
  switch (DTypeSizeBytes(dtype)) {
    case 1:
      Narrow<uint8_t>(values, &out);
      break;
    case 2:
      Narrow<uint16_t>(values, &out);
      break;
    default:
      Narrow<uint32_t>(values, &out);
  }
  return out;
}

// `values` hold `parts` to the element (two for complex ones).
template <typename T>
Result<Tensor> FromValues(DType dtype, const Shape& shape, int64_t elements, int parts,
                          const std::vector<T>& values) {
  const uint64_t want = static_cast<uint64_t>(elements) * parts;
  if (values.size() != want) return SizeError(values.size(), want, "values");
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(dtype, shape));
  if (want > 0) std::memcpy(out.raw_mutable(), values.data(), want * sizeof(T));
  return out;
}

Result<Tensor> FromUint32s(const Shape& shape, int64_t elements,
                           const std::vector<int64_t>& values) {
  if (values.size() != static_cast<uint64_t>(elements)) {
    return SizeError(values.size(), elements, "values");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(DType::kUint32, shape));
  std::span<uint32_t> to = out.mutable_data<uint32_t>();
  for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<uint32_t>(values[i]);
  return out;
}

// From the typed field that belongs to the element type.
Result<Tensor> FromTypedField(DType dtype, int64_t elements, const TensorFields& t) {
  switch (dtype) {
    case DType::kFloat32:
      return FromValues(dtype, t.dims, elements, 1, t.floats);
    case DType::kComplex64:
      return FromValues(dtype, t.dims, elements, 2, t.floats);
    case DType::kFloat64:
      return FromValues(dtype, t.dims, elements, 1, t.doubles);
    case DType::kComplex128:
      return FromValues(dtype, t.dims, elements, 2, t.doubles);
    case DType::kInt64:
      return FromValues(dtype, t.dims, elements, 1, t.int64s);
    case DType::kUint64:
      return FromValues(dtype, t.dims, elements, 1, t.uint64s);
    case DType::kUint32:
      return FromUint32s(t.dims, elements, t.uint64s);
    default:
      return FromInt32s(dtype, t.dims, elements, t.int32s);
  }
}

Result<uint64_t> ParseDecimal(const TensorFields& t, const char* key, uint64_t fallback) {
  const auto it = t.external.find(key);
  if (it == t.external.end()) return fallback;
  uint64_t value = 0;
  const char* end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, value);
  if (error != std::errc() || stop != end || it->second.empty()) {
    return InvalidArgumentError("external data: bad " + std::string(key) + " " +
                                Quoted(it->second));
  }
  return value;
}

Result<Tensor> FromExternal(DType dtype, int64_t elements, const TensorFields& t,
                            const TensorLimits& limits) {
  const uint64_t want = StoredBytes(dtype, elements);
  PLEXUS_ASSIGN_OR_RETURN(const uint64_t offset, ParseDecimal(t, "offset", 0));
  PLEXUS_ASSIGN_OR_RETURN(const uint64_t length, ParseDecimal(t, "length", want));
  if (length != want) return SizeError(length, want, "external bytes");
  const auto location = t.external.find("location");
  if (location == t.external.end()) {
    return InvalidArgumentError("external data without a location");
  }
  if (limits.external == nullptr) {
    return FailedPreconditionError("external data is not allowed here");
  }
  PLEXUS_ASSIGN_OR_RETURN(auto buffer, limits.external->Read(location->second, offset, want));
  return FromStoredBytes(dtype, t.dims, std::move(buffer));
}

Result<Tensor> BuildTensor(TensorFields& t, const TensorLimits& limits) {
  PLEXUS_ASSIGN_OR_RETURN(const DType dtype, DTypeFromOnnx(t.data_type));
  if (t.has_segment) return UnimplementedError("tensors in segments are not supported");
  if (t.dims.size() > kMaxRank) {
    return InvalidArgumentError("has " + std::to_string(t.dims.size()) + " dimensions");
  }
  const bool is_string = dtype == DType::kString;
  const uint64_t element_bytes = is_string ? sizeof(std::string) : DTypeSizeBytes(dtype);
  const auto max_elements = static_cast<int64_t>(
      std::min<uint64_t>(limits.max_tensor_bytes / element_bytes, uint64_t{1} << 40));
  PLEXUS_ASSIGN_OR_RETURN(const int64_t elements, NumElements(t.dims, max_elements));
  if (is_string) {
    if (t.is_external || t.raw) return InvalidArgumentError("strings must lie in string_data");
    if (t.strings.size() != static_cast<uint64_t>(elements)) {
      return SizeError(t.strings.size(), elements, "strings");
    }
    return Tensor::FromStrings(t.dims, std::move(t.strings));
  }
  if (t.is_external) return FromExternal(dtype, elements, t, limits);
  if (t.raw && (t.raw->size_bytes() > 0 || elements == 0)) {
    const uint64_t want = StoredBytes(dtype, elements);
    if (t.raw->size_bytes() != want) return SizeError(t.raw->size_bytes(), want, "bytes");
    return FromStoredBytes(dtype, t.dims, std::move(t.raw));
  }
  return FromTypedField(dtype, elements, t);
}

NamedTensor Finish(WireReader& r, TensorFields fields, const TensorLimits& limits) {
  NamedTensor out{std::move(fields.name), {}};
  if (!r.ok()) return out;
  auto tensor = BuildTensor(fields, limits);
  if (tensor.ok()) {
    out.tensor = std::move(tensor).value();
  } else {
    r.Fail(tensor.status().WithContext("tensor " + Quoted(out.name)));
  }
  return out;
}

// The row-major position of entry `i` of a sparse tensor's indices, -1 where it is not in `dims`.
int64_t DensePosition(const Shape& dims, std::span<const int64_t> indices, int64_t i,
                      int64_t elements, bool linear) {
  if (linear) return indices[i] >= 0 && indices[i] < elements ? indices[i] : -1;
  int64_t position = 0;
  for (size_t axis = 0; axis < dims.size(); ++axis) {
    const int64_t index = indices[i * dims.size() + axis];
    if (index < 0 || index >= dims[axis]) return -1;
    position = position * dims[axis] + index;
  }
  return position;
}

Result<Tensor> Densify(const Tensor& values, const Tensor& indices, const Shape& dims,
                       TensorLimits& limits) {
  if (!values.defined() || values.rank() != 1) {
    return InvalidArgumentError("values must have one dimension");
  }
  if (values.dtype() == DType::kString) return UnimplementedError("sparse strings");
  const int64_t count = values.num_elements();
  const auto rank = static_cast<int64_t>(dims.size());
  const bool linear = indices.rank() == 1;
  const bool absent = !indices.defined() && count == 0;
  if (dims.empty() || dims.size() > kMaxRank) return InvalidArgumentError("bad dimensions");
  if (!absent && (indices.dtype() != DType::kInt64 ||
                  indices.shape() != (linear ? Shape{count} : Shape{count, rank}))) {
    return InvalidArgumentError("indices must be int64 [values] or [values, dimensions]");
  }
  const size_t element_bytes = DTypeSizeBytes(values.dtype());
  PLEXUS_ASSIGN_OR_RETURN(
      const int64_t elements,
      NumElements(dims, static_cast<int64_t>(std::min<uint64_t>(
                            limits.max_tensor_bytes / element_bytes, uint64_t{1} << 40))));
  limits.sparse_stored_bytes += values.size_bytes();
  limits.sparse_dense_bytes += static_cast<uint64_t>(elements) * element_bytes;
  if (limits.sparse_dense_bytes / 4096 > (16 << 10) + limits.sparse_stored_bytes) {
    return ResourceExhaustedError("too sparse to be stored in full");
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor dense, Tensor::Allocate(values.dtype(), dims));
  if (dense.size_bytes() > 0) std::memset(dense.raw_mutable(), 0, dense.size_bytes());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t to = DensePosition(dims, indices.data<int64_t>(), i, elements, linear);
    if (to < 0) return InvalidArgumentError("an index lies outside the shape");
    std::memcpy(dense.raw_mutable() + to * element_bytes, values.raw() + i * element_bytes,
                element_bytes);
  }
  return dense;
}

}  // namespace

Result<DType> DTypeFromOnnx(int64_t data_type) {
  if (data_type <= 0) return InvalidArgumentError("has no element type");
  if (data_type > static_cast<int64_t>(DType::kFloat4E2M1)) {
    return UnimplementedError("element type " + std::to_string(data_type) + " is not supported");
  }
  return static_cast<DType>(data_type);
}

NamedTensor ParseTensor(WireReader& reader, TensorLimits& limits) {
  return Finish(reader, ParseFields(reader), limits);
}

NamedTensor ParseSparseTensor(WireReader& reader, TensorLimits& limits) {
  NamedTensor values, indices;
  Shape dims;
  while (reader.Next()) {
    if (reader.field() == 1) {
      reader.Message([&] { values = ParseTensor(reader, limits); });
    } else if (reader.field() == 2) {
      reader.Message([&] { indices = ParseTensor(reader, limits); });
    } else if (reader.field() == 3) {
      reader.AppendVarints(&dims);
    } else {
      reader.Skip();
    }
  }
  NamedTensor out{std::move(values.name), {}};
  if (!reader.ok()) return out;
  auto dense = Densify(values.tensor, indices.tensor, dims, limits);
  if (dense.ok()) {
    out.tensor = std::move(dense).value();
  } else {
    reader.Fail(dense.status().WithContext("sparse tensor " + Quoted(out.name)));
  }
  return out;
}

}  // namespace plexus::onnx
