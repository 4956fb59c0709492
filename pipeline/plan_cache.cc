#include "pipeline/plan_cache.h"

#include "base/hash.h"

namespace plexus {

PlanCache::PlanCache(size_t budget_bytes, uint32_t build_threads) : budget_bytes_(budget_bytes) {
  for (uint32_t i = 0; i < build_threads; ++i) threads_.emplace_back([this] { BuildThread(); });
}

PlanCache::~PlanCache() { Stop(); }

void PlanCache::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  std::vector<Waiter> orphans;
  {
    std::lock_guard lock(mutex_);
    for (auto& [key, entry] : entries_) {
      for (Waiter& waiter : entry.waiters) orphans.push_back(std::move(waiter));
    }
    entries_.clear();
    lru_.clear();
  }
  for (Waiter& waiter : orphans) waiter(UnavailableError("the runtime is stopping"));
}

GraphPlanPtr PlanCache::GetOrBuild(const PlannedGraphPtr& graph, const std::string& shape_key,
                                   Builder builder, Waiter waiter) {
  std::unique_lock lock(mutex_);
  auto [it, inserted] = entries_.try_emplace(Key{graph->id, shape_key});
  Entry& entry = it->second;
  entry.graph = graph;
  if (!inserted && entry.plan != nullptr) {
    ++stats_.hits;
    lru_.splice(lru_.begin(), lru_, entry.lru);
    return entry.plan;
  }
  ++stats_.misses;
  entry.waiters.push_back(std::move(waiter));
  if (!inserted) return nullptr;  // somebody builds it already
  work_.push_back(
      [this, key = it->first, build = std::move(builder)] { FinishBuild(key, build()); });
  const bool stopped = stopping_;
  lock.unlock();
  wake_.notify_one();
  if (stopped) FinishBuild(Key{graph->id, shape_key}, UnavailableError("the runtime is stopping"));
  return nullptr;
}

GraphPlanPtr PlanCache::Find(const PlannedGraph& graph, const std::string& shape_key) {
  std::lock_guard lock(mutex_);
  const auto it = entries_.find(Key{graph.id, shape_key});
  if (it == entries_.end() || it->second.plan == nullptr) return nullptr;
  lru_.splice(lru_.begin(), lru_, it->second.lru);
  return it->second.plan;
}

void PlanCache::FinishBuild(const Key& key, Result<GraphPlanPtr> built) {
  std::vector<Waiter> waiters;
  {
    std::lock_guard lock(mutex_);
    auto it = entries_.find(key);
    if (it == entries_.end()) return;
    waiters.swap(it->second.waiters);
    if (built.ok()) {
      it->second.plan = *built;
      lru_.push_front(key);
      it->second.lru = lru_.begin();
      ++stats_.plans;
      stats_.bytes += (*built)->bytes;
      EvictLocked();
    } else {
      entries_.erase(it);
    }
  }
  for (Waiter& waiter : waiters) waiter(built);
}

PlanCache::Entries::iterator PlanCache::EraseLocked(Entries::iterator it, GraphPlanPtr* plan) {
  stats_.bytes -= it->second.plan->bytes + it->second.charged;
  --stats_.plans;
  lru_.erase(it->second.lru);
  *plan = std::move(it->second.plan);
  return entries_.erase(it);
}

// The plan just used is never evicted, however large: its request needs it anyway.
void PlanCache::EvictLocked() {
  while (stats_.bytes > budget_bytes_ && lru_.size() > 1) {
    GraphPlanPtr evicted;
    EraseLocked(entries_.find(lru_.back()), &evicted);
    ++stats_.evictions;
  }
}

void PlanCache::Post(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (!stopping_) {
      work_.push_back(std::move(work));
      work = nullptr;
    }
  }
  if (work) return work();  // stopping: finish on the caller so that no request hangs
  wake_.notify_one();
}

void PlanCache::PostIdle(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    idle_work_.push_back(std::move(work));
  }
  wake_.notify_one();
}

void PlanCache::Charge(const Program* program, size_t bytes) {
  std::lock_guard lock(mutex_);
  for (auto& [key, entry] : entries_) {
    if (entry.plan == nullptr || entry.plan->program.get() != program) continue;
    entry.charged += bytes;
    stats_.bytes += bytes;
    return EvictLocked();
  }
}

void PlanCache::Drop(uint64_t graph_id) {
  std::vector<GraphPlanPtr> dropped;  // destroyed without the lock
  std::lock_guard lock(mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const bool is_its = it->first.graph_id == graph_id && it->second.plan != nullptr;
    it = is_its ? EraseLocked(it, &dropped.emplace_back()) : std::next(it);
  }
}

void PlanCache::Sweep() {
  std::vector<GraphPlanPtr> dropped;  // destroyed without the lock
  std::lock_guard lock(mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    const bool is_gone = it->second.plan != nullptr && it->second.graph.expired();
    it = is_gone ? EraseLocked(it, &dropped.emplace_back()) : std::next(it);
  }
}

void PlanCache::BuildThread() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !work_.empty() || !idle_work_.empty(); });
    if (work_.empty() && stopping_) return;  // everything posted has run
    auto& queue = work_.empty() ? idle_work_ : work_;
    std::function<void()> work = std::move(queue.front());
    queue.pop_front();
    lock.unlock();
    work();
    work = nullptr;  // destroys captures outside the lock
    lock.lock();
  }
}

PlanCache::Stats PlanCache::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace plexus
