#include "graph/tensor.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/page_pool.h"

namespace plexus {

namespace {

// From this size on a buffer has pages of its own, which go back to the system with it: weights
// that were packed or a model that was unloaded leave no holes in the heap. Those of requests are
// used again.
constexpr size_t kPagedBytes = size_t{1} << 20;

}  // namespace

Result<std::shared_ptr<Buffer>> Buffer::Allocate(size_t size_bytes) {
  constexpr size_t kAlignment = 64;
  constexpr size_t kMaxBytes = size_t{1} << 46;
  if (size_bytes > kMaxBytes) {
    return ResourceExhaustedError("allocation of " + std::to_string(size_bytes) + " bytes");
  }
  // Never empty, so that data() is a valid pointer for zero-sized tensors too.
  const size_t rounded = std::max(kAlignment, (size_bytes + kAlignment - 1) & ~(kAlignment - 1));
  constexpr size_t kOverheadBytes = 384;  // of what describes it and its tensor
  std::shared_ptr<MemoryBudget> memory = HostScope::Memory();
  const bool passes = memory != nullptr;
  MemoryCharge charge(std::move(memory));
  PLEXUS_RETURN_IF_ERROR(charge.Grow(rounded + kOverheadBytes));
  const bool paged = size_bytes >= kPagedBytes;
  void* data = paged ? PagePool::Process().Allocate(size_bytes, passes)
                     : std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) {
    return ResourceExhaustedError("out of memory for " + std::to_string(size_bytes) + " bytes");
  }
  std::shared_ptr<Buffer> buffer(new Buffer());
  buffer->data_ = static_cast<std::byte*>(data);
  buffer->size_bytes_ = size_bytes;
  buffer->owned_ = true;
  buffer->passes_ = passes;
  buffer->charge_ = std::move(charge);
  return buffer;
}

std::shared_ptr<Buffer> Buffer::Wrap(void* data, size_t size_bytes,
                                     std::shared_ptr<const void> keep_alive) {
  std::shared_ptr<Buffer> buffer(new Buffer());
  buffer->data_ = static_cast<std::byte*>(data);
  buffer->size_bytes_ = size_bytes;
  buffer->keep_alive_ = std::move(keep_alive);
  return buffer;
}

Buffer::~Buffer() {
  if (!owned_) return;
  if (size_bytes_ >= kPagedBytes) {
    PagePool::Process().Free(data_, size_bytes_, passes_);
  } else {
    std::free(data_);
  }
}

Result<Tensor> Tensor::Allocate(DType dtype, Shape shape) {
  PLEXUS_ASSIGN_OR_RETURN(const int64_t n, NumElements(shape));
  Tensor t;
  t.dtype_ = dtype;
  t.shape_ = std::move(shape);
  t.num_elements_ = n;
  if (dtype == DType::kString) {
    constexpr int64_t kMaxStrings = int64_t{1} << 28;
    if (n > kMaxStrings) return ResourceExhaustedError("too many strings in one tensor");
    t.strings_charge_ = std::make_shared<MemoryCharge>(HostScope::Memory());
    PLEXUS_RETURN_IF_ERROR(t.strings_charge_->Grow(static_cast<size_t>(n) * sizeof(std::string)));
    t.strings_ = std::make_shared<std::vector<std::string>>(n);
    return t;
  }
  if (DTypeSizeBytes(dtype) == 0) return InvalidArgumentError("tensor without an element type");
  PLEXUS_ASSIGN_OR_RETURN(t.buffer_, Buffer::Allocate(t.size_bytes()));
  return t;
}

Tensor Tensor::FromBuffer(DType dtype, Shape shape, std::shared_ptr<Buffer> buffer,
                          size_t offset_bytes) {
  Tensor t;
  t.dtype_ = dtype;
  t.num_elements_ = NumElementsUnchecked(shape);
  t.shape_ = std::move(shape);
  PLEXUS_CHECK(buffer != nullptr && offset_bytes + t.size_bytes() <= buffer->size_bytes());
  t.buffer_ = std::move(buffer);
  t.offset_bytes_ = offset_bytes;
  return t;
}

Tensor Tensor::FromStrings(Shape shape, std::vector<std::string> values) {
  Tensor t;
  t.dtype_ = DType::kString;
  t.num_elements_ = NumElementsUnchecked(shape);
  t.shape_ = std::move(shape);
  PLEXUS_CHECK(static_cast<size_t>(t.num_elements_) == values.size());
  t.strings_ = std::make_shared<std::vector<std::string>>(std::move(values));
  return t;
}

