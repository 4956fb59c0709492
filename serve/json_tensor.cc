#include "serve/json_tensor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace plexus {
namespace {

namespace dom = simdjson::dom;

std::string Describe(dom::element value) {
  switch (value.type()) {
    case dom::element_type::ARRAY:
      return "an array";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::NULL_VALUE:
      return "null";
    default: {
      std::string text = simdjson::minify(value);
      if (text.size() > 40) text = text.substr(0, 37) + "...";
      return text;
    }
  }
}

// Each Read returns whether the value is one of T's.
template <typename T>
bool Read(dom::element value, T* out) {
  if constexpr (std::is_same_v<T, bool>) {
    return value.get(*out) == simdjson::SUCCESS;
  } else if constexpr (std::is_same_v<T, std::string>) {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return false;
    out->assign(text);
    return true;
  } else if constexpr (std::is_floating_point_v<T>) {
    double number;
    if (value.get(number) != simdjson::SUCCESS) return false;
    *out = static_cast<T>(number);
    return std::isfinite(*out);
  } else if constexpr (std::is_unsigned_v<T>) {
    uint64_t number;
    if (value.get(number) != simdjson::SUCCESS) return false;
    *out = static_cast<T>(number);
    return number <= std::numeric_limits<T>::max();
  } else {
    int64_t number;
    if (value.get(number) != simdjson::SUCCESS) return false;
    *out = static_cast<T>(number);
    return number >= std::numeric_limits<T>::min() && number <= std::numeric_limits<T>::max();
  }
}

template <typename T>
class Filler {
 public:
  Filler(DType dtype, const Shape& shape, T* out, size_t count)
      : dtype_(dtype), shape_(shape), out_(out), count_(count) {}

  Status Fill(dom::array data) {
    const auto first = data.begin();
    nested_ = shape_.size() > 1 && first != data.end() && (*first).is_array();
    PLEXUS_RETURN_IF_ERROR(Level(data, 0));
    if (next_ == count_) return OkStatus();
    return Count("holds " + std::to_string(next_) + " elements");
  }

 private:
  Status Count(const std::string& what) const {
    return InvalidArgumentError("its data " + what + ", shape " + ShapeToString(shape_) + " has " +
                                std::to_string(count_));
  }

  Status Level(dom::array data, size_t depth) {
    const bool leaf = !nested_ || depth + 1 == shape_.size();
    size_t length = 0;
    for (const dom::element value : data) {
      ++length;
      if (!leaf) {
        dom::array inner;
        if (value.get(inner) != simdjson::SUCCESS) {
          return InvalidArgumentError("its data is nested in some places and not in others");
        }
        PLEXUS_RETURN_IF_ERROR(Level(inner, depth + 1));
        continue;
      }
      if (next_ == count_) return Count("holds more elements");
      if (!Read(value, &out_[next_])) {
        return InvalidArgumentError("element " + std::to_string(next_) + ": " + Describe(value) +
                                    " is no " + std::string(DTypeProtocolName(dtype_)));
      }
      ++next_;
    }
    if (nested_ && length != static_cast<size_t>(shape_[depth])) {
      return InvalidArgumentError("its data is nested with " + std::to_string(length) +
                                  " entries where shape " + ShapeToString(shape_) + " has " +
                                  std::to_string(shape_[depth]));
    }
    return OkStatus();
  }

  const DType dtype_;
  const Shape& shape_;
  T* const out_;
  const size_t count_;
  size_t next_ = 0;
  bool nested_ = false;
};

template <typename T>
Result<Tensor> Numbers(DType dtype, const Shape& shape, dom::array data) {
  PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, shape));
  Filler<T> filler(dtype, shape, reinterpret_cast<T*>(tensor.raw_mutable()),
                   static_cast<size_t>(tensor.num_elements()));
  PLEXUS_RETURN_IF_ERROR(filler.Fill(data));
  return tensor;
}

Result<Tensor> Strings(const Shape& shape, dom::array data) {
  std::vector<std::string> values(static_cast<size_t>(NumElementsUnchecked(shape)));
  Filler<std::string> filler(DType::kString, shape, values.data(), values.size());
  PLEXUS_RETURN_IF_ERROR(filler.Fill(data));
  return Tensor::FromStrings(shape, std::move(values));
}

// write(element) for all, with a look at `check` now and then.
template <typename Elements, typename Write>
Status WriteEach(const Elements& elements, const std::function<Status()>& check,
                 const Write& write) {
  constexpr size_t kBetweenChecks = 4096;
  for (size_t i = 0; i < elements.size(); ++i) {
    if (i % kBetweenChecks == 0 && check != nullptr) PLEXUS_RETURN_IF_ERROR(check());
    write(elements[i]);
  }
  return OkStatus();
}

