// The dispatcher's state. dispatcher.cc holds the way in and out (locking, delivery),
// dispatcher_core.cc what happens to jobs, dispatcher_arenas.cc who gets memory,
// dispatcher_schedule.cc what runs next, and where, dispatcher_trace.cc what of it is recorded.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sched/dispatcher.h"
#include "sched/event_queue.h"
#include "sched/fair_share.h"
#include "sched/indexed_heap.h"
#include "sched/job_table.h"
#include "sched/occupancy.h"
#include "sched/report_window.h"

namespace plexus {

// Everything below lock_ is guarded by it, unless it says otherwise.
//
// A live job is in exactly one of these places: waiters_ (no memory for its arena), ready_ (could
// launch, has nothing in flight), wider_ (could launch more than it has in flight), or none (all it
// could launch is in flight, its holder has been told that its turn has come, or it is dying).
class Dispatcher::Core {
 public:
  Core(Device& device, std::unique_ptr<Policy> policy, const Clock& clock, ProfileStore* profiles,
       TraceRecorder* trace, DispatcherOptions options);
  ~Core();

  // The way in and out; these take the lock and give it back.
  Result<JobId> Submit(JobSpec spec);
  void Cancel(JobId id, Status why);
  Result<JobId> Replace(std::span<const JobId> places, JobSpec spec);
  std::optional<JobBuffers> Withdraw(JobId id);
  size_t RemoveTenant(TenantId tenant, const Status& why);
  void Raise(JobId id, const Urgency& urgency);
  void AddPayer(JobId id, TenantId tenant);
  TimePoint Pump(TimePoint now);
  void OnEvent(const DeviceEvent& event);
  void SetPolicy(std::unique_ptr<Policy> policy);
  std::string policy_name();
  Status SetTenantWeight(TenantId tenant, double weight);
  TenantStats tenant_stats(TenantId tenant);
  DispatcherStats stats();
  uint16_t trace_device() const { return trace_device_; }
  Duration ExpectedTime(const Program& program, uint32_t rows);

 private:
  static constexpr uint32_t kNone = ~0u;
  static constexpr uint32_t kWholeDevice = 0;  // in blocked_, where the hardware places blocks

  struct LaunchRecord {
    uint32_t generation = 0;
    uint32_t job = kNone;  // kNone: free
    uint32_t kernel = 0;
    uint32_t first_block = 0;
    uint32_t blocks = 0;
    uint32_t done = 0;
    ReportWindow starts, ends;  // the reports that have come
    double block_ns = 0;        // what the tenant was charged per block
    UnitId unit;
    TimePoint at{};
    bool lost = false;
    bool started = false;  // or it had to wait: its start says nothing about the way to the device
    // The decision, for traces; kept only while one is taken.
    double key = 0;
    Duration remaining{0};
    uint32_t ready = 0;  // 0: not kept
  };

  // The jobs of one tenant that could launch or wait for an arena; only while the policy is fair.
  struct Tenant {
    Tenant(HeapPositions& in_ready, HeapPositions& in_wider, HeapPositions& in_waiters)
        : ready(in_ready), wider(in_wider), waiters(in_waiters) {}
    IndexedHeap ready, wider, waiters;
    void ReserveEntries(uint32_t jobs) {
      for (IndexedHeap* heap : {&ready, &wider, &waiters}) heap->ReserveEntries(jobs);
    }
    uint32_t jobs = 0;     // not ended
    uint32_t waiting = 0;  // of them, for an arena
    double served_ns = 0;
  };

  // dispatcher.cc
  void Enter();
  void Leave();
  void LeaveUnchanged();
  void DeliverEnded();
  void TellTurns();
  void Drain();
  JobRecord& Admit(JobSpec spec, ProgramProfilePtr profile, std::span<const JobId> places);
  // What of a withdrawn job is to be let go outside the lock, as it may be the last that holds it.
  struct Withdrawn {
    JobBuffers buffers;
    ProgramPtr program;
    std::shared_ptr<PlaceHolder> place;
  };
  Withdrawn TakeBack(JobRecord& job);

