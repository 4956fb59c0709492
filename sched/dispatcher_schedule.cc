// What runs next, and where: the decisions.
#include <algorithm>
#include <utility>

#include "sched/dispatcher_core.h"

namespace plexus {
namespace {

// Blocks shorter than this together are not worth cutting further to balance the units.
constexpr double kBalanceNs = 25'000;

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

}  // namespace

void Dispatcher::Core::Schedule() {
  if (!timers_.empty()) FireTimers();
  if (num_ready() == 0) return;
  if (units_) {
    ScheduleUnits();
    if (num_ready() > 0) ScheduleQueues();
  } else {
    SchedulePacked();
  }
}

// --- Which job

bool Dispatcher::Core::Startable(JobRecord& job) {
  return job.state == JobState::kStarted || Start(job);
}

// The holder is told when the lock is given back. Until it has answered the place is in no heap.
void Dispatcher::Core::OfferTurn(JobRecord& job) {
  Unqueue(job);
  job.has_turn = true;
  ++turns_open_;
  turns_.push_back(job.slot);
}

void Dispatcher::Core::ForgetTurn(JobRecord& job) {
  if (std::exchange(job.has_turn, false)) --turns_open_;
}

// For a free unit: jobs that have nothing in flight come first, then the others widen. So width
// follows load: a job alone takes every unit, where as many wait as there are units each runs on
// one.
JobRecord* Dispatcher::Core::PickReady() {
  while (num_ready() > 0) {
    starved_ = shares_.Starved();
    JobRecord& job = starved_ != kNone ? FirstOfTenant(starved_)
                                       : jobs_.at(ready_.empty() ? wider_.top() : ready_.top());
    if (job.place != nullptr || Startable(job)) return &job;
  }
  return nullptr;
}

// For a device that places blocks itself. A launch there takes no unit from anybody, so the policy
// alone decides, also between the next slice of a job and a job that has nothing in flight.
JobRecord* Dispatcher::Core::PickPacked() {
  while (num_ready() > 0) {
    starved_ = shares_.Starved();
    const IndexedHeap& ready = starved_ != kNone ? tenants_[starved_].ready : ready_;
    const IndexedHeap& wider = starved_ != kNone ? tenants_[starved_].wider : wider_;
    const bool widens = ready.empty() ||
                        (!wider.empty() &&
                         ready.GoesBeforeTop(wider.top_key(), jobs_.at(wider.top()).view.sequence));
    JobRecord& job = jobs_.at(widens ? wider.top() : ready.top());
    if (job.place != nullptr || Startable(job)) return &job;
  }
  return nullptr;
}

// Of a tenant that lacks its share; so its one job takes every unit before another tenant's gets
// one.
JobRecord& Dispatcher::Core::FirstOfTenant(uint32_t tenant) {
  const Tenant& t = tenants_[tenant];
  return jobs_.at(t.ready.empty() ? t.wider.top() : t.ready.top());
}

// For a place behind a running launch: the job that runs there goes on unless the policy puts a
// waiting one before it.
JobRecord* Dispatcher::Core::PickBehind(uint32_t unit) {
  const uint32_t runs = unit_job_[unit];
  while (runs != kNone && wider_.Contains(runs)) {
    JobRecord& job = jobs_.at(runs);
    starved_ = shares_.Starved();
    if (starved_ != kNone && starved_ != job.view.tenant.value()) break;
    const IndexedHeap& ready = starved_ != kNone ? tenants_[starved_].ready : ready_;
    if (ready.empty() || ready.GoesBeforeTop(policy_->Key(job.view, now_), job.view.sequence)) {
      return &job;
    }
    JobRecord& first = jobs_.at(ready.top());
    if (first.place != nullptr || Startable(first)) return &first;
  }
  return PickReady();
}

// Jobs that want units, for the decision under way.
uint32_t Dispatcher::Core::ActiveJobs() const {
  if (starved_ == kNone) return jobs_.live() - ended_ - waiters_.size();
  return tenants_[starved_].jobs - tenants_[starved_].waiting;
}

// --- Where

// An idle unit for the job's next launch; invalid when waking one would take longer than waiting
// for one that is awake. Near the data first, then near the caller.
UnitId Dispatcher::Core::ChooseUnit(const JobRecord& job) {
  const BitSet& idle = units_->idle();
  const auto usable = [&](uint32_t u) {
    return idle.Test(u) && !blocked_.Test(u) && device_.WakeLatency(UnitId(u)) == Duration{0};
  };
  if (job.last_unit != kNone && usable(job.last_unit)) return UnitId(job.last_unit);
  const UnitId local = device_.LocalUnit();
  if (local.valid() && local.value() < info_.units && usable(local.value())) return local;
  UnitId asleep, awake;
  Duration latency{0};
  idle.FindIf([&](uint32_t u) {
    if (blocked_.Test(u)) return false;
    const Duration wake = device_.WakeLatency(UnitId(u));
    if (wake == Duration{0}) {
      awake = UnitId(u);
      return true;
    }
    if (!asleep.valid() || wake < latency) {
      asleep = UnitId(u);
      latency = wake;
    }
    return false;
  });
  if (awake.valid()) return awake;
  return asleep.valid() && WorthWaking(job, latency) ? asleep : UnitId();
}

// A sleeping unit is worth waking when what is ready would otherwise wait longer than the waking
// takes: the time until an awake unit is free plus the work that stands in line.
bool Dispatcher::Core::WorthWaking(const JobRecord& job, Duration latency) {
  double wait_ns = -1;
  for (uint32_t u = 0; u < info_.units; ++u) {
    if (units_->idle().Test(u) || blocked_.Test(u)) continue;
    if (device_.WakeLatency(UnitId(u)) > Duration{0}) continue;
    const double busy_ns =
        std::max(0.0, static_cast<double>((units_->busy_until(UnitId(u)) - now_).count()));
    wait_ns = wait_ns < 0 ? busy_ns : std::min(wait_ns, busy_ns);
  }
  if (wait_ns < 0) return true;  // nobody is awake
  const double limit_ns = static_cast<double>(latency.count());
  if (job.place != nullptr) {
    if (job.guessed) return true;
    wait_ns += job.work_ns;
  } else {
    for (uint32_t k : job.cursor->ready) {
      if (job.profile->kernels[k].samples() == 0) return true;  // only guessed so far
      wait_ns += job.cursor->kernels[k].unissued() * BlockNs(job, k);
    }
  }
  // A few of the others are enough to know.
  constexpr uint32_t kLook = 8;
  for (uint32_t i = 0; i < std::min(kLook, ready_.size()) && wait_ns < limit_ns; ++i) {
    const JobRecord& other = jobs_.at(ready_.at(i));
    if (&other != &job) wait_ns += other.work_ns;
  }
  return wait_ns >= limit_ns;
}

// --- Which kernel, how many blocks

// The one whose producer ran on this unit, else the one that became ready last: its input is
// freshest.
uint32_t Dispatcher::Core::ChooseKernel(const JobRecord& job, uint32_t unit) const {
  const std::vector<uint32_t>& ready = job.cursor->ready;
  constexpr size_t kLook = 8;
  const size_t last = ready.size() > kLook ? ready.size() - kLook : 0;
  for (size_t i = ready.size(); i-- > last;) {
    if (job.cursor->kernels[ready[i]].last_unit == unit) return ready[i];
  }
  return ready.back();
}

// A slice: the job's share of what is left where few jobs are about, cut once more so that the
// units finish together, and never longer than the quantum.
uint32_t Dispatcher::Core::ChooseBlocks(const JobRecord& job, uint32_t kernel) {
  const uint32_t left = job.cursor->kernels[kernel].unissued();
  if (left == 1) return 1;
  const double block_ns = BlockNs(job, kernel);
  const double in_quantum = static_cast<double>(options_.quantum.count()) / block_ns;
  const uint32_t quantum_blocks = in_quantum < left ? static_cast<uint32_t>(in_quantum) : left;
  uint32_t share = left;
  const uint32_t active = std::max(1u, ActiveJobs());
  if (active < info_.units) {
    uint32_t awake = 0;
    Duration latency{0};
    for (uint32_t u = 0; u < info_.units; ++u) {
      const Duration wake = device_.WakeLatency(UnitId(u));
      awake += wake == Duration{0} ? 1 : 0;
      latency = std::max(latency, wake);
    }
    // Sleeping units count when there is enough to wake them for.
    const bool worth = left * block_ns >= static_cast<double>(latency.count());
    const uint32_t units = worth ? info_.units : std::max(awake, 1u);
    const uint32_t width = std::max(1u, units / active);
    share = CeilDiv(left, width);
    if (width > 1 && share * block_ns > kBalanceNs) share = CeilDiv(share, 2);
  }
  // Filling the gap between two kernels of a tenant that lacks its share: with as little as can be.
  if (starved_ == kNone && shares_.StarvedSoon()) {
    const double gap_ns = static_cast<double>(options_.in_flight_bound.count());
    share = std::min(share, static_cast<uint32_t>(std::min(gap_ns / block_ns, 4e9)));
  }
  return std::max(1u, std::min(share, quantum_blocks));
}

// --- The loops

void Dispatcher::Core::ScheduleUnits() {
  while (units_->num_idle() > turns_open_) {
    JobRecord* job = PickReady();
    if (job == nullptr) return;
    const UnitId unit = ChooseUnit(*job);
    if (!unit.valid()) return;
    if (job->place != nullptr) {
      OfferTurn(*job);
      continue;
    }
    const uint32_t kernel = ChooseKernel(*job, unit.value());
    LaunchOn(*job, kernel, unit, ChooseBlocks(*job, kernel));
  }
}

// Gives a busy unit one launch beyond what it holds, so that no hand-off stands between two blocks;
// only where plenty is left, since what is queued can neither be overtaken nor move to another
// unit, and never more than the in-flight bound in time. Whether it did.
bool Dispatcher::Core::QueueOn(UnitId unit) {
  const double bound_ns = static_cast<double>(options_.in_flight_bound.count());
  JobRecord* job = PickBehind(unit.value());
  if (job == nullptr || job->place != nullptr) return false;  // a turn comes as late as it can
  const uint32_t kernel = ChooseKernel(*job, unit.value());
  const double block_ns = BlockNs(*job, kernel);
  if (block_ns > bound_ns) return false;
  const uint32_t left = job->cursor->kernels[kernel].unissued();
  const uint32_t bound_blocks = std::max(1u, static_cast<uint32_t>(bound_ns / block_ns));
  const uint32_t blocks = std::min(ChooseBlocks(*job, kernel), bound_blocks);
  if (num_ready() - 1 + (left - blocks) < info_.units) return false;
  return LaunchOn(*job, kernel, unit, blocks);
}

void Dispatcher::Core::ScheduleQueues() {
  bool launched = true;
  for (uint32_t depth = 0; launched && depth < info_.queue_depth; ++depth) {
    launched = false;
    units_->queueable().FindIf([&](uint32_t u) {
      if (!blocked_.Test(u) && QueueOn(UnitId(u))) launched = true;
      return num_ready() == 0;
    });
  }
}

// How long the device needs for the blocks that wait in its queues, if it did nothing else.
double Dispatcher::Core::WaitingNs() {
  double ns = 0;
  packed_->ForEachWaiting([&](uint32_t slot, uint32_t blocks, uint32_t capacity) {
    const LaunchRecord& launch = launches_[slot];
    ns += blocks * BlockNs(jobs_.at(launch.job), launch.kernel) / std::max(capacity, 1u);
  });
  return ns;
}

// The work that waits in the hardware must last until the next launch gets there, so the bound
// grows with the way there where that is long.
Duration Dispatcher::Core::HardwareBound() const {
  return std::max(options_.hardware_bound, Duration(static_cast<int64_t>(2 * gap_ns_)));
}

bool Dispatcher::Core::HardwareIsFull() {
  return packed_->waiting() > 0 && WaitingNs() >= static_cast<double>(HardwareBound().count());
}

// Whether the launch that has waited longest in the hardware has been passed for long enough.
bool Dispatcher::Core::WasOvertaken() {
  if (packed_->waiting() == 0 || !info_.reports_block_starts) return false;
  return now_ - launches_[packed_->first_waiting()].at >= options_.overtaken_bound;
}

// Whether the job, which was chosen, goes before all whose blocks wait in the hardware. Then it may
// have room beside them, and else nobody may: what was launched first would start later for it.
bool Dispatcher::Core::PassesAll(const JobRecord& job) {
  bool passes = true;
  packed_->ForEachWaiting([&](uint32_t slot, uint32_t, uint32_t) {
    const JobRecord& waits = jobs_.at(launches_[slot].job);
    if (!passes || &waits == &job) return;
    const uint32_t tenant = waits.view.tenant.value();
    if (starved_ != kNone && tenant != starved_) {
      passes = !shares_.IsStarved(tenant) || shares_.LacksLonger(starved_, tenant);
    } else if (starved_ == kNone && shares_.IsStarved(tenant)) {
      passes = false;
    } else {
      const double ours = policy_->Key(job.view, now_), theirs = policy_->Key(waits.view, now_);
      passes = ours < theirs || (ours == theirs && job.view.sequence < waits.view.sequence);
    }
  });
  return passes;
}

// The hardware places the blocks. A kernel goes out whole if nobody else has work or if it is
// shorter than the quantum, else in slices of that. What does not fit waits in the hardware: that
// hides the launch latency, but takes the room that comes free before what is launched later, so it
// is bounded in time. Only what is chosen before all that waits, and fits beside it, still goes. A
// launch is never cut to the room that happens to be free: what is left of it would only need
// another one.
void Dispatcher::Core::SchedulePacked() {
  while (!free_launches_.empty() && !blocked_.Test(kWholeDevice)) {
    if (WasOvertaken()) return;
    const bool full = HardwareIsFull();
    JobRecord* job = PickPacked();
    if (job == nullptr) return;
    if (job->place != nullptr) {
      // As late as it can be without the device running dry: others that have begun may wait there.
      if (turns_open_ == 0 && packed_->waiting() == 0) OfferTurn(*job);
      return;  // what comes next depends on the answer
    }
    const uint32_t kernel = ChooseKernel(*job, kNone);
    const Kernel& k = job->context.program->kernels[kernel];
    const uint32_t capacity = packed_->Capacity(k.resources);
    if (capacity == 0) {
      Kill(*job, InvalidArgumentError(Where(*job, kernel) +
                                      ": a block needs more than a unit of this device has"));
      Settle(*job);
      continue;
    }
    const uint32_t left = job->cursor->kernels[kernel].unissued();
    uint32_t blocks = left;
    const bool alone = num_ready() == 1 && running_jobs_ == (job->in_flight > 0 ? 1u : 0u);
    if (!alone) {
      const double waves =
          std::max(1.0, static_cast<double>(options_.quantum.count()) / BlockNs(*job, kernel));
      blocks = std::min(left, static_cast<uint32_t>(std::min(waves * capacity, 4e9)));
    }
    const bool at_once = packed_->Room(k.resources, blocks) == blocks && PassesAll(*job);
    if (full && !at_once) return;
    LaunchOn(*job, kernel, UnitId(), blocks, at_once);
  }
}

uint32_t Dispatcher::Core::NewLaunch() {
  if (free_launches_.empty()) {
    // Only after launches got lost: their records stay until they report.
    launches_.emplace_back();
    free_launches_.reserve(launches_.size());
    return static_cast<uint32_t>(launches_.size() - 1);
  }
  const uint32_t slot = free_launches_.back();
  free_launches_.pop_back();
  return slot;
}

bool Dispatcher::Core::LaunchOn(JobRecord& job, uint32_t kernel, UnitId unit, uint32_t blocks,
                                bool at_once) {
  JobCursor& cursor = *job.cursor;
  KernelCursor& k = cursor.kernels[kernel];
  const bool from_front = !unit.valid() || 2 * unit.value() < info_.units;
  const uint32_t first = from_front ? k.front : k.back - blocks;

  const uint32_t slot = NewLaunch();
  LaunchRecord& record = launches_[slot];
  ++record.generation;
  Launch launch;
  launch.id = LaunchId((uint64_t{record.generation} << 32) | slot);
  launch.job = &job.context;
  launch.kernel = KernelId(kernel);
  launch.first_block = first;
  launch.num_blocks = blocks;
  launch.unit = unit;
  if (const Status status = device_.Submit(launch); !status.ok()) {
    free_launches_.push_back(slot);
    if (status.code() == StatusCode::kResourceExhausted && in_flight() > 0) {
      blocked_.Set(BlockedBit(unit), true);
      return false;
    }
    if (status.code() == StatusCode::kUnavailable) {
      LoseDevice(status, /*events_end=*/false);
    } else {
      Kill(job, status.WithContext(Where(job, kernel)));
      Settle(job);
    }
    return false;
  }
  record.job = job.slot;
  record.kernel = kernel;
  record.first_block = first;
  record.blocks = blocks;
  record.done = 0;
  record.starts = record.ends = ReportWindow();
  record.unit = unit;
  record.at = now_;
  record.ready = 0;
  if (job.first_launch == TimePoint{}) job.first_launch = now_;
  if (Traces(job)) TraceDecision(job, record);
  record.lost = false;
  // Behind others it may have to wait after all.
  record.started = !at_once || packed_->waiting() > 0 || !info_.reports_block_starts;
  (from_front ? k.front : k.back) = from_front ? first + blocks : first;
  if (units_) {
    const double expected_ns = std::min(blocks * BlockNs(job, kernel), 1e15);
    units_->Add(unit, slot, Duration(static_cast<int64_t>(expected_ns)), now_);
    uint32_t& last = unit_job_[unit.value()];
    if (last != job.slot) {
      if (last != kNone && (ready_.Contains(last) || wider_.Contains(last)) &&
          jobs_.at(last).state == JobState::kStarted) {
        ++stats_.preemptions;
      }
      last = job.slot;
    }
  } else {
    packed_->Add(slot, job.context.program->kernels[kernel].resources, blocks, at_once);
  }
  record.block_ns = BlockNs(job, kernel) * k.cost.share;
  Charge(job, blocks * record.block_ns);
  job.issued_ns += blocks * k.cost.alone_ns();
  job.view.last_turn = next_turn_++;
  if (job.in_flight++ == 0) ++running_jobs_;
  ++stats_.decisions;
  ++stats_.launches;
  if (k.unissued() == 0) std::erase(cursor.ready, kernel);
  if (cursor.ready.empty()) {
    Unqueue(job);
  } else {
    Requeue(job);
  }
  return true;
}

}  // namespace plexus
