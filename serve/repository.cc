#include "serve/repository.h"

#include <algorithm>
#include <set>

#include "base/log.h"
#include "serve/group.h"

namespace plexus {
namespace {

namespace fs = std::filesystem;

constexpr size_t kKeptGroups = 64;

}  // namespace

ModelRepository::ModelRepository(fs::path root, Runtime& runtime)
    : root_(std::move(root)), runtime_(runtime) {}

std::set<std::string> ModelRepository::WithDependentsLocked(std::set<std::string> names) const {
  for (size_t before = 0; before != names.size();) {
    before = names.size();
    for (const auto& [other, entry] : entries_) {
      if (entry.versions.empty()) continue;
      const auto& models = entry.versions.rbegin()->second->models;
      if (std::any_of(models.begin(), models.end(), [&](const auto& m) { return names.count(m); }))
        names.insert(other);
    }
  }
  return names;
}

std::set<std::string> ModelRepository::WithDependents(const std::string& name) const {
  std::lock_guard lock(mutex_);
  return WithDependentsLocked({name});
}

Status ModelRepository::CheckReadable() const {
  std::error_code error;
  const fs::directory_iterator it(root_, error);
  if (!error) return OkStatus();
  const std::string message = "model repository '" + root_.string() + "': " + error.message();
  if (error == std::errc::permission_denied) return PermissionDeniedError(message);
  return NotFoundError(message);
}

Status ModelRepository::LoadAll() {
  std::lock_guard loading(loading_mutex_);
  loading_ = Loading();
  PLEXUS_ASSIGN_OR_RETURN(loading_.found, Scan());
  std::vector<std::string> names, groups;  // these after what they are made of
  for (const auto& [name, what] : loading_.found) {
    (IsGroupFile(what) ? groups : names).push_back(name);
  }
  names.insert(names.end(), groups.begin(), groups.end());
  for (const std::string& name : names) {
    Result<Entry> entry = LoadEntry(name, loading_.found.at(name));
    std::lock_guard lock(mutex_);
    if (entry.ok()) {
      entries_[name] = std::move(*entry);
      PLEXUS_LOG(kInfo) << "loaded " << name;
    } else {
      entries_[name].failure = entry.status().message();
      PLEXUS_LOG(kError) << "not loaded: " << entry.status().ToString();
    }
  }
  loading_ = Loading();
  changed_();
  return OkStatus();
}

Status ModelRepository::Load(const std::string& name) {
  std::lock_guard loading(loading_mutex_);
  loading_ = Loading();
  PLEXUS_ASSIGN_OR_RETURN(loading_.found, Scan());
  if (loading_.found.count(name) == 0) {
    return NotFoundError("'" + name + "' is not in the model repository");
  }
  // The entry itself, then every loaded pipeline that is made of it, then the groups: all or none.
  std::vector<std::string> names = {name}, groups;
  for (const std::string& each : WithDependents(name)) {
    if (each == name || loading_.found.count(each) == 0) continue;
    const Result<ServablePtr> dependent = Find(each, "");
    const bool is_group = dependent.ok() && !(*dependent)->members.empty();
    (is_group ? groups : names).push_back(each);
  }
  names.insert(names.end(), groups.begin(), groups.end());
  Status status;
  for (const std::string& each : names) {
    Result<Entry> entry = LoadEntry(each, loading_.found.at(each));
    status = entry.status();
    if (!status.ok()) break;
    loading_.fresh[each] = std::move(*entry);
  }
  Entries fresh = std::move(loading_.fresh);
  loading_ = Loading();
  std::list<ServablePtr> stale;
  {
    std::lock_guard lock(mutex_);
    if (!status.ok()) {
      entries_[name].failure = status.message();
      return status;
    }
    // What was there is destroyed after the lock is released.
    for (auto& [fresh_name, entry] : fresh) std::swap(entries_[fresh_name], entry);
    stale = TakeStaleGroupsLocked();
  }
  changed_();
  return OkStatus();
}

Status ModelRepository::Unload(const std::string& name, bool unload_dependents) {
  std::lock_guard loading(loading_mutex_);
  // Destroyed after the lock is released: the last reference may free much memory.
  std::vector<Entry> dropped;
  std::list<ServablePtr> stale;
  std::unique_lock lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end() || it->second.versions.empty()) {
    return NotFoundError("'" + name + "' is not loaded");
  }
  std::set<std::string> names = {name};
  if (unload_dependents) names = WithDependentsLocked(std::move(names));
  for (const std::string& each : names) {
    dropped.push_back(std::move(entries_[each]));
    entries_[each] = Entry{{}, "unloaded"};
  }
  stale = TakeStaleGroupsLocked();
  lock.unlock();
  changed_();
  return OkStatus();
}