  // dispatcher_core.cc
  Status CheckSpec(const JobSpec& spec) const;
  void Handle(const DeviceEvent& event);
  bool IsNew(LaunchRecord& launch, const DeviceEvent& event);
  void LearnGap(Duration gap);
  void HandleLaunchOver(uint32_t slot, const DeviceEvent& event);
  void FinishBlocks(uint32_t slot, uint32_t blocks, Duration device_time);
  void FinishKernel(JobRecord& job, uint32_t kernel, uint32_t unit);
  void ForgetLaunch(uint32_t slot, TimePoint now);
  void ForgetLost(uint32_t slot);
  // Puts the job where it belongs after something happened to it; ends it if that is due.
  void Settle(JobRecord& job);
  // The job launches nothing more and ends with `status` once nothing of it is in flight.
  void Kill(JobRecord& job, Status status);
  void End(JobRecord& job, Status status);
  void Requeue(JobRecord& job);
  void Reorder(JobRecord& job);
  void Unqueue(JobRecord& job);
  void UnqueueWithTenant(JobRecord& job);
  void EnsureTenant(uint32_t tenant);
  void LeaveTenant(const JobRecord& job);
  // Calls visit(tenant, part of the job) for everybody who pays for it.
  template <typename Visit>
  static void ForEachPayer(const JobRecord& job, Visit visit) {
    if (job.payers.empty()) return visit(job.view.tenant.value(), 1.0);
    for (const Payer& payer : job.payers) {
      visit(payer.tenant.value(), static_cast<double>(payer.rows) / job.paid_rows);
    }
  }
  void Charge(const JobRecord& job, double ns) {
    ForEachPayer(job, [&](uint32_t tenant, double part) { shares_.Charge(tenant, part * ns); });
  }
  Status CheckTenant(TenantId tenant) const;
  bool Start(JobRecord& job);
  std::string Where(const JobRecord& job, uint32_t kernel) const;
  static double BlockNs(const Kernel& kernel, const TimeEstimate& learned) {
    if (learned.samples() > 0) return learned.mean_ns() > 1 ? learned.mean_ns() : 1;
    return static_cast<double>(kernel.estimated_block_time.count());
  }
  double BlockNs(const JobRecord& job, uint32_t kernel) const {
    return BlockNs(job.context.program->kernels[kernel], job.profile->kernels[kernel]);
  }
  // Of a job, or of what is left of it.
  struct Times {
    double work_ns = 0, alone_ns = 0;
    bool guessed = false;
    void Add(const BlockCost& cost, uint32_t blocks) {
      work_ns += blocks * cost.work_ns();
      alone_ns += blocks * cost.alone_ns();
    }
  };
  // What keys count. Where jobs wait for units each runs on one (width follows load), so there a
  // job's time is that on one unit; a device that places blocks itself runs it as wide as it gets.
  Duration KeyTime(double work_ns, double alone_ns) const {
    return std::max(Duration{1}, NanosecondsOf(units_ ? work_ns : alone_ns));
  }
  BlockCost CostOf(const Kernel& kernel, const TimeEstimate& learned) const;
  Times TimesOf(const Program& program, const ProgramProfile& profile) const;
  uint32_t Capacity(const Kernel& kernel) const;

  // dispatcher_arenas.cc
  bool TakeArena(JobRecord& job);
  bool GoesBeforeWaiters(const JobRecord& job);
  void Wait(JobRecord& job);
  void StopWaiting(JobRecord& job);
  JobRecord& FirstWaiter();
  void WakeWaiter();

  // dispatcher_limits.cc
  void LoseDevice(const Status& why, bool events_end);
  TimePoint LatestStart(const JobRecord& job) const;
  void SetTimer(JobRecord& job);
  void FireTimers();
  void GiveUpHung();

