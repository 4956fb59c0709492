#include "pipeline/share_history.h"

#include <algorithm>

namespace plexus {
namespace {

// What the cuts of a path cost, of a whole run: as long as it is not measured, at least, and at
// most: more is a measurement on a busy machine, and who does not go by a path measures no other.
constexpr double kGuessedCost = 0.02, kLeastCost = 0.002, kMostCost = 0.25;

// Of so many requests that would go by path for a batch one goes in a piece, to measure that: not
// the first one, when nothing is measured yet.
constexpr uint32_t kWholeEvery = 64, kWholeFirst = 8;

}  // namespace

uint64_t Companions::Enter(uint64_t look) {
  std::lock_guard lock(mutex_);
  Gathering& gathering = gatherings_[look];
  ++gathering.here;
  return gathering.came++;
}

void Companions::Leave(uint64_t look) {
  std::lock_guard lock(mutex_);
  const auto it = gatherings_.find(look);
  if (--it->second.here == 0) gatherings_.erase(it);
}

uint64_t Companions::Came(uint64_t look) const {
  std::lock_guard lock(mutex_);
  return gatherings_.at(look).came;
}

void ShareHistory::Met(bool company) {
  const float old = company_.load(std::memory_order_relaxed);
  company_.store(old + ((company ? 1.0f : 0.0f) - old) / 8, std::memory_order_relaxed);
}

void ShareHistory::TookWhole(Duration took) {
  const int64_t old = whole_ns_.load(std::memory_order_relaxed), now = took.count();
  whole_ns_.store(old == 0 ? now : old + (now - old) / 8, std::memory_order_relaxed);
}

// Of a whole run.
double ShareHistory::CutCost(const RunPath& path) const {
  const auto whole = static_cast<double>(whole_ns_.load(std::memory_order_relaxed));
  const auto cut = static_cast<double>(path.Total().count());
  if (whole <= 0 || cut <= 0) return kGuessedCost;
  return std::clamp((cut - whole) / whole, kLeastCost, kMostCost);
}

bool ShareHistory::WorthAPath(const RunPath& path) const {
  return company_.load(std::memory_order_relaxed) * path.SharedPart() > CutCost(path);
}

bool ShareHistory::WorthABatch(const RunPath& path) const {
  if (path.BatchedPart() <= CutCost(path)) return false;
  return batches_.fetch_add(1, std::memory_order_relaxed) % kWholeEvery != kWholeFirst;
}

}  // namespace plexus