void Tensor::AssignString(int64_t i, std::string_view text) {
  constexpr size_t kInPlace = 15;  // shorter ones need no memory of their own
  if (text.size() > kInPlace && strings_charge_ != nullptr) {
    Status status = strings_charge_->Grow(text.size() + 1);
    if (!status.ok()) return HostScope::Fail(std::move(status));
  }
  (*strings_)[i] = text;
}

Tensor Tensor::Scalar(float value) { return Of<float>(DType::kFloat32, {}, {value}); }
Tensor Tensor::ScalarInt64(int64_t value) { return Of<int64_t>(DType::kInt64, {}, {value}); }
Tensor Tensor::VectorInt64(const std::vector<int64_t>& values) {
  return Of<int64_t>(DType::kInt64, {static_cast<int64_t>(values.size())}, values);
}

Tensor Tensor::Reshaped(Shape shape) const {
  PLEXUS_CHECK(NumElementsUnchecked(shape) == num_elements_);
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Result<Tensor> Tensor::Clone() const {
  if (!defined()) return Tensor();
  if (dtype_ == DType::kString) return FromStrings(shape_, *strings_);
  PLEXUS_ASSIGN_OR_RETURN(Tensor t, Allocate(dtype_, shape_));
  if (size_bytes() > 0) std::memcpy(t.raw_mutable(), raw(), size_bytes());
  return t;
}

bool TensorsEqual(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  if (!a.defined()) return true;
  if (a.dtype() == DType::kString) return a.strings() == b.strings();
  return a.size_bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.size_bytes()) == 0;
}

namespace {

double ElementAsDouble(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::kFloat32:
      return t.data<float>()[i];
    case DType::kFloat64:
      return t.data<double>()[i];
    case DType::kFloat16:
      return HalfToFloat(t.data<uint16_t>()[i]);
    case DType::kBFloat16:
      return BFloat16ToFloat(t.data<uint16_t>()[i]);
    case DType::kUint8:
    case DType::kUint4:
      return t.data<uint8_t>()[i];
    case DType::kBool:
      return t.data<uint8_t>()[i] != 0;
    case DType::kInt8:
    case DType::kInt4:
      return t.data<int8_t>()[i];
    case DType::kUint16:
      return t.data<uint16_t>()[i];
    case DType::kInt16:
      return t.data<int16_t>()[i];
    case DType::kInt32:
      return t.data<int32_t>()[i];
    case DType::kUint32:
      return t.data<uint32_t>()[i];
    case DType::kInt64:
      return static_cast<double>(t.data<int64_t>()[i]);
    case DType::kUint64:
      return static_cast<double>(t.data<uint64_t>()[i]);
    default:
      return 0;
  }
}

bool IsNumeric(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
    case DType::kFloat64:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kBool:
      return true;
    default:
      return IsInteger(dtype);
  }
}

}  // namespace

std::string TensorToString(const Tensor& t, int max_elements) {
  if (!t.defined()) return "undefined";
  std::string out = std::string(DTypeName(t.dtype())) + ShapeToString(t.shape());
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    if (i == max_elements) return out + " ...";
    if (t.dtype() == DType::kString) {
      out += " \"" + t.strings()[i].substr(0, 32) + "\"";
    } else if (IsNumeric(t.dtype())) {
      char number[32];
      snprintf(number, sizeof(number), " %g", ElementAsDouble(t, i));
      out += number;
    }
  }
  return out;
}

Result<std::vector<int64_t>> ToInt64Vector(const Tensor& t) {
  if (!IsNumeric(t.dtype())) {
    return InvalidArgumentError("expected numbers, got " + std::string(DTypeName(t.dtype())));
  }
  std::vector<int64_t> out(t.num_elements());
  if (t.dtype() == DType::kInt64) {
    if (!out.empty()) std::memcpy(out.data(), t.raw(), t.size_bytes());
    return out;
  }
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    const double v = t.dtype() == DType::kUint64 ? 0.0 : ElementAsDouble(t, i);
    if (t.dtype() == DType::kUint64) {
      const uint64_t u = t.data<uint64_t>()[i];
      if (u > static_cast<uint64_t>(INT64_MAX)) return InvalidArgumentError("value exceeds int64");
      out[i] = static_cast<int64_t>(u);
    } else if (!(v >= -0x1p63 && v < 0x1p63)) {
      return InvalidArgumentError("value is not an int64");
    } else {
      out[i] = static_cast<int64_t>(v);
    }
  }
  return out;
}

Result<std::vector<double>> ToDoubleVector(const Tensor& t) {
  if (!IsNumeric(t.dtype())) {
    return InvalidArgumentError("expected numbers, got " + std::string(DTypeName(t.dtype())));
  }
  std::vector<double> out(t.num_elements());
  for (int64_t i = 0; i < t.num_elements(); ++i) out[i] = ElementAsDouble(t, i);
  return out;
}

}  // namespace plexus