  // dispatcher_trace.cc
  bool Traces(const JobRecord& job) const {
    return trace_ != nullptr && trace_->enabled() && job.traced;
  }
  void TraceDecision(const JobRecord& job, LaunchRecord& launch);
  void TraceBlocks(JobRecord& job, const LaunchRecord& launch, const DeviceEvent& event);
  void TraceJob(JobRecord& job);
  uint32_t TraceNames(JobRecord& job);

  // dispatcher_schedule.cc
  void Schedule();
  void ScheduleUnits();
  void ScheduleQueues();
  bool QueueOn(UnitId unit);
  void SchedulePacked();
  Duration HardwareBound() const;
  bool HardwareIsFull();
  bool WasOvertaken();
  bool PassesAll(const JobRecord& job);
  JobRecord* PickReady();
  JobRecord* PickPacked();
  double WaitingNs();
  JobRecord& FirstOfTenant(uint32_t tenant);
  uint32_t ActiveJobs() const;
  JobRecord* PickBehind(uint32_t unit);
  bool Startable(JobRecord& job);
  void OfferTurn(JobRecord& job);
  void ForgetTurn(JobRecord& job);
  UnitId ChooseUnit(const JobRecord& job);
  bool WorthWaking(const JobRecord& job, Duration latency);
  uint32_t ChooseKernel(const JobRecord& job, uint32_t unit) const;
  uint32_t ChooseBlocks(const JobRecord& job, uint32_t kernel);
  // `at_once`: a hardware-placed device has room for all of it. False when the unit turned out to
  // be full; the launch is undone.
  bool LaunchOn(JobRecord& job, uint32_t kernel, UnitId unit, uint32_t blocks,
                bool at_once = false);
  uint32_t NewLaunch();
  static uint32_t BlockedBit(UnitId unit) { return unit.valid() ? unit.value() : kWholeDevice; }
  uint32_t num_ready() const { return ready_.size() + wider_.size(); }
  uint32_t in_flight() const {
    return units_ ? units_->in_flight() : packed_->resident() + packed_->waiting();
  }

  Device& device_;
  const DeviceInfo info_;
  const Clock& clock_;
  TraceRecorder* const trace_;
  uint16_t trace_device_ = 0;
  const DispatcherOptions options_;
  ProfileStore own_profiles_;     // where none was given; thread-safe
  ProfileStore* const profiles_;  // thread-safe
  EventQueue queue_{12};          // thread-safe
  CoreLock lock_;

  std::unique_ptr<Policy> policy_;
  TimePoint now_{};  // the latest time seen
  JobTable jobs_;
  std::vector<LaunchRecord> launches_;
  std::vector<uint32_t> free_launches_;
  IndexedHeap ready_, wider_, waiters_, timers_;
  FairShare shares_;
  HeapPositions in_tenant_ready_, in_tenant_wider_, in_tenant_waiters_;
  std::vector<Tenant> tenants_;         // by id
  uint32_t starved_ = kNone;            // the tenant that the decision under way is for; kNone: any
  std::optional<UnitOccupancy> units_;  // unit-addressed devices
  std::optional<PackedOccupancy> packed_;  // hardware-placed ones
  // Units that refused a launch, until their next event; hardware-placed, kWholeDevice.
  BitSet blocked_;
  std::vector<uint32_t> unit_job_;  // the job a unit ran last, for counting preemptions
  uint64_t next_sequence_ = 0;
  uint64_t next_turn_ = 0;
  uint32_t ended_first_ = kNone, ended_last_ = kNone;  // jobs to deliver, in the order they ended
  uint32_t arenas_held_ = 0;
  uint32_t running_jobs_ = 0;
  uint32_t turns_open_ = 0;      // holders whose turn has come and who have not answered
  std::vector<uint32_t> turns_;  // their jobs, as long as they have not been told
  double gap_ns_;                // DispatcherStats::launch_gap
  uint32_t ended_ = 0;           // records of ended jobs not yet free
  Status device_status_;         // why no more jobs are taken
  DispatcherStats stats_;
};

}  // namespace plexus
