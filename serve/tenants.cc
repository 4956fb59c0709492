#include "serve/tenants.h"

#include <algorithm>
#include <cctype>

namespace plexus {
namespace {

constexpr size_t kMaxNameBytes = 64;

bool IsTenantName(std::string_view name) {
  return name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace

Status TenantTable::CheckName(std::string_view name) {
  if (!name.empty() && IsTenantName(name)) return OkStatus();
  return InvalidArgumentError(
      "a tenant's name is 1 to 64 letters, digits, '.', '_' and '-'; got '" +
      std::string(name.substr(0, kMaxNameBytes)) + "'");
}

Result<TenantId> TenantTable::Find(std::string_view name, uint64_t* since) {
  if (since != nullptr) *since = 0;
  if (name.empty()) return TenantId(0);
  if (!IsTenantName(name)) {
    return InvalidArgumentError(
        "header plexus-tenant: a tenant's name is 1 to 64 letters, digits, '.', '_' and '-'");
  }
  std::lock_guard lock(mutex_);
  const Result<TenantId> id = FindLocked(name);
  if (id.ok() && since != nullptr) *since = since_[id->value()];
  return id;
}

Result<TenantId> TenantTable::FindLocked(std::string_view name) {
  ++lookups_;
  if (const auto it = ids_.find(name); it != ids_.end()) {
    uint64_t& last_used = last_used_[it->second.value()];
    if (last_used != kKept) last_used = lookups_;
    return it->second;
  }
  TenantId id(static_cast<uint32_t>(names_.size()));
  if (names_.size() < max_tenants_) {
    names_.emplace_back(name);
    last_used_.push_back(lookups_);
    since_.push_back(lookups_);
  } else {
    const auto oldest = std::min_element(last_used_.begin(), last_used_.end());
    if (*oldest == kKept) return ResourceExhaustedError("there are too many tenants");
    id = TenantId(static_cast<uint32_t>(oldest - last_used_.begin()));
    ids_.erase(names_[id.value()]);
    names_[id.value()] = name;
    *oldest = lookups_;
    since_[id.value()] = lookups_;
  }
  ids_.emplace(name, id);
  return id;
}

Result<TenantId> TenantTable::Keep(std::string_view name) {
  if (name.empty()) return TenantId(0);
  PLEXUS_RETURN_IF_ERROR(CheckName(name));
  std::lock_guard lock(mutex_);
  // One place stays for tenants that were never heard of.
  if (ids_.find(name) == ids_.end() && kept_ + 1 >= max_tenants_) {
    return ResourceExhaustedError("no more than " + std::to_string(max_tenants_ - 2) +
                                  " tenants can have a weight of their own");
  }
  PLEXUS_ASSIGN_OR_RETURN(const TenantId id, FindLocked(name));
  if (last_used_[id.value()] != kKept) ++kept_;
  last_used_[id.value()] = kKept;
  return id;
}

Result<TenantId> TenantTable::Forget(std::string_view name) {
  PLEXUS_RETURN_IF_ERROR(CheckName(name));
  std::lock_guard lock(mutex_);
  const auto it = ids_.find(name);
  if (it == ids_.end()) {
    return NotFoundError("no tenant '" + std::string(name) + "' has been heard of");
  }
  const TenantId id = it->second;
  ids_.erase(it);
  names_[id.value()].clear();
  if (last_used_[id.value()] == kKept) --kept_;
  last_used_[id.value()] = lookups_;
  return id;
}

std::vector<std::string> TenantTable::Names() const {
  std::lock_guard lock(mutex_);
  return names_;
}

std::string TenantTable::Name(TenantId id) const {
  std::lock_guard lock(mutex_);
  return id.value() < names_.size() ? names_[id.value()] : std::string();
}

}  // namespace plexus
