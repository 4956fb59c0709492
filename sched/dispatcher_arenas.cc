// Who gets the memory of an arena, and who waits for it.
#include <utility>

#include "sched/dispatcher_core.h"

namespace plexus {

void Dispatcher::Core::Wait(JobRecord& job) {
  Unqueue(job);
  job.may_take_arena = false;
  const PolicyKey key = policy_->Key(job.view, now_);
  waiters_.Set(job.slot, key, job.view.sequence);
  Tenant& tenant = tenants_[job.view.tenant.value()];
  ++tenant.waiting;
  if (!shares_.on()) return;
  tenant.waiters.Set(job.slot, key, job.view.sequence);
  shares_.SetWaiting(job.view.tenant.value(), true);
}

void Dispatcher::Core::StopWaiting(JobRecord& job) {
  if (!waiters_.Contains(job.slot)) return;
  waiters_.Remove(job.slot);
  Tenant& tenant = tenants_[job.view.tenant.value()];
  --tenant.waiting;
  if (!shares_.on()) return;
  tenant.waiters.Remove(job.slot);
  if (tenant.waiters.empty()) shares_.SetWaiting(job.view.tenant.value(), false);
}

// Of those that wait for an arena: the first of the tenant that lacks its share for longest, else
// the first in the policy's order. Requires that one waits.
JobRecord& Dispatcher::Core::FirstWaiter() {
  const uint32_t starved = shares_.StarvedWaiting();
  return jobs_.at(starved != FairShare::kNone ? tenants_[starved].waiters.top() : waiters_.top());
}

// Whether the job goes before all that wait for an arena.
bool Dispatcher::Core::GoesBeforeWaiters(const JobRecord& job) {
  if (waiters_.empty()) return true;
  const uint32_t own = job.view.tenant.value();
  const uint32_t starved = shares_.StarvedWaiting();
  if (starved == FairShare::kNone && shares_.IsStarved(own)) return true;
  if (starved != FairShare::kNone && starved != own) return shares_.LacksLonger(own, starved);
  const IndexedHeap& waiters = starved != FairShare::kNone ? tenants_[own].waiters : waiters_;
  return waiters.GoesBeforeTop(policy_->Key(job.view, now_), job.view.sequence);
}

// The arena that the job needs; false when it waits for it, or has ended without.
bool Dispatcher::Core::TakeArena(JobRecord& job) {
  const Program& program = *job.context.program;
  // Who waits for memory and goes before this one gets it first.
  if (!job.may_take_arena && !GoesBeforeWaiters(job)) {
    WakeWaiter();
    Wait(job);
    return false;
  }
  Result<std::unique_ptr<Arena>> arena = device_.AllocateArena(program.arena_bytes);
  if (!arena.ok()) {
    if (arena.status().code() == StatusCode::kResourceExhausted && arenas_held_ > 0) {
      Wait(job);
    } else {
      End(job, arena.status().WithContext("program " + program.name));
    }
    return false;
  }
  job.context.arena = std::move(arena).value();
  job.holds_arena = true;
  ++arenas_held_;
  return true;
}

void Dispatcher::Core::WakeWaiter() {
  if (waiters_.empty()) return;
  JobRecord& job = FirstWaiter();
  StopWaiting(job);
  // Not asked again: shares move a little whenever a tenant gets or loses something to launch.
  job.may_take_arena = true;
  Requeue(job);
}

}  // namespace plexus
