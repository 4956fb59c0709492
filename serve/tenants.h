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
// longest, with what the scheduler counted for it. Kept tenants stay.
class TenantTable {
 public:
  explicit TenantTable(size_t max_tenants = 1024) : max_tenants_(max_tenants), names_{""} {}

  // kInvalidArgument for a name that is not 1 to 64 of [A-Za-z0-9._-]. `since` (may be null) gets a
  // number that nobody else who had the id before or has it later gets.
  Result<TenantId> Find(std::string_view name, uint64_t* since = nullptr);
  // The same, and the tenant is never forgotten. kResourceExhausted when there is room for no
  // other.
  Result<TenantId> Keep(std::string_view name);
  // The name is unknown from now on, whether it was kept or not; asked for again, it gets another
  // id. What is under way still has this one, so it is given away last. kNotFound if nobody has
  // that name; kInvalidArgument if nobody can.
  Result<TenantId> Forget(std::string_view name);
  static Status CheckName(std::string_view name);
  std::string Name(TenantId id) const;
  // All there are now, by id; "" where one was forgotten.
  std::vector<std::string> Names() const;

 private:
  static constexpr uint64_t kKept = ~uint64_t{0};
  Result<TenantId> FindLocked(std::string_view name);

  const size_t max_tenants_;
  mutable std::mutex mutex_;  // guards everything below
  std::map<std::string, TenantId, std::less<>> ids_;
  std::vector<std::string> names_;
  std::vector<uint64_t> last_used_ = {kKept};  // by id, in lookups
  std::vector<uint64_t> since_ = {0};          // by id: the lookup that took it
  size_t kept_ = 1;
  uint64_t lookups_ = 0;
};

}  // namespace plexus
