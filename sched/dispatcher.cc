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
TimePoint Dispatcher::Pump(TimePoint now) { return core_->Pump(now); }
void Dispatcher::OnEvent(const DeviceEvent& event) { core_->OnEvent(event); }
void Dispatcher::SetPolicy(std::unique_ptr<Policy> policy) { core_->SetPolicy(std::move(policy)); }
std::string Dispatcher::policy_name() const { return core_->policy_name(); }
DispatcherStats Dispatcher::stats() const { return core_->stats(); }
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

// Launches what can be launched, gives the lock back, delivers what ended, and looks again: an
// event that another thread left because it found the lock held is either seen here or handled by
// whoever holds the lock now.
void Dispatcher::Core::Leave() {
  for (;;) {
    Schedule();
    if (ended_first_ != kNone) {
      DeliverEnded();  // unlocks
    } else {
      lock_.Unlock();
    }
    if (!queue_.MayHaveEvents() || !lock_.TryLock()) return;
    Drain();
  }
}

// Called with the lock, returns without it.
void Dispatcher::Core::DeliverEnded() {
  struct Ended {
    JobListener* listener;
    JobId id;
    Status status;
    JobBuffers buffers;
    ProgramPtr program;  // let go outside the lock: it may be the last holder
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
      ended.status = std::move(job.end_status);
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

Result<JobId> Dispatcher::Core::Submit(JobSpec spec) {
  PLEXUS_RETURN_IF_ERROR(CheckSpec(spec));
  const Program& program = *spec.program;
  ProgramProfile* profile = profiles_->Get(program.signature, spec.rows, program.kernels.size());
  const TimePoint now = clock_.Now();

  Enter();
  now_ = std::max(now_, now);
  Status refused = device_status_;
  if (refused.ok() && jobs_.live() >= options_.max_jobs) {
    refused =
        UnavailableError("program " + program.name + ": " + std::to_string(options_.max_jobs) +
                         " jobs wait on this device; try again later");
  }
  if (!refused.ok()) {
    Leave();
    return refused;
  }
  JobRecord& job = jobs_.Allocate();
  for (IndexedHeap* heap : {&ready_, &wider_, &waiters_, &timers_}) heap->Reserve(jobs_.capacity());
  job.profile = profile;
  job.listener = spec.listener;
  job.context.id = job.view.id;
  job.context.program = std::move(spec.program);
  job.context.buffers = std::move(spec.buffers);
  job.remaining_path = std::max(spec.attributes.remaining_path, Duration{0});
  job.submitted_at = now_;
  job.first_launch = TimePoint{};
  job.request = spec.attributes.request;
  job.trace_names = 0;
  job.traced = spec.attributes.traced;
  job.remaining_ns = 0;
  for (uint32_t k = 0; k < program.kernels.size(); ++k) {
    job.remaining_ns += program.kernels[k].grid * BlockNs(job, k);
  }
  JobView& view = job.view;
  view.tenant = spec.attributes.tenant;
  view.arrival = spec.attributes.arrival == TimePoint{} ? now_ : spec.attributes.arrival;
  view.deadline = spec.attributes.deadline;
  view.priority = spec.attributes.priority;
  view.service_time = std::max({spec.attributes.service_time,
                                Duration(static_cast<int64_t>(job.remaining_ns)), Duration{1}});
  view.sequence = next_sequence_++;
  job.state = JobState::kWaiting;
  ++stats_.jobs_submitted;
  const JobId id = view.id;
  if (spec.attributes.timeout_at) {
    timers_.Set(job.slot,
                static_cast<double>(spec.attributes.timeout_at->time_since_epoch().count()),
                view.sequence);
  }
  if (program.kernels.empty()) {
    End(job, OkStatus());
  } else {
    Requeue(job);
  }
  Leave();
  return id;
}

void Dispatcher::Core::Cancel(JobId id, Status why) {
  Enter();
  if (JobRecord* job = jobs_.Find(id); job != nullptr && !job->dying) {
    Kill(*job, CancelledError(why.message()));
    Settle(*job);
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
  Enter();
  policy_.swap(policy);
  jobs_.ForEachLive([&](JobRecord& job) {
    if (waiters_.Contains(job.slot)) {
      waiters_.Set(job.slot, policy_->Key(job.view, now_), job.view.sequence);
    } else if (ready_.Contains(job.slot) || wider_.Contains(job.slot)) {
      Requeue(job);
    }
  });
  Leave();
}

std::string Dispatcher::Core::policy_name() {
  Enter();
  std::string name(policy_->name());
  Leave();
  return name;
}

DispatcherStats Dispatcher::Core::stats() {
  Enter();
  DispatcherStats stats = stats_;
  stats.ready = num_ready();
  stats.running = running_jobs_;
  stats.jobs_waiting_for_arena = waiters_.size();
  stats.in_flight = units_ ? units_->in_flight() : packed_->resident() + packed_->waiting();
  Leave();
  return stats;
}

Duration Dispatcher::Core::ExpectedTime(const Program& program, uint32_t rows) {
  const ProgramProfile* profile = profiles_->Get(program.signature, rows, program.kernels.size());
  double total = 0;
  for (size_t k = 0; k < program.kernels.size(); ++k) {
    const TimeEstimate& learned = profile->kernels[k];
    const double block_ns =
        learned.samples() > 0
            ? learned.mean_ns()
            : static_cast<double>(program.kernels[k].estimated_block_time.count());
    total += program.kernels[k].grid * block_ns;
  }
  return std::max(Duration(static_cast<int64_t>(total)), Duration{1});
}

}  // namespace plexus
