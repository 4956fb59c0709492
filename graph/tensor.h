// Tensor: a dense, row-major array with shared storage.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "graph/dtype.h"

namespace plexus {

// Owns bytes, or keeps the owner of someone else's bytes alive. Alignment 64 when allocated here.
// Allocation is fallible: an absurd size, or one beyond the budget of the thread's HostScope, is
// kResourceExhausted, never an abort. What was charged is given back by the destructor.
class Buffer {
 public:
  static Result<std::shared_ptr<Buffer>> Allocate(size_t size_bytes);
  // Borrows `data`; `keep_alive` lives as long as the Buffer.
  static std::shared_ptr<Buffer> Wrap(void* data, size_t size_bytes,
                                      std::shared_ptr<const void> keep_alive);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  Buffer() = default;
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  bool owned_ = false;
  bool passes_ = false;  // a request's: the next one will want as much
  MemoryCharge charge_;
  std::shared_ptr<const void> keep_alive_;
};

// A value type: copying shares the storage. Whoever writes through mutable_data() must be the only
// holder. Strings (kString) live in their own vector. Storage made here is charged as Buffer's is.
// Thread-compatible.
class Tensor {
 public:
  Tensor() = default;  // dtype kUndefined, no storage

  // Uninitialised storage (strings: empty). kInvalidArgument / kResourceExhausted on a bad shape.
  static Result<Tensor> Allocate(DType dtype, Shape shape);
  static Tensor FromBuffer(DType dtype, Shape shape, std::shared_ptr<Buffer> buffer,
                           size_t offset_bytes = 0);
  static Tensor FromStrings(Shape shape, std::vector<std::string> values);
  // For tests and small constants, charged to nobody; aborts on a shape that does not fit the
  // values.
  template <typename T>
  static Tensor Of(DType dtype, Shape shape, const std::vector<T>& values) {
    const HostScope uncharged(nullptr);
    Tensor t = Allocate(dtype, std::move(shape)).value();
    PLEXUS_CHECK(t.size_bytes() == values.size() * sizeof(T));
    if (!values.empty()) __builtin_memcpy(t.raw_mutable(), values.data(), t.size_bytes());
    return t;
  }
  static Tensor Scalar(float value);
  static Tensor ScalarInt64(int64_t value);
  static Tensor VectorInt64(const std::vector<int64_t>& values);

  bool defined() const { return dtype_ != DType::kUndefined; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t num_elements() const { return num_elements_; }
  size_t size_bytes() const { return num_elements_ * DTypeSizeBytes(dtype_); }

  const std::byte* raw() const { return buffer_ ? buffer_->data() + offset_bytes_ : nullptr; }
  std::byte* raw_mutable() { return buffer_ ? buffer_->data() + offset_bytes_ : nullptr; }
  template <typename T>
  std::span<const T> data() const {
    return {reinterpret_cast<const T*>(raw()), static_cast<size_t>(num_elements_)};
  }
  template <typename T>
  std::span<T> mutable_data() {
    return {reinterpret_cast<T*>(raw_mutable()), static_cast<size_t>(num_elements_)};
  }
  const std::vector<std::string>& strings() const { return *strings_; }
  std::vector<std::string>& mutable_strings() { return *strings_; }
  // strings()[i] = text, charged; beyond the budget the element stays and HostScope::Fail is told.
  // Operators that may repeat their input's texts use this.
  void AssignString(int64_t i, std::string_view text);

  // The same storage under another shape with as many elements (checked).
  Tensor Reshaped(Shape shape) const;
  // Own storage, same contents.
  Result<Tensor> Clone() const;
  const std::shared_ptr<Buffer>& buffer() const { return buffer_; }
  size_t offset_bytes() const { return offset_bytes_; }

 private:
  DType dtype_ = DType::kUndefined;
  Shape shape_;
  int64_t num_elements_ = 0;
  std::shared_ptr<Buffer> buffer_;
  size_t offset_bytes_ = 0;
  std::shared_ptr<std::vector<std::string>> strings_;
  std::shared_ptr<MemoryCharge> strings_charge_;
};

// Same dtype, shape and bytes.
bool TensorsEqual(const Tensor& a, const Tensor& b);
// First few elements for messages: "float32[2,3] 0.1 0.2 ...".
std::string TensorToString(const Tensor& t, int max_elements = 8);

// Reads element i of an integer, bool or floating tensor as the wanted type (used for shapes,
// axes).
Result<std::vector<int64_t>> ToInt64Vector(const Tensor& t);
Result<std::vector<double>> ToDoubleVector(const Tensor& t);

}  // namespace plexus
