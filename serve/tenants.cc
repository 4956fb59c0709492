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
  if (const auto it = ids_.find(name); it != ids_.end()) return it->second;
  if (names_.size() >= max_tenants_) {
    return UnavailableError("header plexus-tenant: the server knows " +
                            std::to_string(max_tenants_) + " tenants already");
  }
  const TenantId id(static_cast<uint32_t>(names_.size()));
  names_.emplace_back(name);
  ids_.emplace(name, id);
  return id;
}

std::string TenantTable::Name(TenantId id) const {
  std::lock_guard lock(mutex_);
  return id.value() < names_.size() ? names_[id.value()] : std::string();
}

}  // namespace plexus
