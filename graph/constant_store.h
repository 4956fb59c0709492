// Content-addressed constants: equal weights live once per process, however many models hold them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "base/hash.h"
#include "base/status.h"
#include "graph/tensor.h"

namespace plexus {

class Constant;
class ConstantStore;
using ConstantPtr = std::shared_ptr<const Constant>;

// A derived form of a constant, made for one layout: prepacked weights, int8 panels.
struct DerivedConstant {
  std::shared_ptr<Buffer> buffer;
  size_t size_bytes() const { return buffer ? buffer->size_bytes() : 0; }
};
using DerivedPtr = std::shared_ptr<const DerivedConstant>;

// An immutable tensor with its content address. Its plain (row-major) bytes can be given up once a
// derived form holds the same information; they come back on demand. Thread-safe.
class Constant {
 public:
  const ContentHash& hash() const { return hash_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t num_elements() const { return num_elements_; }
  size_t size_bytes() const { return num_elements_ * DTypeSizeBytes(dtype_); }

  // The plain tensor; restored from the derived form (and kept only by the caller) if evicted.
  Result<Tensor> Plain() const;
  // The plain tensor if resident, else an undefined Tensor; never restores.
  Tensor PlainIfResident() const;

  // The derived form for `layout` ("dnnl:conv:..." — names its layout exactly), made once per
  // process by `make` from the plain tensor; equal concurrent calls make it once. It lives as long
  // as somebody holds the returned pointer.
  using MakeDerived = std::function<Result<DerivedConstant>(const Tensor& plain)>;
  Result<DerivedPtr> Derived(const std::string& layout, const MakeDerived& make) const;

  // Gives up the plain bytes: `restore` rebuilds them exactly from `from`, which is kept alive
  // instead. Small constants (< 4 KiB) stay.
  using Restore = std::function<Result<Tensor>(const DerivedConstant& from)>;
  void EvictPlain(DerivedPtr from, Restore restore) const;

 private:
  friend class ConstantStore;
  Constant() = default;

  ContentHash hash_;
  DType dtype_ = DType::kUndefined;
  Shape shape_;
  int64_t num_elements_ = 0;

  mutable std::mutex packing_mutex_;  // held while a derived form is made; taken before mutex_
  mutable std::mutex mutex_;          // guards everything below
  mutable Tensor plain_;
  mutable DerivedPtr restore_from_;
  mutable Restore restore_;
  mutable std::unordered_map<std::string, std::weak_ptr<const DerivedConstant>> derived_;
};

// Thread-safe. Holds weak references only: a constant dies with its last model.
class ConstantStore {
 public:
  static ConstantStore& Get();  // process-wide, never destroyed
  ConstantStore() = default;

  // The one Constant with these contents (dtype, shape and bytes compared, not only the hash).
  ConstantPtr Intern(Tensor tensor);

  struct Stats {
    size_t constants = 0;
    size_t plain_bytes = 0;    // resident plain bytes
    size_t derived_bytes = 0;  // live derived forms
    size_t shared_bytes = 0;   // bytes not stored again because an equal constant was there
  };
  Stats GetStats() const;

 private:
  mutable std::mutex mutex_;  // guards everything below
  std::unordered_multimap<ContentHash, std::weak_ptr<const Constant>> by_hash_;
  size_t shared_bytes_ = 0;
  size_t interned_since_sweep_ = 0;
};

}  // namespace plexus
