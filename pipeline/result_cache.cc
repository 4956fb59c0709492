#include "pipeline/result_cache.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"

namespace plexus {
namespace {

// What an entry takes beside its tensors: itself and its count of owners, the nodes of list and
// table, the table's bucket, and what the allocator adds to each.
constexpr size_t kEntryOverhead = 320;
// A tensor's handle, and its storage's: buffer, counts of owners, alignment to 64 bytes.
constexpr size_t kTensorOverhead = sizeof(Tensor) + 256;

size_t BytesOf(const std::vector<Tensor>& tensors) {
  size_t bytes = 0;
  for (const Tensor& t : tensors) {
    bytes += kTensorOverhead + t.shape().size() * sizeof(int64_t);
    if (!t.defined()) continue;
    if (t.dtype() != DType::kString) {
      bytes += t.size_bytes();
      continue;
    }
    for (const std::string& text : t.strings()) bytes += sizeof(text) + text.size() + 1;
  }
  return bytes;
}

Result<std::vector<Tensor>> Copies(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> copies;
  copies.reserve(tensors.size());
  for (const Tensor& t : tensors) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor copy, t.Clone());
    copies.push_back(std::move(copy));
  }
  return copies;
}

}  // namespace

uint64_t ResultCache::Key(const Ask& ask) const {
  uint64_t key = HashCombine(ask.work, ask.inputs->size());
  if (!across_tenants_) {
    key = HashCombine(HashCombine(key, ask.tenant.value()), ask.tenant_since);
  }
  for (const Tensor& t : *ask.inputs) {
    key = HashCombine(key, static_cast<uint64_t>(t.dtype()));
    if (!t.defined()) continue;
    key = FastHash(t.shape().data(), t.shape().size() * sizeof(int64_t), key);
    if (t.dtype() != DType::kString) {
      key = FastHash(t.raw(), t.size_bytes(), key);
      continue;
    }
    for (const std::string& text : t.strings()) key = FastHash(text.data(), text.size(), key);
  }
  return key;
}

bool ResultCache::Answers(const Entry& entry, const Ask& ask) const {
  const bool same_tenant = entry.tenant == ask.tenant && entry.tenant_since == ask.tenant_since;
  return entry.work == ask.work && (across_tenants_ || same_tenant) &&
         std::equal(entry.inputs.begin(), entry.inputs.end(), ask.inputs->begin(),
                    ask.inputs->end(), TensorsEqual);
}

ResultCache::EntryPtr ResultCache::Peek(uint64_t key) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(key);
  if (it == entries_.end()) return nullptr;
  used_.splice(used_.begin(), used_, it->second);
  return used_.front();
}

std::optional<std::vector<Tensor>> ResultCache::Find(const Ask& ask, uint64_t key) {
  const EntryPtr entry = Peek(key);
  const bool hit = entry != nullptr && Answers(*entry, ask);
  {
    std::lock_guard lock(mutex_);
    ++(hit ? stats_.hits : stats_.misses);
  }
  return hit ? std::optional(entry->outputs) : std::nullopt;
}

void ResultCache::Keep(const Ask& ask, uint64_t key, const std::vector<Tensor>& outputs) {
  const size_t bytes = kEntryOverhead + BytesOf(*ask.inputs) + BytesOf(outputs);
  if (bytes > max_bytes_) {
    std::lock_guard lock(mutex_);
    ++stats_.too_large;
    return;
  }
  const EntryPtr there = Peek(key);
  if (there != nullptr && Answers(*there, ask)) return;
  auto entry = std::make_shared<Entry>();
  entry->key = key;
  entry->work = ask.work;
  entry->tenant = ask.tenant;
  entry->tenant_since = ask.tenant_since;
  entry->bytes = bytes;
  const HostScope uncharged(nullptr);
  Result<std::vector<Tensor>> inputs = Copies(*ask.inputs), copies = Copies(outputs);
  if (!inputs.ok() || !copies.ok()) return;  // no memory: the answer does not depend on it
  entry->inputs = std::move(*inputs);
  entry->outputs = std::move(*copies);

  std::vector<EntryPtr> gone;  // destroyed outside the lock
  std::lock_guard lock(mutex_);
  if (const auto it = entries_.find(key); it != entries_.end()) EraseLocked(it->second, &gone);
  while (stats_.bytes + bytes > max_bytes_) {
    ++stats_.evictions;
    EraseLocked(std::prev(used_.end()), &gone);
  }
  used_.push_front(std::move(entry));
  entries_[key] = used_.begin();
  stats_.bytes += bytes;
}

void ResultCache::EraseLocked(Used::iterator at, std::vector<EntryPtr>* gone) {
  stats_.bytes -= (*at)->bytes;
  entries_.erase((*at)->key);
  gone->push_back(std::move(*at));
  used_.erase(at);
}

void ResultCache::Drop(uint64_t work) {
  std::vector<EntryPtr> gone;  // destroyed outside the lock
  std::lock_guard lock(mutex_);
  for (auto it = used_.begin(); it != used_.end();) {
    const auto at = it++;
    if ((*at)->work == work) EraseLocked(at, &gone);
  }
}

ResultCache::Stats ResultCache::stats() const {
  std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.entries = entries_.size();
  stats.max_bytes = max_bytes_;
  return stats;
}

}  // namespace plexus
