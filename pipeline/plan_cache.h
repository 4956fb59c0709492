// Plans by (graph, shape class): bounded in bytes, equal misses coalesce, builds run on own
// threads.
#pragma once

#include <condition_variable>
#include <coroutine>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "pipeline/plan.h"

namespace plexus {

// Thread-safe. Stop() (or destruction) fails what waits with kUnavailable.
class PlanCache {
 public:
  PlanCache(size_t budget_bytes, uint32_t build_threads);
  ~PlanCache();

  using Builder = std::function<Result<GraphPlanPtr>()>;
  using Waiter = std::function<void(Result<GraphPlanPtr>)>;
  // The plan if it is there, else null, and then `waiter` is called once, from a build thread, when
  // the one build for this key has ended. Failures are not kept.
  GraphPlanPtr GetOrBuild(const PlannedGraphPtr& graph, const std::string& shape_key,
                          Builder builder, Waiter waiter);

  // The plan if it is there, else null.
  GraphPlanPtr Find(const PlannedGraph& graph, const std::string& shape_key);

  // Runs `work` on a build thread: host steps too long for a device's worker.
  void Post(std::function<void()> work);

  // Runs `work` when a build thread has nothing else to do; not at all once it is stopping.
  void PostIdle(std::function<void()> work);
  // Counts `bytes` more for a plan that is kept here; nothing for another.
  void Charge(const Program* program, size_t bytes);

  // Forgets the plans of a graph that is going away; requests in flight keep theirs.
  void Drop(uint64_t graph_id);
  // Forgets the plans of all graphs that are gone: those of bodies and rests go with the last plan
  // that leads to them, and nobody says so. A pass over all plans, from time to time.
  void Sweep();
  void Stop();

  struct Stats {
    size_t plans = 0, bytes = 0;
    uint64_t hits = 0, misses = 0, evictions = 0;
  };
  Stats stats() const;

 private:
  struct Key {
    uint64_t graph_id;
    std::string shapes;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      return HashCombine(k.graph_id, std::hash<std::string>()(k.shapes));
    }
  };
  struct Entry {
    GraphPlanPtr plan;  // null while building
    std::weak_ptr<const PlannedGraph> graph;
    std::vector<Waiter> waiters;
    std::list<Key>::iterator lru;  // valid when plan is set
    size_t charged = 0;            // besides the plan's own bytes
  };

  void BuildThread();
  void FinishBuild(const Key& key, Result<GraphPlanPtr> built);
  void EvictLocked();
  using Entries = std::unordered_map<Key, Entry, KeyHash>;
  // Returns what comes after. `plan` gets the plan: what else goes with it needs no lock.
  Entries::iterator EraseLocked(Entries::iterator it, GraphPlanPtr* plan);

  const size_t budget_bytes_;
  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable wake_;
  bool stopping_ = false;
  std::deque<std::function<void()>> work_, idle_work_;
  Entries entries_;
  std::list<Key> lru_;  // most recent first
  Stats stats_;
  std::vector<std::thread> threads_;
};

}  // namespace plexus
