#include "sched/fair_share.h"

#include <algorithm>

namespace plexus {
namespace {
constexpr uint32_t kRecentreAfter = 1u << 20;
}

Status FairShare::CheckWeight(double weight) {
  if (weight >= kMinWeight && weight <= kMaxWeight) return OkStatus();
  return InvalidArgumentError("a tenant's weight is a number from 0.001 to 1000000, got " +
                              std::to_string(weight));
}

void FairShare::Reserve(uint32_t tenants) {
  if (tenants <= size()) return;
  Tenant fresh;
  fresh.v = origin_;
  tenants_.resize(tenants, fresh);
  runnable_.Reserve(tenants);
  pending_.Reserve(tenants);
  waiting_.Reserve(tenants);
}

void FairShare::Move(Tenant& tenant, double v) {
  if (tenant.active) sum_ += tenant.weight * (v - tenant.v);
  tenant.v = v;
}

void FairShare::SetKey(uint32_t tenant) {
  const double key = KeyOf(tenant);
  if (runnable_.Contains(tenant)) {
    runnable_.Set(tenant, key, tenant);
  } else if (pending_.Contains(tenant)) {
    pending_.Set(tenant, key, tenant);
  }
  if (waiting_.Contains(tenant)) waiting_.Set(tenant, key, tenant);
}

void FairShare::SetWeight(uint32_t tenant, double weight) {
  Tenant& t = tenants_[tenant];
  if (t.active) {
    sum_ += (weight - t.weight) * t.v;
    weight_ += weight - t.weight;
  }
  t.weight = weight;
  t.inverse_weight = 1 / weight;
  SetKey(tenant);
}

void FairShare::Forget(uint32_t tenant) {
  SetWeight(tenant, 1);
  Tenant& t = tenants_[tenant];
  // Of an active one the mean of the others: then V does not move, nor does anybody's deficit
  // against it.
  const bool among_others = t.active && active_ > 1;
  Move(t, among_others ? (sum_ - t.weight * t.v) / (weight_ - t.weight) : now());
  SetKey(tenant);
}

void FairShare::SetThreshold(std::optional<Duration> threshold) {
  on_ = threshold.has_value() && *threshold < Duration::max();
  threshold_ns_ = on_ ? static_cast<double>(threshold->count()) : 0;
  for (uint32_t i = 0; i < size(); ++i) {
    runnable_.Remove(i);
    pending_.Remove(i);
    waiting_.Remove(i);
    tenants_[i].v = 0;
  }
  sum_ = rest_ = origin_ = 0;
  Recentre();
}

void FairShare::Recentre() {
  const double zero = now();
  charges_ = 0;
  origin_ -= zero;
  rest_ = sum_ = weight_ = 0;
  for (uint32_t i = 0; i < size(); ++i) {
    Tenant& t = tenants_[i];
    t.v -= zero;
    if (t.active) {
      sum_ += t.weight * t.v;
      weight_ += t.weight;
    }
    SetKey(i);
  }
}

void FairShare::Join(uint32_t tenant) {
  Tenant& t = tenants_[tenant];
  const double reach = this->reach() * t.inverse_weight;
  t.v = std::clamp(t.v, now() - reach, now() + reach);
  t.active = true;
  ++active_;
  sum_ += t.weight * t.v;
  weight_ += t.weight;
}

void FairShare::Leave(uint32_t tenant) {
  Tenant& t = tenants_[tenant];
  runnable_.Remove(tenant);
  pending_.Remove(tenant);
  waiting_.Remove(tenant);
  t.active = false;
  const double before = now();
  if (--active_ == 0) {
    rest_ = before;
    sum_ = weight_ = 0;
  } else {
    sum_ -= t.weight * t.v;
    weight_ -= t.weight;
  }
}

void FairShare::SetRunnable(uint32_t tenant, bool runnable) {
  const bool was = runnable_.Contains(tenant);
  if (!on_ || !tenants_[tenant].active) runnable = false;
  if (was == runnable) return;
  if (!runnable) {
    runnable_.Remove(tenant);
    if (on_ && tenants_[tenant].active) pending_.Set(tenant, 0, tenant);
  } else {
    // As in Join, against the others alone: V would move with it.
    Tenant& t = tenants_[tenant];
    if (active_ > 1) {
      const double others = (sum_ - t.weight * t.v) / (weight_ - t.weight);
      if (t.v < others - reach() * t.inverse_weight) Move(t, others - reach() * t.inverse_weight);
    }
    pending_.Remove(tenant);
    runnable_.Set(tenant, 0, tenant);
  }
  SetKey(tenant);
}

void FairShare::Charge(uint32_t tenant, double ns) {
  Tenant& t = tenants_[tenant];
  Move(t, t.v + ns * t.inverse_weight);
  SetKey(tenant);
  if (++charges_ == kRecentreAfter) Recentre();
}

void FairShare::SetWaiting(uint32_t tenant, bool waiting) {
  if (waiting && on_ && tenants_[tenant].active) {
    waiting_.Set(tenant, KeyOf(tenant), tenant);
  } else {
    waiting_.Remove(tenant);
  }
}

}  // namespace plexus
