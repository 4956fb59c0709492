// FlightTable: equal work that several requests want at the same time is done once (singleflight).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "graph/tensor.h"
#include "sched/job.h"

namespace plexus {

// Equal for equal tensors, cheap however large they are: it looks at samples only. A hint.
uint64_t SampleHash(const std::vector<Tensor>& inputs);

// A request that waits for what another one computes.
class FlightRider {
 public:
  virtual ~FlightRider() = default;
  // Once, by the thread that landed the flight; not after a Leave that returned true. `work`: as
  // given to Land.
  virtual void OnLanded(const Result<std::vector<Tensor>>& outputs, Duration work) = 0;
};

// A request that computes what others wait for.
class FlightLeader {
 public:
  virtual ~FlightLeader() = default;
  // Somebody waits for `flight` (FlightTable::Ask::flight) who is more urgent; a hint, it may be
  // over. Any thread, no lock held.
  virtual void Raise(uint64_t flight, const Urgency& urgency) = 0;
  // Another tenant waits for it: what is still to be run is charged to both; otherwise as Raise.
  virtual void AddPayer(uint64_t flight, TenantId tenant) = 0;
};

// Thread-safe. Inputs are compared byte by byte, a hash alone never decides, and nobody gets what
// another tenant's request computed unless `across_tenants`: who learns that a result was already
// under way learns what others ask for.
class FlightTable {
 public:
  class Flight;
  using FlightPtr = std::shared_ptr<Flight>;

  struct Ask {
    uint64_t work = 0;  // what is computed: equal numbers compute the same of the same inputs
    TenantId tenant{0};
    uint64_t tenant_since = 0;  // RequestAttributes::tenant_since
    Urgency urgency;
    const std::vector<Tensor>* inputs = nullptr;
    // Should this one lead: who is told of more urgent riders, and its own number of the flight.
    std::weak_ptr<FlightLeader> leader;
    uint64_t flight = 0;
  };

  explicit FlightTable(bool across_tenants = false) : across_tenants_(across_tenants) {}

  // Boards the rider on a flight under way that does the same; its leader hears of it where the
  // rider is due sooner, of another priority or of another tenant. Else the caller leads a new
  // flight (`*leads`) and must land it.
  FlightPtr Join(const Ask& ask, FlightRider* rider, bool* leads);
  // Whether the rider was still aboard; it is not told any more.
  bool Leave(const FlightPtr& flight, FlightRider* rider);
  // Ends the flight and tells its riders. `work`: what it took, without waiting.
  void Land(const FlightPtr& flight, const Result<std::vector<Tensor>>& outputs,
            Duration work = Duration{0});

  struct Stats {
    uint64_t led = 0, joined = 0;
    uint64_t raised = 0;  // of those joined, by somebody more urgent
    size_t in_flight = 0;
  };
  Stats stats() const;

 private:
  const bool across_tenants_;
  mutable std::mutex mutex_;  // guards everything below, and every flight's riders
  std::unordered_multimap<uint64_t, FlightPtr> flights_;  // by work and SampleHash
  Stats stats_;
};

}  // namespace plexus