Result<ServablePtr> ModelRepository::Find(const std::string& name,
                                          const std::string& version) const {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return NotFoundError("unknown model '" + name + "'");
  const Entry& entry = it->second;
  if (entry.versions.empty()) {
    return UnavailableError("model '" + name + "' is not ready: " + entry.failure);
  }
  if (version.empty()) return entry.versions.rbegin()->second;
  const auto found = entry.versions.find(VersionNumber(version));
  if (found == entry.versions.end()) {
    return NotFoundError("model '" + name + "' has no version '" + version + "'");
  }
  return found->second;
}

bool ModelRepository::IsCurrentLocked(const Servable& group) const {
  return std::all_of(group.members.begin(), group.members.end(), [this](const auto& member) {
    const auto entry = entries_.find(member->name);
    return entry != entries_.end() && !entry->second.versions.empty() &&
           entry->second.versions.rbegin()->second == member;
  });
}

std::list<ServablePtr> ModelRepository::TakeStaleGroupsLocked() {
  std::list<ServablePtr> stale;
  for (auto it = groups_.begin(); it != groups_.end();) {
    const auto next = std::next(it);
    if (!IsCurrentLocked(**it)) stale.splice(stale.end(), groups_, it);
    it = next;
  }
  return stale;
}

ServablePtr ModelRepository::FindKeptGroup(const std::vector<std::string>& names) {
  std::lock_guard lock(mutex_);
  for (auto it = groups_.begin(); it != groups_.end(); ++it) {
    if ((*it)->models != names) continue;
    groups_.splice(groups_.begin(), groups_, it);
    return groups_.front();
  }
  return nullptr;
}

Result<ServablePtr> ModelRepository::FindGroup(const std::vector<std::string>& names) {
  if (ServablePtr kept = FindKeptGroup(names)) return kept;
  std::vector<ServablePtr> members;
  std::string joined;
  for (const std::string& name : names) {
    PLEXUS_ASSIGN_OR_RETURN(ServablePtr member, Find(name, ""));
    joined += (joined.empty() ? "" : ",") + name;
    members.push_back(std::move(member));
  }
  PLEXUS_ASSIGN_OR_RETURN(ServablePtr group, MakeGroup(runtime_, joined, members));
  std::lock_guard lock(mutex_);
  if (!IsCurrentLocked(*group)) return group;  // for this request only
  groups_.push_front(group);
  if (groups_.size() > kKeptGroups) groups_.pop_back();
  return group;
}

std::vector<ServablePtr> ModelRepository::Loaded() const {
  std::vector<ServablePtr> out;
  std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    for (const auto& [version, servable] : entry.versions) out.push_back(servable);
  }
  return out;
}

std::vector<ServablePtr> ModelRepository::Versions(const std::string& name) const {
  std::vector<ServablePtr> out;
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return out;
  for (const auto& [version, servable] : it->second.versions) out.push_back(servable);
  return out;
}

std::vector<IndexEntry> ModelRepository::Index() const {
  std::vector<IndexEntry> out;
  const auto found = Scan();
  std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    for (const auto& [version, servable] : entry.versions) {
      out.push_back({name, std::to_string(version), true, entry.failure});
    }
    if (entry.versions.empty()) out.push_back({name, "", false, entry.failure});
  }
  if (!found.ok()) return out;
  for (const auto& [name, what] : *found) {
    if (entries_.count(name) == 0) out.push_back({name, "", false, "not loaded"});
  }
  return out;
}

}  // namespace plexus
