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

Result<TenantId> TenantTable::Find(std::string_view name) {
  if (name.empty()) return TenantId(0);
  if (!IsTenantName(name)) {
    return InvalidArgumentError(
        "header plexus-tenant: a tenant's name is 1 to 64 letters, digits, '.', '_' and '-'");
  }
  std::lock_guard lock(mutex_);
  ++lookups_;
  if (const auto it = ids_.find(name); it != ids_.end()) {
    last_used_[it->second.value()] = lookups_;
    return it->second;
  }
  TenantId id(static_cast<uint32_t>(names_.size()));
  if (names_.size() < max_tenants_) {
    names_.emplace_back(name);
    last_used_.push_back(lookups_);
  } else {
    const auto oldest = std::min_element(last_used_.begin() + 1, last_used_.end());
    id = TenantId(static_cast<uint32_t>(oldest - last_used_.begin()));
    ids_.erase(names_[id.value()]);
    names_[id.value()] = name;
    *oldest = lookups_;
  }
  ids_.emplace(name, id);
  return id;
}

std::string TenantTable::Name(TenantId id) const {
  std::lock_guard lock(mutex_);
  return id.value() < names_.size() ? names_[id.value()] : std::string();
}

}  // namespace plexus
