// FairShare: how much device time each tenant has had against what its weight entitles it to.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "sched/indexed_heap.h"

namespace plexus {

// Every tenant has a virtual time v: the device time it was charged, divided by its weight. The
// system's virtual time V is the mean of the active tenants' v, weighted; so a tenant whose v is
// behind V has had less than its share of what the active ones got together. Its deficit is
// (V - v) x weight, in device time; the active tenants' deficits add up to zero.
//
// A tenant changes its v only when it is charged. So a heap ordered by the V at which a tenant will
// have too little (v + threshold / weight) stays valid while V moves, and the most starved tenant
// is its top.
//
// A tenant without work is inactive: its v stands still while V runs on, so what it does not use it
// may use later. This is bounded: whoever comes back, or could not launch for a while, has a
// deficit of at most `burst` plus the threshold, and owes at most as much.
//
// Thread-compatible. Only Reserve allocates; everything else is O(log tenants) but for SetThreshold
// and, once in a million charges, a pass over all tenants that keeps the numbers small and exact.
class FairShare {
 public:
  static constexpr uint32_t kNone = ~0u;
  static constexpr double kMinWeight = 1e-3, kMaxWeight = 1e6;

  explicit FairShare(Duration burst) : burst_ns_(static_cast<double>(burst.count())) {}

  // Room for tenants 0 .. tenants-1; new ones have weight 1 and are as if they had been idle since
  // the threshold was set.
  void Reserve(uint32_t tenants);
  uint32_t size() const { return static_cast<uint32_t>(tenants_.size()); }

  // kInvalidArgument unless the weight is between the two bounds (so not NaN, 0 or negative).
  static Status CheckWeight(double weight);
  // Requires a checked weight. What the tenant was charged so far counts at its old weight.
  void SetWeight(uint32_t tenant, double weight);
  double weight(uint32_t tenant) const { return tenants_[tenant].weight; }
  // As if it were new: weight 1, a deficit of 0.
  void Forget(uint32_t tenant);

  // From which deficit on a tenant goes first; nullopt or Duration::max(): never. Everybody starts
  // anew with a deficit of 0, and nobody is runnable.
  void SetThreshold(std::optional<Duration> threshold);
  // Whether a tenant can ever go first.
  bool on() const { return on_; }

  // The tenant has work from now on, or none any more. Not twice in a row.
  void Join(uint32_t tenant);
  void Leave(uint32_t tenant);
  // Whether an active tenant has something that could be launched now.
  void SetRunnable(uint32_t tenant, bool runnable);
  // Whether an active tenant has something that waits for memory.
  void SetWaiting(uint32_t tenant, bool waiting);
  // Device time spent on the tenant's behalf; negative to give back what was charged too much.
  void Charge(uint32_t tenant, double ns);

  // Of the runnable tenants that lack more than the threshold the one that has lacked it longest;
  // kNone when there is none.
  uint32_t Starved() const { return StarvedOf(runnable_); }
  // The same of the tenants that wait for memory.
  uint32_t StarvedWaiting() const { return StarvedOf(waiting_); }
  // Whether a tenant lacks more than the threshold, and has lacked it longer than another.
  bool IsStarved(uint32_t tenant) const { return on_ && KeyOf(tenant) * weight_ < sum_; }
  bool LacksLonger(uint32_t tenant, uint32_t than) const {
    const double key = KeyOf(tenant), other = KeyOf(than);
    return key < other || (key == other && tenant < than);
  }
  // Whether an active tenant that lacks more than the threshold has nothing to launch right now:
  // it is about to have, and should not find the device full of others' work.
  bool StarvedSoon() const { return !pending_.empty() && pending_.top_key() * weight_ < sum_; }
  double deficit_ns(uint32_t tenant) const {
    const Tenant& t = tenants_[tenant];
    return (now() - t.v) * t.weight;
  }

 private:
  struct Tenant {
    double v = 0;
    double weight = 1, inverse_weight = 1;
    bool active = false;
  };
  // V, or where it stood when the last tenant left.
  double now() const { return weight_ > 0 ? sum_ / weight_ : rest_; }
  double reach() const { return burst_ns_ + (on_ ? threshold_ns_ : 0); }
  void Move(Tenant& tenant, double v);
  void SetKey(uint32_t tenant);
  // The V at which the tenant begins to have too little.
  double KeyOf(uint32_t tenant) const {
    return tenants_[tenant].v + threshold_ns_ * tenants_[tenant].inverse_weight;
  }
  uint32_t StarvedOf(const IndexedHeap& heap) const {
    return heap.empty() || heap.top_key() * weight_ >= sum_ ? kNone : heap.top();
  }
  void Recentre();

  const double burst_ns_;
  bool on_ = false;
  double threshold_ns_ = 0;
  std::vector<Tenant> tenants_;
  // By KeyOf, while on: active tenants that could launch, and the others. And whoever has work that
  // waits for memory, beside what else it has.
  IndexedHeap runnable_, pending_, waiting_;
  double sum_ = 0;     // of weight x v over active tenants
  double weight_ = 0;  // of all active tenants; exactly 0 when there is none
  uint32_t active_ = 0;
  double rest_ = 0;
  double origin_ = 0;  // V when the threshold was set
  uint32_t charges_ = 0;
};

}  // namespace plexus
