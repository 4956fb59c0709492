#include "graph/constant_store.h"

namespace plexus {
namespace {

ContentHash HashTensor(const Tensor& t) {
  ContentHasher hasher;
  hasher.UpdateInt(static_cast<int64_t>(t.dtype()));
  hasher.UpdateInt(t.rank());
  for (int64_t d : t.shape()) hasher.UpdateInt(d);
  if (t.dtype() == DType::kString) {
    for (const std::string& s : t.strings()) hasher.UpdateString(s);
  } else if (t.size_bytes() > 0) {
    hasher.Update(t.raw(), t.size_bytes());
  }
  return hasher.Finish();
}

constexpr size_t kSmallBytes = 4096;

}  // namespace

Result<Tensor> Constant::Plain() const {
  DerivedPtr from;
  Restore restore;
  {
    std::lock_guard lock(mutex_);
    if (plain_.defined()) return plain_;
    from = restore_from_;
    restore = restore_;
  }
  return restore(*from);  // outside the lock: it may take milliseconds
}

Tensor Constant::PlainIfResident() const {
  std::lock_guard lock(mutex_);
  return plain_;
}

Result<DerivedPtr> Constant::Derived(const std::string& layout, const MakeDerived& make) const {
  // One mutex per constant: a second caller for the same constant waits while the first packs.
  std::lock_guard packing(packing_mutex_);
  {
    std::lock_guard lock(mutex_);
    auto it = derived_.find(layout);
    if (it != derived_.end()) {
      if (DerivedPtr live = it->second.lock()) return live;
    }
  }
  PLEXUS_ASSIGN_OR_RETURN(Tensor plain, Plain());
  PLEXUS_ASSIGN_OR_RETURN(DerivedConstant made, make(plain));
  auto derived = std::make_shared<const DerivedConstant>(std::move(made));
  std::lock_guard lock(mutex_);
  derived_[layout] = derived;
  return derived;
}

void Constant::EvictPlain(DerivedPtr from, Restore restore) const {
  if (size_bytes() < kSmallBytes) return;
  std::lock_guard lock(mutex_);
  if (!plain_.defined()) return;  // already evicted: the first form to hold it stays
  restore_from_ = std::move(from);
  restore_ = std::move(restore);
  plain_ = Tensor();
}

ConstantStore& ConstantStore::Get() {
  static ConstantStore* const store = new ConstantStore();
  return *store;
}

ConstantPtr ConstantStore::Intern(Tensor tensor) {
  PLEXUS_CHECK(tensor.defined());
  const ContentHash hash = HashTensor(tensor);
  std::lock_guard lock(mutex_);
  auto [begin, end] = by_hash_.equal_range(hash);
  for (auto it = begin; it != end;) {
    ConstantPtr live = it->second.lock();
    if (live == nullptr) {
      it = by_hash_.erase(it);
      continue;
    }
    Result<Tensor> plain = live->Plain();
    if (plain.ok() && TensorsEqual(*plain, tensor)) {
      shared_bytes_ += tensor.size_bytes();
      return live;
    }
    ++it;
  }
  std::shared_ptr<Constant> made(new Constant());
  made->hash_ = hash;
  made->dtype_ = tensor.dtype();
  made->shape_ = tensor.shape();
  made->num_elements_ = tensor.num_elements();
  made->plain_ = std::move(tensor);
  by_hash_.emplace(hash, made);
  // Sweep the dead now and then, so that churn of models does not grow the table for ever.
  if (++interned_since_sweep_ > 1024 && interned_since_sweep_ > by_hash_.size() / 2) {
    interned_since_sweep_ = 0;
    std::erase_if(by_hash_, [](const auto& entry) { return entry.second.expired(); });
  }
  return made;
}

ConstantStore::Stats ConstantStore::GetStats() const {
  Stats stats;
  std::lock_guard lock(mutex_);
  stats.shared_bytes = shared_bytes_;
  for (const auto& [hash, weak] : by_hash_) {
    ConstantPtr live = weak.lock();
    if (live == nullptr) continue;
    ++stats.constants;
    std::lock_guard constant_lock(live->mutex_);
    if (live->plain_.defined()) stats.plain_bytes += live->plain_.size_bytes();
    for (const auto& [layout, derived] : live->derived_) {
      if (DerivedPtr d = derived.lock()) stats.derived_bytes += d->size_bytes();
    }
  }
  return stats;
}

}  // namespace plexus
