// CallTable: the inferences that have not been answered, by tenant.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "pipeline/runtime.h"
#include "sched/job.h"

namespace plexus {

// Thread-safe. Keeps nobody alive.
class CallTable {
 public:
  // From its beginning to its answer. `request` is unique among those.
  void Add(RequestId request, TenantId tenant, std::weak_ptr<CancelToken> call) {
    std::lock_guard lock(mutex_);
    calls_[request.value()] = {tenant, std::move(call)};
  }
  void Remove(RequestId request) {
    std::lock_guard lock(mutex_);
    calls_.erase(request.value());
  }
  // Gives up all of the tenant's; how many there were.
  size_t Cancel(TenantId tenant, const Status& why) {
    std::vector<std::shared_ptr<CancelToken>> cancelled;  // outside the lock: they call Remove
    {
      std::lock_guard lock(mutex_);
      for (const auto& [request, entry] : calls_) {
        if (entry.first != tenant) continue;
        if (std::shared_ptr<CancelToken> call = entry.second.lock()) {
          cancelled.push_back(std::move(call));
        }
      }
    }
    for (const std::shared_ptr<CancelToken>& call : cancelled) call->Cancel(why);
    return cancelled.size();
  }

 private:
  std::mutex mutex_;  // guards calls_
  std::unordered_map<uint64_t, std::pair<TenantId, std::weak_ptr<CancelToken>>> calls_;
};

}  // namespace plexus