Status WriteElements(const Tensor& tensor, JsonWriter& json, const std::function<Status()>& check) {
  const auto sint = [&](int64_t value) { json.Int(value); };
  const auto uint = [&](uint64_t value) { json.Uint(value); };
  switch (tensor.dtype()) {
    case DType::kBool:
      return WriteEach(tensor.data<uint8_t>(), check,
                       [&](uint8_t value) { json.Bool(value != 0); });
    case DType::kUint8:
      return WriteEach(tensor.data<uint8_t>(), check, uint);
    case DType::kUint16:
      return WriteEach(tensor.data<uint16_t>(), check, uint);
    case DType::kUint32:
      return WriteEach(tensor.data<uint32_t>(), check, uint);
    case DType::kUint64:
      return WriteEach(tensor.data<uint64_t>(), check, uint);
    case DType::kInt8:
      return WriteEach(tensor.data<int8_t>(), check, sint);
    case DType::kInt16:
      return WriteEach(tensor.data<int16_t>(), check, sint);
    case DType::kInt32:
      return WriteEach(tensor.data<int32_t>(), check, sint);
    case DType::kInt64:
      return WriteEach(tensor.data<int64_t>(), check, sint);
    case DType::kFloat32:
      return WriteEach(tensor.data<float>(), check, [&](float value) { json.Float(value); });
    case DType::kFloat64:
      return WriteEach(tensor.data<double>(), check, [&](double value) { json.Double(value); });
    case DType::kString:
      return WriteEach(tensor.strings(), check,
                       [&](const std::string& value) { json.String(value); });
    default:
      return InvalidArgumentError("is " + std::string(DTypeProtocolName(tensor.dtype())) +
                                  ", which JSON cannot carry; ask for it with binary_data");
  }
}

}  // namespace

Result<Tensor> TensorFromJson(DType dtype, const Shape& shape, dom::element value) {
  dom::array data;
  if (value.get(data) != simdjson::SUCCESS) {
    return InvalidArgumentError("its 'data' is " + Describe(value) + ", expected an array");
  }
  switch (dtype) {
    case DType::kBool:
      return Numbers<bool>(dtype, shape, data);
    case DType::kUint8:
      return Numbers<uint8_t>(dtype, shape, data);
    case DType::kUint16:
      return Numbers<uint16_t>(dtype, shape, data);
    case DType::kUint32:
      return Numbers<uint32_t>(dtype, shape, data);
    case DType::kUint64:
      return Numbers<uint64_t>(dtype, shape, data);
    case DType::kInt8:
      return Numbers<int8_t>(dtype, shape, data);
    case DType::kInt16:
      return Numbers<int16_t>(dtype, shape, data);
    case DType::kInt32:
      return Numbers<int32_t>(dtype, shape, data);
    case DType::kInt64:
      return Numbers<int64_t>(dtype, shape, data);
    case DType::kFloat32:
      return Numbers<float>(dtype, shape, data);
    case DType::kFloat64:
      return Numbers<double>(dtype, shape, data);
    case DType::kString:
      return Strings(shape, data);
    default:
      return InvalidArgumentError(std::string(DTypeProtocolName(dtype)) +
                                  " cannot be sent as JSON; send it as a binary tensor");
  }
}

Status TensorToJson(const Tensor& tensor, JsonWriter& json, const std::function<Status()>& check) {
  if (tensor.dtype() == DType::kString) {
    for (const std::string& text : tensor.strings()) {
      if (!simdjson::validate_utf8(text)) {
        return InvalidArgumentError("holds bytes that are not UTF-8; ask for it with binary_data");
      }
    }
  }
  json.BeginArray();
  PLEXUS_RETURN_IF_ERROR(WriteElements(tensor, json, check));
  json.EndArray();
  return OkStatus();
}

Result<Tensor> StringsFromBinary(const Shape& shape, const std::byte* data, size_t size_bytes) {
  PLEXUS_ASSIGN_OR_RETURN(const int64_t count, NumElements(shape));
  // Each element takes its length at least, so that a declared size reserves no more than was sent.
  if (static_cast<uint64_t>(count) > size_bytes / 4) {
    return InvalidArgumentError("its data has " + std::to_string(size_bytes) +
                                " bytes, too few for the lengths of " + std::to_string(count) +
                                " elements");
  }
  std::vector<std::string> values;
  values.reserve(static_cast<size_t>(count));
  size_t at = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t length = 0;
    if (size_bytes - at >= 4) std::memcpy(&length, data + at, 4);
    if (size_bytes - at < 4 || length > size_bytes - at - 4) {
      return InvalidArgumentError("element " + std::to_string(i) + " is longer than its data");
    }
    values.emplace_back(reinterpret_cast<const char*>(data + at + 4), length);
    at += 4 + size_t{length};
  }
  if (at != size_bytes) {
    return InvalidArgumentError(std::to_string(size_bytes - at) + " bytes follow its " +
                                std::to_string(count) + " elements");
  }
  return Tensor::FromStrings(shape, std::move(values));
}

size_t BinarySize(const Tensor& strings) {
  size_t total = 0;
  for (const std::string& text : strings.strings()) total += 4 + text.size();
  return total;
}

std::string StringsToBinary(const Tensor& tensor) {
  std::string out;
  out.reserve(BinarySize(tensor));
  for (const std::string& text : tensor.strings()) {
    const auto length = static_cast<uint32_t>(text.size());
    out.append(reinterpret_cast<const char*>(&length), 4);
    out += text;
  }
  return out;
}

}  // namespace plexus
