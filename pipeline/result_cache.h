// ResultCache: finished results, for requests that ask for the same again.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "graph/tensor.h"
#include "sched/job.h"

namespace plexus {

// Bounded in bytes, the least recently used go first. Inputs are kept with the results and compared
// byte by byte: a hash never decides. Nobody gets what another tenant's request left unless
// `across_tenants`: who learns that a result was there learns what others ask for. Thread-safe;
// large tensors are copied and compared outside the lock.
class ResultCache {
 public:
  // `max_bytes`: of all entries, keys and bookkeeping counted; 0: nothing is kept or looked for.
  explicit ResultCache(size_t max_bytes, bool across_tenants = false)
      : max_bytes_(max_bytes), across_tenants_(across_tenants) {}

  bool enabled() const { return max_bytes_ > 0; }

  struct Ask {
    uint64_t work = 0;  // what is computed: equal numbers compute the same of the same inputs
    TenantId tenant{0};
    uint64_t tenant_since = 0;  // RequestAttributes::tenant_since
    const std::vector<Tensor>* inputs = nullptr;
  };
  // Of all bytes of the question; linear in their number.
  uint64_t Key(const Ask& ask) const;

  // What was kept for this question; `key` is Key(ask). The tensors share the cache's storage: they
  // stay what they are when the entry goes.
  std::optional<std::vector<Tensor>> Find(const Ask& ask, uint64_t key);
  // Keeps copies of inputs and outputs, charged to no request, unless they are there already or are
  // too large for the cache or for the memory there is.
  void Keep(const Ask& ask, uint64_t key, const std::vector<Tensor>& outputs);
  // Forgets all results of a graph that is going away; nobody asks for it any more.
  void Drop(uint64_t work);

  struct Stats {
    size_t entries = 0, bytes = 0, max_bytes = 0;
    uint64_t hits = 0, misses = 0, evictions = 0;
    uint64_t too_large = 0;  // results that were not kept for their size
  };
  Stats stats() const;

 private:
  struct Entry {
    uint64_t key = 0, work = 0, tenant_since = 0;
    TenantId tenant{0};
    std::vector<Tensor> inputs, outputs;
    size_t bytes = 0;
  };
  using EntryPtr = std::shared_ptr<const Entry>;
  using Used = std::list<EntryPtr>;

  bool Answers(const Entry& entry, const Ask& ask) const;
  EntryPtr Peek(uint64_t key);
  void EraseLocked(Used::iterator at, std::vector<EntryPtr>* gone);

  const size_t max_bytes_;
  const bool across_tenants_;
  mutable std::mutex mutex_;                              // guards everything below
  Used used_;                                             // most recently used first
  std::unordered_map<uint64_t, Used::iterator> entries_;  // by key, one of each
  Stats stats_;
};

}  // namespace plexus
