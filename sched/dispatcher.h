// Dispatcher: decides what runs next on one device, and where.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "base/trace.h"
#include "device/device.h"
#include "profile/profile_store.h"
#include "sched/job.h"
#include "sched/policy.h"

namespace plexus {

struct DispatcherOptions {
  Duration quantum = std::chrono::microseconds(200);  // longest slice while others wait
  // Work handed to a unit beyond what runs, in time (Paella's B): enough to hide what lies between
  // an event and the next launch, a microsecond at most on a CPU.
  Duration in_flight_bound = std::chrono::microseconds(20);
  // The same for a hardware-placed device as a whole, where more must wait: when a grid ends, most
  // of the device is free at once, and what does not wait there already comes one launch after the
  // other. At least twice what is measured between an event and a launch's start
  // (DispatcherStats::launch_gap), and one block's time.
  Duration hardware_bound = std::chrono::microseconds(120);
  // The hardware may let later launches pass one whose blocks find no room, again and again. One
  // that has waited there for so long holds back all others until it has started.
  Duration overtaken_bound = std::chrono::milliseconds(40);
  size_t max_jobs = 100'000;  // queued and running; more is kUnavailable
  // A launch not reported within this is taken for lost: its job ends kUnavailable at the next Pump
  // (the memory that the launch may still write stays put until it reports or the dispatcher goes).
  Duration hang_bound = std::chrono::seconds(60);
  // Launches that a hardware-placed device may hold at once.
  uint32_t max_launches = 1024;
  // Device time that a tenant which does not use its share keeps for later, and that one which had
  // more than its share owes at most; under a fair policy (fair_share.h).
  Duration fair_burst = std::chrono::milliseconds(100);
  uint32_t max_tenants = 65'536;  // ids from 0; beyond is kInvalidArgument
  // A job ends kDeadlineExceeded as soon as it cannot meet its deadline any more, going by times
  // that were measured; what has never run is dropped when the deadline has passed. Meant for edf,
  // holds for every policy.
  bool drop_late = false;
};

// A place in line counts as a job only if it ends as one.
struct DispatcherStats {
  uint64_t jobs_submitted = 0, jobs_done = 0, jobs_failed = 0, jobs_cancelled = 0;
  uint64_t jobs_withdrawn = 0;
  uint64_t launches = 0, blocks = 0, decisions = 0, preemptions = 0;
  uint64_t jobs_waiting_for_arena = 0;
  // Events of unknown or finished launches, repeated ones, and blocks beyond a launch's own.
  uint64_t events_ignored = 0;
  uint64_t launches_lost = 0;  // never reported: found by a later event or by hang_bound
  Duration busy{0};            // device time of finished blocks
  // From the event behind a launch to the launch's first block, both on the device: the device's
  // launch latency, or what was measured where it reports starts (the way of the report as well).
  Duration launch_gap{0};
  size_t ready = 0;    // jobs that could launch now
  size_t running = 0;  // jobs with a launch in flight
  // What the mirror holds: launches, or blocks where the hardware places them; 0 when every job has
  // ended. And of those blocks the ones that wait in the hardware's queues.
  size_t in_flight = 0;
  size_t waiting_blocks = 0;
};

// Device time is that of a whole unit: a block that leaves room for others beside it counts for the
// part of the unit that it takes.
struct TenantStats {
  Duration time{0};     // device time of finished blocks
  Duration deficit{0};  // of its share against the others; negative: it had more
  double weight = 1;
  size_t jobs = 0;  // queued and running
};

// A passive state machine: no thread, no wait, no clock of its own. Submit, Cancel and Pump take a
// lock; OnEvent (from the device) tries it and, if another thread is inside, leaves the event in a
// queue that this thread drains before it leaves. Thread-safe. Neither a decision nor an event
// allocates: jobs and launches come from pools.
class Dispatcher : public DeviceEventSink {
 public:
  // Borrows all but the policy; `trace` and `profiles` may be null. Calls device.SetSink(this).
  Dispatcher(Device& device, std::unique_ptr<Policy> policy, const Clock& clock,
             ProfileStore* profiles, TraceRecorder* trace, DispatcherOptions options = {});
  ~Dispatcher() override;  // requires: no job in flight

  // Takes the spec's buffers; they come back through the listener, on failure to submit they are
  // dropped. May launch at once, from this thread.
  Result<JobId> Submit(JobSpec spec);
  // The job stops at its next boundary; its listener hears `why` (kCancelled if that is OK), or how
  // the job ended if it was faster. Unknown ids are ignored.
  void Cancel(JobId job, Status why);
  // Takes back a job that has launched nothing yet: its listener hears nothing, its buffers are
  // returned. nullopt: it has begun, has ended, or never was.
  std::optional<JobBuffers> Withdraw(JobId job);
  // Submits the job instead of these places, which are withdrawn in the same step, in any case. It
  // stands where the first of them stood among those that the policy puts level.
  Result<JobId> Replace(std::span<const JobId> places, JobSpec spec);
  // Ends the jobs that this tenant alone pays for (their listeners hear `why`; kCancelled if that
  // is OK); those that others pay for as well go on. Its weight is 1 and its device time and
  // deficit 0 from now on. Returns how many jobs it ended; 0 for an unknown tenant.
  size_t RemoveTenant(TenantId tenant, Status why);
  // Orders the job by this deadline or priority instead of its own, wherever the policy then puts
  // it first. What it is charged to and when it is dropped for being late stay its own. Unknown ids
  // are ignored.
  void Raise(JobId job, const Urgency& urgency);
  // From now on the tenant pays for the job, too: one row's part beside its payers, or half where
  // it has none. What was launched before has been charged. Unknown ids are ignored, and so is who
  // pays already.
  void AddPayer(JobId job, TenantId tenant);
  // Fires timeouts due at `now` and launches what fits. Returns when it wants to be called next
  // (the earliest timeout), or TimePoint::max().
  TimePoint Pump(TimePoint now);
  void OnEvent(const DeviceEvent& event) override;

  // Switches the order of all waiting jobs, at run time.
  void SetPolicy(std::unique_ptr<Policy> policy);
  std::string policy_name() const;
  // For fair policies; 1 unless set. Under way as well. kInvalidArgument for a weight out of
  // [0.001, 1000000] and an id beyond max_tenants.
  Status SetTenantWeight(TenantId tenant, double weight);
  TenantStats tenant_stats(TenantId tenant) const;  // of an unknown one: nothing
  DispatcherStats stats() const;
  // The trace recorder's number of this device; 0 without a recorder.
  uint16_t trace_device() const;
  // Expected time of a program with `rows`, as keys count it: on one unit of a device with
  // addressed units, alone on one that places blocks itself. Learned where it ran, else estimated.
  Duration ExpectedTime(const Program& program, uint32_t rows) const;

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace plexus
