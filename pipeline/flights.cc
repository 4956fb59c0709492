#include "pipeline/flights.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"

namespace plexus {
namespace {

constexpr size_t kWholeBytes = 1024;  // up to here all of a tensor is hashed
constexpr size_t kSamples = 32, kSampleBytes = 16;
// Flights of one hash that are compared: more are not the same, or somebody wants them to look so.
constexpr size_t kMaxCompared = 4;

bool Equal(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Tensor& x, const Tensor& y) {
    return x.buffer() != nullptr && x.buffer() == y.buffer() && x.raw() == y.raw() &&
                   x.dtype() == y.dtype() && x.shape() == y.shape()
               ? true
               : TensorsEqual(x, y);
  });
}

}  // namespace

uint64_t SampleHash(const std::vector<Tensor>& inputs) {
  uint64_t hash = inputs.size();
  const auto add = [&hash](const void* data, size_t size) { hash = FastHash(data, size, hash); };
  for (const Tensor& t : inputs) {
    hash = HashCombine(hash, static_cast<uint64_t>(t.dtype()));
    if (!t.defined()) continue;
    add(t.shape().data(), t.shape().size() * sizeof(int64_t));
    if (t.dtype() == DType::kString) {
      const std::vector<std::string>& texts = t.strings();
      for (size_t i = 0; i < std::min(texts.size(), kSamples); ++i) {
        add(texts[i].data(), std::min(texts[i].size(), kWholeBytes));
        hash = HashCombine(hash, texts[i].size());
      }
    } else if (const size_t size = t.size_bytes(); size <= kWholeBytes) {
      add(t.raw(), size);
    } else {
      for (size_t i = 0; i < kSamples; ++i) {
        add(t.raw() + (size - kSampleBytes) * i / (kSamples - 1), kSampleBytes);
      }
    }
  }
  return hash;
}

class FlightTable::Flight {
 public:
  Flight(uint64_t key, const Ask& ask)
      : key(key),
        work(ask.work),
        tenant(ask.tenant),
        tenant_since(ask.tenant_since),
        priority(ask.urgency.priority),
        deadline(ask.urgency.deadline),
        leader(ask.leader),
        number(ask.flight),
        inputs(*ask.inputs) {}

  // Whether somebody who asks so may wait for it.
  bool Takes(const Ask& ask, bool across_tenants) const {
    const bool same_tenant = tenant == ask.tenant && tenant_since == ask.tenant_since;
    return work == ask.work && (across_tenants || same_tenant);
  }

  const uint64_t key, work;
  const TenantId tenant;
  const uint64_t tenant_since;
  // Whether the leader should know of somebody who waits so. Of another priority: which one goes
  // first, only the policy can tell.
  bool IsBelow(const Urgency& urgency) const {
    const bool sooner = urgency.deadline && (!deadline || *urgency.deadline < *deadline);
    return sooner || urgency.priority != priority;
  }

  const uint32_t priority;
  std::optional<TimePoint> deadline;  // the soonest
  const std::weak_ptr<FlightLeader> leader;
  const uint64_t number;
  const std::vector<Tensor> inputs;  // share their storage with the request's
  bool landed = false;
  std::vector<FlightRider*> riders;
};

FlightTable::FlightPtr FlightTable::Join(const Ask& ask, FlightRider* rider, bool* leads) {
  const uint64_t key = HashCombine(ask.work, SampleHash(*ask.inputs));
  std::vector<FlightPtr> alike;
  std::unique_lock lock(mutex_);
  const auto [begin, end] = flights_.equal_range(key);
  for (auto it = begin; it != end && alike.size() < kMaxCompared; ++it) {
    if (it->second->Takes(ask, across_tenants_)) alike.push_back(it->second);
  }
  *leads = false;
  if (!alike.empty()) {
    lock.unlock();  // comparing may take long
    std::erase_if(alike, [&](const FlightPtr& each) { return !Equal(each->inputs, *ask.inputs); });
    lock.lock();
    for (const FlightPtr& flight : alike) {
      if (flight->landed) continue;
      flight->riders.push_back(rider);
      ++stats_.joined;
      const bool raised = flight->IsBelow(ask.urgency);
      if (raised) ++stats_.raised;
      if (raised && ask.urgency.deadline) {
        flight->deadline =
            std::min(flight->deadline.value_or(TimePoint::max()), *ask.urgency.deadline);
      }
      const bool pays = ask.tenant != flight->tenant;
      lock.unlock();
      const std::shared_ptr<FlightLeader> leader = raised || pays ? flight->leader.lock() : nullptr;
      if (raised && leader != nullptr) leader->Raise(flight->number, ask.urgency);
      if (pays && leader != nullptr) leader->AddPayer(flight->number, ask.tenant);
      return flight;
    }
  }
  *leads = true;
  ++stats_.led;
  return flights_.emplace(key, std::make_shared<Flight>(key, ask))->second;
}

bool FlightTable::Leave(const FlightPtr& flight, FlightRider* rider) {
  std::lock_guard lock(mutex_);
  return std::erase(flight->riders, rider) > 0;
}

void FlightTable::Land(const FlightPtr& flight, const Result<std::vector<Tensor>>& outputs,
                       Duration work) {
  std::vector<FlightRider*> riders;
  {
    std::lock_guard lock(mutex_);
    flight->landed = true;
    riders.swap(flight->riders);
    const auto [begin, end] = flights_.equal_range(flight->key);
    const auto it = std::find_if(begin, end, [&](const auto& e) { return e.second == flight; });
    if (it != end) flights_.erase(it);
  }
  for (FlightRider* rider : riders) rider->OnLanded(outputs, work);
}

FlightTable::Stats FlightTable::stats() const {
  std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.in_flight = flights_.size();
  return stats;
}

}  // namespace plexus
