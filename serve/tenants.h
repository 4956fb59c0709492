// Names of tenants and the ids that the dispatcher knows them by.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "sched/job.h"

namespace plexus {

// Thread-safe. Ids are given in order of first use; 0 is the default tenant "". Bounded, since
// clients choose the names: a new name in a full table takes the id of the tenant not heard of for
// longest.
class TenantTable {
 public:
  explicit TenantTable(size_t max_tenants = 1024) : max_tenants_(max_tenants), names_{""} {}

  // kInvalidArgument for a name that is not 1 to 64 of [A-Za-z0-9._-].
  Result<TenantId> Find(std::string_view name);
  std::string Name(TenantId id) const;

 private:
  const size_t max_tenants_;
  mutable std::mutex mutex_;  // guards everything below
  std::map<std::string, TenantId, std::less<>> ids_;
  std::vector<std::string> names_;
  std::vector<uint64_t> last_used_ = {0};  // by id, in lookups
  uint64_t lookups_ = 0;
};

}  // namespace plexus
