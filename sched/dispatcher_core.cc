// What happens to jobs: starting, events, ends.
#include "sched/dispatcher_core.h"

#include <algorithm>
#include <utility>

namespace plexus {

Dispatcher::Core::Core(Device& device, std::unique_ptr<Policy> policy, const Clock& clock,
                       ProfileStore* profiles, TraceRecorder* trace, DispatcherOptions options)
    : device_(device),
      info_(device.info()),
      clock_(clock),
      trace_(trace),
      options_(options),
      profiles_(profiles != nullptr ? profiles : &own_profiles_),
      policy_(std::move(policy)),
      shares_(options.fair_burst),
      gap_ns_(static_cast<double>(info_.launch_latency.count())) {
  PLEXUS_CHECK(policy_ != nullptr && info_.units > 0);
  if (trace_ != nullptr) {
    trace_device_ =
        trace_->AddDevice(info_.name, info_.unit_addressed ? info_.kind + " worker" : "SM");
  }
  shares_.SetThreshold(policy_->fair_threshold());
  uint32_t launches = options_.max_launches;
  if (info_.unit_addressed) {
    units_.emplace(info_.units, info_.queue_depth);
    launches = info_.units * (1 + info_.queue_depth);
  } else {
    packed_.emplace(info_.units, info_.unit_limits, launches);
  }
  launches_.resize(launches);
  free_launches_.reserve(launches);
  for (uint32_t i = launches; i-- > 0;) free_launches_.push_back(i);
  blocked_.Resize(info_.units);
  turns_.reserve(info_.units);
  unit_job_.assign(info_.units, kNone);
}

Dispatcher::Core::~Core() = default;

Status Dispatcher::Core::CheckSpec(const JobSpec& spec) const {
  if (spec.program == nullptr) return InvalidArgumentError("job without a program");
  const Program& program = *spec.program;
  const auto error = [&](const std::string& what) {
    return InvalidArgumentError("program " + program.name + ": " + what);
  };
  if (spec.listener == nullptr && spec.place == nullptr) return error("job without a listener");
  if (const Status tenant = CheckTenant(spec.attributes.tenant); !tenant.ok()) {
    return error(tenant.message());
  }
  for (const Payer& payer : spec.payers) {
    if (const Status tenant = CheckTenant(payer.tenant); !tenant.ok()) {
      return error(tenant.message());
    }
    if (payer.rows == 0) return error("a tenant pays for no rows");
  }
  if (spec.rows == 0) return error("job of no rows");
  if (program.device_kind != info_.kind) {
    return error("compiled for device '" + program.device_kind + "', this one is '" + info_.kind +
                 "'");
  }
  if (spec.place == nullptr && (spec.buffers.inputs.size() != program.inputs.size() ||
                                spec.buffers.outputs.size() != program.outputs.size())) {
    return error("job brings " + std::to_string(spec.buffers.inputs.size()) + " inputs and " +
                 std::to_string(spec.buffers.outputs.size()) + " outputs, needs " +
                 std::to_string(program.inputs.size()) + " and " +
                 std::to_string(program.outputs.size()));
  }
  for (const Kernel& kernel : program.kernels) {
    if (kernel.grid == 0 || kernel.estimated_block_time <= Duration{0}) {
      return error("kernel " + kernel.name + " has no blocks or no time estimate");
    }
  }
  if (program.arena_bytes > info_.arena_budget_bytes) {
    return ResourceExhaustedError("program " + program.name + ": needs an arena of " +
                                  std::to_string(program.arena_bytes) + " bytes, the device has " +
                                  std::to_string(info_.arena_budget_bytes));
  }
  return OkStatus();
}

Status Dispatcher::Core::CheckTenant(TenantId tenant) const {
  if (tenant.valid() && tenant.value() < options_.max_tenants) return OkStatus();
  return InvalidArgumentError("no such tenant: ids are 0 to " +
                              std::to_string(options_.max_tenants - 1));
}

void Dispatcher::Core::EnsureTenant(uint32_t tenant) {
  while (tenants_.size() <= tenant) {
    tenants_.emplace_back(in_tenant_ready_, in_tenant_wider_, in_tenant_waiters_);
  }
  shares_.Reserve(tenant + 1);
}

// --- Expected times

// Blocks of the kernel that the empty device runs at once; at least 1.
uint32_t Dispatcher::Core::Capacity(const Kernel& kernel) const {
  return units_ ? info_.units : std::max(1u, packed_->Capacity(kernel.resources));
}

BlockCost Dispatcher::Core::CostOf(const Kernel& kernel, const TimeEstimate& learned) const {
  const uint32_t capacity = Capacity(kernel);
  BlockCost cost;
  cost.block_ns = static_cast<float>(BlockNs(kernel, learned));
  cost.share = static_cast<float>(info_.units) / static_cast<float>(capacity);
  cost.width = static_cast<float>(std::min(kernel.grid, capacity));
  return cost;
}

Dispatcher::Core::Times Dispatcher::Core::TimesOf(const Program& program,
                                                  const ProgramProfile& profile) const {
  Times times;
  for (size_t k = 0; k < program.kernels.size(); ++k) {
    const Kernel& kernel = program.kernels[k];
    times.Add(CostOf(kernel, profile.kernels[k]), kernel.grid);
    times.guessed = times.guessed || profile.kernels[k].samples() == 0;
  }
  return times;
}

// --- Ready, start, end

void Dispatcher::Core::Requeue(JobRecord& job) {
  job.view.remaining_time = KeyTime(job.work_ns, job.alone_ns) + job.remaining_path;
  const PolicyKey key = policy_->Key(job.view, now_);
  const bool alone = job.in_flight == 0;
  (alone ? wider_ : ready_).Remove(job.slot);
  (alone ? ready_ : wider_).Set(job.slot, key, job.view.sequence);
  if (!shares_.on()) return;
  Tenant& tenant = tenants_[job.view.tenant.value()];
  (alone ? tenant.wider : tenant.ready).Remove(job.slot);
  (alone ? tenant.ready : tenant.wider).Set(job.slot, key, job.view.sequence);
  shares_.SetRunnable(job.view.tenant.value(), true);
}

// Where it waits, by its key of now.
void Dispatcher::Core::Reorder(JobRecord& job) {
  if (waiters_.Contains(job.slot)) {
    StopWaiting(job);
    Wait(job);
  } else if (ready_.Contains(job.slot) || wider_.Contains(job.slot)) {
    Requeue(job);
  }
}

void Dispatcher::Core::Unqueue(JobRecord& job) {
  ready_.Remove(job.slot);
  wider_.Remove(job.slot);
  if (shares_.on()) UnqueueWithTenant(job);
}

void Dispatcher::Core::UnqueueWithTenant(JobRecord& job) {
  Tenant& tenant = tenants_[job.view.tenant.value()];
  tenant.ready.Remove(job.slot);
  tenant.wider.Remove(job.slot);
  if (tenant.ready.empty() && tenant.wider.empty()) {
    shares_.SetRunnable(job.view.tenant.value(), false);
  }
}

void Dispatcher::Core::Settle(JobRecord& job) {
  if (job.state != JobState::kWaiting && job.state != JobState::kStarted) return;
  if (job.dying) {
    if (job.in_flight == job.lost) End(job, std::move(job.end_status));
    return;
  }
  if (job.state == JobState::kWaiting) return;  // stays where it is
  if (job.cursor->kernels_left == 0) {
    End(job, OkStatus());
  } else if (!job.cursor->ready.empty()) {
    Requeue(job);
  } else {
    Unqueue(job);
    if (job.in_flight == 0) {
      End(job, InternalError("program " + job.context.program->name +
                             ": its kernels wait for each other"));
    }
  }
}

bool Dispatcher::Core::Start(JobRecord& job) {
  const Program& program = *job.context.program;
  if (program.arena_bytes > 0 && !TakeArena(job)) return false;
  job.cursor = jobs_.TakeCursor();
  JobCursor& cursor = *job.cursor;
  cursor.kernels.assign(program.kernels.size(), KernelCursor{});
  cursor.ready.clear();
  cursor.kernels_left = static_cast<uint32_t>(program.kernels.size());
  Times left;
  for (uint32_t k = cursor.kernels_left; k-- > 0;) {
    const Kernel& kernel = program.kernels[k];
    KernelCursor& at = cursor.kernels[k];
    at.dependencies_left = kernel.dependencies;
    at.back = kernel.grid;
    at.cost = CostOf(kernel, job.profile->kernels[k]);
    left.Add(at.cost, kernel.grid);
    if (kernel.dependencies == 0) cursor.ready.push_back(k);
  }
  job.work_ns = left.work_ns;
  job.alone_ns = left.alone_ns;
  job.state = JobState::kStarted;
  // There may be room for the next one, too.
  if (job.holds_arena) WakeWaiter();
  if (cursor.ready.empty()) {
    Settle(job);  // nothing can ever run: ends
    return false;
  }
  return true;
}

void Dispatcher::Core::Kill(JobRecord& job, Status status) {
  if (job.dying) return;
  job.dying = true;
  job.end_status = std::move(status);
  Unqueue(job);
  StopWaiting(job);
  timers_.Remove(job.slot);
}

void Dispatcher::Core::End(JobRecord& job, Status status) {
  Unqueue(job);
  StopWaiting(job);
  ForgetTurn(job);
  timers_.Remove(job.slot);
  if (job.place != nullptr) ++stats_.jobs_submitted;
  if (status.ok()) {
    ++stats_.jobs_done;
  } else if (job.cancelled) {
    ++stats_.jobs_cancelled;
  } else {
    ++stats_.jobs_failed;
  }
  job.end_status = std::move(status);
  if (Traces(job)) TraceJob(job);
  job.state = JobState::kEnded;
  job.dying = true;
  jobs_.ReturnCursor(std::move(job.cursor));
  if (job.holds_arena) {
    --arenas_held_;
    job.holds_arena = false;
    // A launch that never came back may still write to it.
    if (job.lost == 0) job.context.arena.reset();
  }
  job.next = kNone;
  if (ended_last_ == kNone) {
    ended_first_ = job.slot;
  } else {
    jobs_.at(ended_last_).next = job.slot;
  }
  ended_last_ = job.slot;
  ++ended_;
  LeaveTenant(job);
  WakeWaiter();
}

void Dispatcher::Core::LeaveTenant(const JobRecord& job) {
  const uint32_t tenant = job.view.tenant.value();
  if (--tenants_[tenant].jobs == 0) shares_.Leave(tenant);
}

// --- Events

void Dispatcher::Core::Handle(const DeviceEvent& event) {
  now_ = std::max(now_, event.at);
  if (event.kind == DeviceEvent::Kind::kDeviceLost) {
    LoseDevice(event.status, /*events_end=*/true);
    return;
  }
  const uint32_t slot = static_cast<uint32_t>(event.launch.value());
  const uint32_t generation = static_cast<uint32_t>(event.launch.value() >> 32);
  if (slot >= launches_.size() || launches_[slot].job == kNone ||
      launches_[slot].generation != generation) {
    ++stats_.events_ignored;
    return;
  }
  LaunchRecord& launch = launches_[slot];
  if (!IsNew(launch, event)) {
    ++stats_.events_ignored;
    return;
  }
  const bool over =
      event.kind == DeviceEvent::Kind::kFault || event.kind == DeviceEvent::Kind::kBlocksFinished;
  if (!over) {
    if (event.kind == DeviceEvent::Kind::kBlocksStarted && !launch.lost) {
      if (!launch.started) LearnGap(event.at - launch.at);
      launch.started = true;
      if (packed_) packed_->Start(slot, event.blocks);
    }
    return;
  }
  if (launch.lost) {
    launch.done += std::min(event.blocks, launch.blocks - launch.done);
    if (event.kind != DeviceEvent::Kind::kFault && launch.done < launch.blocks) return;
    // It came back after all: its unit can be used.
    if (launch.unit.valid()) blocked_.Set(launch.unit.value(), false);
    ForgetLost(slot);
    return;
  }
  blocked_.Set(BlockedBit(launch.unit), false);
  if (units_) {
    // A unit runs its launches in order: older ones are over, and their events got lost.
    while (units_->oldest(launch.unit) != slot) {
      const uint32_t older = units_->oldest(launch.unit);
      ++stats_.launches_lost;
      DeviceEvent lost;
      lost.kind = DeviceEvent::Kind::kBlocksFinished;
      lost.blocks = launches_[older].blocks - launches_[older].done;
      lost.at = event.at;
      HandleLaunchOver(older, lost);
    }
  }
  HandleLaunchOver(slot, event);
}

// Whether this report of the launch has not come before. One with a number that the launch cannot
// have is none of its.
bool Dispatcher::Core::IsNew(LaunchRecord& launch, const DeviceEvent& event) {
  switch (event.kind) {
    case DeviceEvent::Kind::kBlocksStarted:
      return event.number < launch.blocks && launch.starts.Take(event.number);
    case DeviceEvent::Kind::kBlocksFinished:
      return event.number < launch.blocks && launch.ends.Take(event.number);
    default:
      return true;  // ends the launch, or says nothing of its blocks
  }
}

// Weight 1/8; a single delay counts for no more than eight usual ones.
void Dispatcher::Core::LearnGap(Duration gap) {
  const double most = 8 * std::max(gap_ns_, 1000.0);
  gap_ns_ += (std::clamp(static_cast<double>(gap.count()), 0.0, most) - gap_ns_) / 8;
}

void Dispatcher::Core::HandleLaunchOver(uint32_t slot, const DeviceEvent& event) {
  LaunchRecord& launch = launches_[slot];
  JobRecord& job = jobs_.at(launch.job);
  if (Traces(job)) TraceBlocks(job, launch, event);
  if (event.kind == DeviceEvent::Kind::kFault) {
    const Status status = event.status.ok() ? InternalError("fault") : event.status;
    if (!job.dying) Kill(job, status.WithContext(Where(job, launch.kernel)));
    if (packed_) packed_->Remove(slot, launch.blocks - launch.done);
    ForgetLaunch(slot, event.at);
  } else {
    const uint32_t blocks = std::min(event.blocks, launch.blocks - launch.done);
    if (blocks != event.blocks || blocks == 0) ++stats_.events_ignored;
    if (blocks == 0) return;
    if (packed_) packed_->Remove(slot, blocks);
    FinishBlocks(slot, blocks, event.device_time);
    if (launch.done == launch.blocks) ForgetLaunch(slot, event.at);
  }
  Settle(job);
}

void Dispatcher::Core::FinishBlocks(uint32_t slot, uint32_t blocks, Duration device_time) {
  LaunchRecord& launch = launches_[slot];
  JobRecord& job = jobs_.at(launch.job);
  launch.done += blocks;
  stats_.blocks += blocks;
  stats_.busy += device_time;
  job.view.attained_time += device_time;
  KernelCursor& kernel = job.cursor->kernels[launch.kernel];
  const double alone_ns = blocks * kernel.cost.alone_ns();
  job.work_ns = std::max(0.0, job.work_ns - blocks * kernel.cost.work_ns());
  job.alone_ns = std::max(0.0, job.alone_ns - alone_ns);
  job.issued_ns = std::max(0.0, job.issued_ns - alone_ns);
  const double charged_ns = blocks * launch.block_ns;
  double served_ns = charged_ns;
  if (device_time.count() > 0) {
    job.profile->kernels[launch.kernel].Add(static_cast<double>(device_time.count()) / blocks);
    served_ns = static_cast<double>(device_time.count()) * kernel.cost.share;
    Charge(job, served_ns - charged_ns);
  }
  job.served_ns += served_ns;
  ForEachPayer(
      job, [&](uint32_t tenant, double part) { tenants_[tenant].served_ns += part * served_ns; });
  if (launch.unit.valid()) job.last_unit = launch.unit.value();
  kernel.done += blocks;
  if (kernel.done == job.context.program->kernels[launch.kernel].grid) {
    FinishKernel(job, launch.kernel, job.last_unit);
  }
}

void Dispatcher::Core::FinishKernel(JobRecord& job, uint32_t kernel, uint32_t unit) {
  JobCursor& cursor = *job.cursor;
  --cursor.kernels_left;
  for (KernelId next : job.context.program->kernels[kernel].successors) {
    if (next.value() >= cursor.kernels.size()) continue;
    KernelCursor& successor = cursor.kernels[next.value()];
    if (successor.dependencies_left == 0) continue;
    if (--successor.dependencies_left > 0) continue;
    successor.last_unit = unit;
    cursor.ready.push_back(next.value());
  }
}

void Dispatcher::Core::ForgetLaunch(uint32_t slot, TimePoint now) {
  LaunchRecord& launch = launches_[slot];
  if (units_) units_->Remove(launch.unit, slot, now);
  JobRecord& job = jobs_.at(launch.job);
  if (--job.in_flight == job.lost) --running_jobs_;
  launch.job = kNone;
  free_launches_.push_back(slot);
}

// A launch that had been given up is over for certain: its job's memory is safe now.
void Dispatcher::Core::ForgetLost(uint32_t slot) {
  LaunchRecord& launch = launches_[slot];
  JobRecord& job = jobs_.at(launch.job);
  launch.job = kNone;
  free_launches_.push_back(slot);
  --job.in_flight;
  if (--job.lost > 0 || !job.delivered) return;
  job.context.buffers = JobBuffers{};
  --ended_;
  jobs_.Free(job);
}

// --- Words for messages

std::string Dispatcher::Core::Where(const JobRecord& job, uint32_t kernel) const {
  const Program& program = *job.context.program;
  return "program " + program.name + ": kernel " + program.kernels[kernel].name;
}

}  // namespace plexus
