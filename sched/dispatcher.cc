#include "sched/dispatcher.h"

#include <algorithm>
#include <utility>

#include "sched/dispatcher_core.h"

namespace plexus {

Dispatcher::Dispatcher(Device& device, std::unique_ptr<Policy> policy, const Clock& clock,
                       ProfileStore* profiles, TraceRecorder* trace, DispatcherOptions options)
    : core_(std::make_unique<Core>(device, std::move(policy), clock, profiles, trace, options)) {
  device.SetSink(this);
}

Dispatcher::~Dispatcher() = default;

Result<JobId> Dispatcher::Submit(JobSpec spec) { return core_->Submit(std::move(spec)); }
void Dispatcher::Cancel(JobId job, Status why) { core_->Cancel(job, std::move(why)); }
std::optional<JobBuffers> Dispatcher::Withdraw(JobId job) { return core_->Withdraw(job); }
Result<JobId> Dispatcher::Replace(std::span<const JobId> places, JobSpec spec) {
  return core_->Replace(places, std::move(spec));
}
size_t Dispatcher::RemoveTenant(TenantId tenant, Status why) {
  return core_->RemoveTenant(tenant, why);
}
TimePoint Dispatcher::Pump(TimePoint now) { return core_->Pump(now); }
void Dispatcher::OnEvent(const DeviceEvent& event) { core_->OnEvent(event); }
void Dispatcher::SetPolicy(std::unique_ptr<Policy> policy) { core_->SetPolicy(std::move(policy)); }
std::string Dispatcher::policy_name() const { return core_->policy_name(); }
void Dispatcher::Raise(JobId job, const Urgency& urgency) { core_->Raise(job, urgency); }
void Dispatcher::AddPayer(JobId job, TenantId tenant) { core_->AddPayer(job, tenant); }
Status Dispatcher::SetTenantWeight(TenantId tenant, double weight) {
  return core_->SetTenantWeight(tenant, weight);
}
TenantStats Dispatcher::tenant_stats(TenantId tenant) const { return core_->tenant_stats(tenant); }
DispatcherStats Dispatcher::stats() const { return core_->stats(); }
uint16_t Dispatcher::trace_device() const { return core_->trace_device(); }
Duration Dispatcher::ExpectedTime(const Program& program, uint32_t rows) const {
  return core_->ExpectedTime(program, rows);
}

void Dispatcher::Core::Enter() {
  lock_.Lock();
  Drain();
}

void Dispatcher::Core::Drain() {
  if (queue_.Drained()) return;
  DeviceEvent event;
  while (queue_.Pop(event)) Handle(event);
}

// Launches what can be launched, gives the lock back, tells whose turn it is, delivers what ended,
// and looks again: an event that another thread left because it found the lock held is either seen
// here or handled by whoever holds the lock now.
void Dispatcher::Core::Leave() {
  for (;;) {
    Schedule();
    if (!turns_.empty()) {
      TellTurns();                   // unlocks
      if (!lock_.TryLock()) return;  // whoever holds the lock now does the rest
      Drain();
      continue;
    }
    if (ended_first_ != kNone) {
      DeliverEnded();  // unlocks
    } else {
      lock_.Unlock();
    }
    if (!queue_.MayHaveEvents() || !lock_.TryLock()) return;
    Drain();
  }
}

// After a look that changed nothing; what came meanwhile is done all the same.
void Dispatcher::Core::LeaveUnchanged() {
  if (ended_first_ == kNone && turns_.empty()) {
    lock_.Unlock();
    if (!queue_.MayHaveEvents() || !lock_.TryLock()) return;
    Drain();
  }
  Leave();
}

// Called with the lock, returns without it.
void Dispatcher::Core::TellTurns() {
  struct Turn {
    std::shared_ptr<PlaceHolder> holder;
    JobId id;
  };
  constexpr uint32_t kAtOnce = 8;
  Turn turns[kAtOnce];
  uint32_t count = 0;
  while (count < kAtOnce && !turns_.empty()) {
    const JobRecord& job = jobs_.at(turns_.back());
    turns_.pop_back();
    if (job.state == JobState::kWaiting && job.has_turn) turns[count++] = {job.place, job.view.id};
  }
  lock_.Unlock();
  // Putting a job together takes its time: no event that was left to this thread waits for that.
  while (queue_.MayHaveEvents() && lock_.TryLock()) {
    Drain();
    Schedule();
    lock_.Unlock();
  }
  for (uint32_t i = 0; i < count; ++i) turns[i].holder->OnTurn(turns[i].id);
}

// Called with the lock, returns without it.
void Dispatcher::Core::DeliverEnded() {
  struct Ended {
    JobListener* listener;
    JobId id;
    Duration device_time;
    Status status;
    JobBuffers buffers;
    ProgramPtr program;  // let go outside the lock: it may be the last holder
    std::shared_ptr<PlaceHolder> place;
  };
  constexpr uint32_t kBatch = 8;
  for (;;) {
    Ended batch[kBatch];
    uint32_t count = 0;
    while (count < kBatch && ended_first_ != kNone) {
      JobRecord& job = jobs_.at(ended_first_);
      ended_first_ = job.next;
      if (ended_first_ == kNone) ended_last_ = kNone;
      Ended& ended = batch[count++];
      ended.listener = job.listener;
      ended.id = job.view.id;
      ended.device_time = Duration(static_cast<int64_t>(job.served_ns));
      ended.status = std::move(job.end_status);
      ended.place = std::move(job.place);
      if (job.lost == 0) {
        ended.buffers = std::move(job.context.buffers);
        ended.program = std::move(job.context.program);
        --ended_;
        jobs_.Free(job);
      } else {
        job.delivered = true;
      }
    }
    const bool more = ended_first_ != kNone;
    lock_.Unlock();
    for (uint32_t i = 0; i < count; ++i) {
      Ended& ended = batch[i];
      ended.listener->OnDeviceTime(ended.id, ended.device_time);
      ended.listener->OnJobDone(ended.id, std::move(ended.status), std::move(ended.buffers));
    }
    // Whoever holds the lock now delivers the rest.
    if (!more || !lock_.TryLock()) return;
    if (ended_first_ == kNone) {
      lock_.Unlock();
      return;
    }
  }
}

void Dispatcher::Core::OnEvent(const DeviceEvent& event) {
  bool mine = lock_.TryLock();
  if (!mine) {
    if (queue_.Push(event)) {
      // The holder may have looked at the queue before the push; then the lock is free by now.
      if (!lock_.TryLock()) return;
      Drain();
    } else {
      lock_.Lock();
      mine = true;
    }
  }
  if (mine) {
    // A unit's events must be handled in its order. If a push of another thread is under way, ours
    // may be stuck behind it: wait for it, it is a few instructions.
    Drain();
    while (!queue_.Drained()) {
      SpinPause();
      Drain();
    }
    Handle(event);
  }
  Leave();
}

Result<JobId> Dispatcher::Core::Submit(JobSpec spec) { return Replace({}, std::move(spec)); }

Result<JobId> Dispatcher::Core::Replace(std::span<const JobId> places, JobSpec spec) {
  Status refused = CheckSpec(spec);
  ProgramProfilePtr profile;
  if (refused.ok()) {
    const Program& program = *spec.program;
    profile = profiles_->Get(program.signature, spec.rows, program.kernels.size());
  }
  std::vector<Withdrawn> withdrawn;
  withdrawn.reserve(places.size());
  const TimePoint now = clock_.Now();

  Enter();
  now_ = std::max(now_, now);
  if (refused.ok()) refused = device_status_;
  if (refused.ok() && places.empty() && jobs_.live() >= options_.max_jobs) {
    refused = UnavailableError("program " + spec.program->name + ": " +
                               std::to_string(options_.max_jobs) +
                               " jobs wait on this device; try again later");
  }
  JobId id;
  if (refused.ok()) id = Admit(std::move(spec), std::move(profile), places).view.id;
  for (const JobId place : places) {
    JobRecord* job = jobs_.Find(place);
    if (job != nullptr && job->place != nullptr && !job->dying) withdrawn.push_back(TakeBack(*job));
  }
  Leave();
  if (!refused.ok()) return refused;
  return id;
}

// The job, where it belongs.
JobRecord& Dispatcher::Core::Admit(JobSpec spec, ProgramProfilePtr profile,
                                   std::span<const JobId> places) {
  const Program& program = *spec.program;
  JobRecord& job = jobs_.Allocate();
  jobs_.Provision(program.kernels.size());
  for (IndexedHeap* heap : {&ready_, &wider_, &waiters_, &timers_}) heap->Reserve(jobs_.capacity());
  for (HeapPositions* in : {&in_tenant_ready_, &in_tenant_wider_, &in_tenant_waiters_}) {
    in->Reserve(jobs_.capacity());
  }
  job.profile = std::move(profile);
  job.listener = spec.place != nullptr ? spec.place.get() : spec.listener;
  job.place = std::move(spec.place);
  job.context.id = job.view.id;
  job.context.program = std::move(spec.program);
  job.context.buffers = std::move(spec.buffers);
  job.remaining_path = std::max(spec.attributes.remaining_path, Duration{0});
  job.submitted_at = now_;
  job.first_launch = TimePoint{};
  job.request = spec.attributes.request;
  job.trace_names = 0;
  job.traced = spec.attributes.traced;
  const Times times = TimesOf(program, *job.profile);
  job.work_ns = times.work_ns;
  job.alone_ns = times.alone_ns;
  job.issued_ns = job.served_ns = 0;
  job.guessed = times.guessed;
  JobView& view = job.view;
  view.tenant = spec.attributes.tenant;
  view.arrival = spec.attributes.arrival == TimePoint{} ? now_ : spec.attributes.arrival;
  view.deadline = job.deadline = spec.attributes.deadline;
  view.priority = spec.attributes.priority;
  view.service_time = std::max(spec.attributes.service_time, KeyTime(job.work_ns, job.alone_ns));
  view.sequence = next_sequence_++;
  view.last_turn = next_turn_++;
  for (const JobId id : places) {
    const JobRecord* place = jobs_.Find(id);
    if (place == nullptr) continue;
    view.sequence = std::min(view.sequence, place->view.sequence);
    job.submitted_at = std::min(job.submitted_at, place->submitted_at);
  }
  job.state = JobState::kWaiting;
  if (job.place == nullptr) ++stats_.jobs_submitted;
  const uint32_t tenant = view.tenant.value();
  EnsureTenant(tenant);
  job.payers = std::move(spec.payers);
  job.paid_rows = 0;
  for (const Payer& payer : job.payers) {
    EnsureTenant(payer.tenant.value());
    job.paid_rows += payer.rows;
  }
  if (tenants_[tenant].jobs++ == 0) shares_.Join(tenant);
  if (shares_.on()) tenants_[tenant].ReserveEntries(tenants_[tenant].jobs);
  if (spec.attributes.timeout_at) job.timeout_at = *spec.attributes.timeout_at;
  SetTimer(job);
  if (program.kernels.empty() && job.place == nullptr) {
    End(job, OkStatus());
  } else {
    Requeue(job);
  }
  return job;
}

void Dispatcher::Core::Cancel(JobId id, Status why) {
  Enter();
  if (JobRecord* job = jobs_.Find(id); job != nullptr && !job->dying) {
    job->cancelled = true;
    Kill(*job, why.ok() ? CancelledError("cancelled") : std::move(why));
    Settle(*job);
  }
  Leave();
}

std::optional<JobBuffers> Dispatcher::Core::Withdraw(JobId id) {
  std::optional<Withdrawn> withdrawn;
  Enter();
  JobRecord* job = jobs_.Find(id);
  if (job != nullptr && job->state == JobState::kWaiting && !job->dying) {
    withdrawn = TakeBack(*job);
  }
  Leave();
  if (!withdrawn) return std::nullopt;
  return std::move(withdrawn->buffers);
}

// Of a job that has launched nothing.
Dispatcher::Core::Withdrawn Dispatcher::Core::TakeBack(JobRecord& job) {
  Unqueue(job);
  StopWaiting(job);
  ForgetTurn(job);
  timers_.Remove(job.slot);
  if (job.place == nullptr) ++stats_.jobs_withdrawn;
  Withdrawn withdrawn{std::move(job.context.buffers), std::move(job.context.program),
                      std::move(job.place)};
  LeaveTenant(job);
  jobs_.Free(job);
  WakeWaiter();  // it may have been the one that was told of free memory
  return withdrawn;
}

size_t Dispatcher::Core::RemoveTenant(TenantId tenant, const Status& why) {
  size_t ended = 0;
  Enter();
  if (!tenant.valid() || tenant.value() >= tenants_.size()) {
    Leave();
    return 0;
  }
  jobs_.ForEachLive([&](JobRecord& job) {
    if (job.place != nullptr) return;  // those who hold it take it back
    bool others = false, own = false;
    ForEachPayer(job,
                 [&](uint32_t payer, double) { (payer == tenant.value() ? own : others) = true; });
    if (!own || others || job.dying) return;
    ++ended;
    job.cancelled = true;
    Kill(job, why.ok() ? CancelledError("the tenant was removed") : why);
    Settle(job);
  });
  tenants_[tenant.value()].served_ns = 0;
  shares_.Forget(tenant.value());
  Leave();
  return ended;
}

void Dispatcher::Core::Raise(JobId id, const Urgency& urgency) {
  Enter();
  if (JobRecord* job = jobs_.Find(id); job != nullptr && !job->dying) {
    // One by one: which of them counts, and which value of it goes first, is the policy's.
    JobView sooner = job->view, above = job->view;
    sooner.deadline = urgency.deadline;
    above.priority = urgency.priority;
    const PolicyKey own = policy_->Key(job->view, now_);
    if (policy_->Key(sooner, now_) < own) job->view.deadline = urgency.deadline;
    if (policy_->Key(above, now_) < own) job->view.priority = urgency.priority;
    Reorder(*job);
  }
  Leave();
}

void Dispatcher::Core::AddPayer(JobId id, TenantId tenant) {
  if (!CheckTenant(tenant).ok()) return;
  Enter();
  if (JobRecord* job = jobs_.Find(id); job != nullptr && !job->dying) {
    EnsureTenant(tenant.value());
    if (job->payers.empty()) {
      job->payers.push_back({job->view.tenant, 1});
      job->paid_rows = 1;
    }
    const bool pays = std::any_of(job->payers.begin(), job->payers.end(),
                                  [&](const Payer& payer) { return payer.tenant == tenant; });
    if (!pays) {
      job->payers.push_back({tenant, 1});
      job->paid_rows += 1;
    }
  }
  Leave();
}

TimePoint Dispatcher::Core::Pump(TimePoint now) {
  Enter();
  now_ = std::max(now_, now);
  GiveUpHung();
  Schedule();
  TimePoint next = TimePoint::max();
  if (!timers_.empty()) next = TimePoint(Duration(static_cast<int64_t>(timers_.top_key())));
  for (const LaunchRecord& launch : launches_) {
    if (launch.job != kNone && !launch.lost) {
      next = std::min(next, launch.at + options_.hang_bound);
    }
  }
  Leave();
  return next;
}

void Dispatcher::Core::SetPolicy(std::unique_ptr<Policy> policy) {
  PLEXUS_CHECK(policy != nullptr);
  Enter();
  policy_.swap(policy);
  const bool was_fair = shares_.on();
  jobs_.ForEachLive([&](JobRecord& job) {
    if (!was_fair) return;
    UnqueueWithTenant(job);
    tenants_[job.view.tenant.value()].waiters.Remove(job.slot);
  });
  shares_.SetThreshold(policy_->fair_threshold());
  for (Tenant& tenant : tenants_) {
    if (!shares_.on()) break;
    tenant.ReserveEntries(tenant.jobs);
  }
  jobs_.ForEachLive([&](JobRecord& job) { Reorder(job); });
  Leave();
}

Status Dispatcher::Core::SetTenantWeight(TenantId tenant, double weight) {
  PLEXUS_RETURN_IF_ERROR(FairShare::CheckWeight(weight));
  PLEXUS_RETURN_IF_ERROR(CheckTenant(tenant));
  Enter();
  EnsureTenant(tenant.value());
  shares_.SetWeight(tenant.value(), weight);
  Leave();
  return OkStatus();
}

TenantStats Dispatcher::Core::tenant_stats(TenantId id) {
  TenantStats stats;
  lock_.Lock();
  if (id.valid() && id.value() < tenants_.size()) {
    const Tenant& tenant = tenants_[id.value()];
    stats.time = Duration(static_cast<int64_t>(tenant.served_ns));
    stats.deficit = Duration(static_cast<int64_t>(shares_.deficit_ns(id.value())));
    stats.weight = shares_.weight(id.value());
    stats.jobs = tenant.jobs;
  }
  LeaveUnchanged();
  return stats;
}

std::string Dispatcher::Core::policy_name() {
  lock_.Lock();
  std::string name(policy_->name());
  LeaveUnchanged();
  return name;
}

DispatcherStats Dispatcher::Core::stats() {
  lock_.Lock();
  DispatcherStats stats = stats_;
  stats.ready = num_ready();
  stats.running = running_jobs_;
  stats.launch_gap = Duration(static_cast<int64_t>(gap_ns_));
  stats.jobs_waiting_for_arena = waiters_.size();
  stats.waiting_blocks = packed_ ? packed_->waiting() : 0;
  stats.in_flight = units_ ? units_->in_flight() : packed_->resident() + packed_->waiting();
  LeaveUnchanged();
  return stats;
}

Duration Dispatcher::Core::ExpectedTime(const Program& program, uint32_t rows) {
  const ProgramProfilePtr profile = profiles_->Get(program.signature, rows, program.kernels.size());
  if (packed_) lock_.Lock();  // the packing remembers what it computed last
  const Times times = TimesOf(program, *profile);
  if (packed_) LeaveUnchanged();
  return KeyTime(times.work_ns, times.alone_ns);
}

}  // namespace plexus
