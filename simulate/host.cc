#include "simulate/host.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace plexus {

SystemRun::SystemRun(const Workload& workload, const std::vector<Arrival>& arrivals,
                     const RunHooks& hooks)
    : workload_(workload), arrivals_(arrivals), hooks_(hooks), done_(arrivals.size()) {
  jobs_.reserve(arrivals.size());
  for (const Arrival& arrival : arrivals) jobs_.push_back({arrival.model, arrival.at, {}});
}

void SystemRun::Post(Work work) { inbox_.push_back({work, false}); }

void SystemRun::Issue(Call call) {
  host_free_ = std::max(host_free_, now()) + workload_.system.host.launch;
  calls_.push_back({host_free_, next_sequence_++, call});
}

void SystemRun::IssueAt(Call call, TimePoint at) {
  others_.push_back({at, next_sequence_++, call});
  std::push_heap(others_.begin(), others_.end(), std::greater<>());
}

void SystemRun::FinishJob(uint32_t job) {
  if (done_[job]) return Fail(InternalError("job " + std::to_string(job) + " ended twice"));
  done_[job] = true;
  jobs_[job].done = std::max(host_free_, now());
  ++jobs_done_;
  if (trace() != nullptr) TraceJob(job);
  if (hooks_.progress && jobs_done_ % 64 == 0) hooks_.progress(jobs_done_);
}

void SystemRun::Fail(Status status) {
  if (error_.ok()) error_ = std::move(status);
}

// The next thing that happens anywhere. At one time: calls first, then what the host takes in, then
// the device, then arrivals.
bool SystemRun::StepOnce() {
  constexpr TimePoint kNever = TimePoint::max();
  const TimePoint call_at = calls_.empty() ? kNever : calls_.front().at;
  const TimePoint other_at = others_.empty() ? kNever : others_.front().at;
  const TimePoint host_at = inbox_.empty() ? kNever : std::max(host_free_, now());
  const TimePoint device_at = DeviceNextAt();
  const TimePoint arrival_at =
      next_arrival_ == arrivals_.size() ? kNever : arrivals_[next_arrival_].at;
  const TimePoint next = std::min({call_at, other_at, host_at, device_at, arrival_at});
  if (next == kNever) return false;
  if (next == device_at && next < std::min({call_at, other_at, host_at})) {
    const bool went_on = StepDevice();
    if (trace() != nullptr) TraceBlocks();
    return went_on;
  }
  clock_.AdvanceTo(next);
  if (next == call_at) {
    const Call call = calls_.front().call;
    calls_.pop_front();
    OnCall(call);
  } else if (next == other_at) {
    std::pop_heap(others_.begin(), others_.end(), std::greater<>());
    const Call call = others_.back().call;
    others_.pop_back();
    OnCall(call);
  } else if (next == host_at) {
    const Item item = inbox_.front();
    inbox_.pop_front();
    const HostCosts& host = workload_.system.host;
    host_free_ = next + (item.is_arrival ? host.arrival : host.notification);
    if (item.is_arrival) {
      OnArrival(static_cast<uint32_t>(item.work));
    } else {
      OnWork(item.work);
    }
  } else {
    inbox_.push_back({next_arrival_++, true});
  }
  return true;
}

Result<SimulationResult> SystemRun::Run() {
  PLEXUS_RETURN_IF_ERROR(Init());
  if (trace() != nullptr) {
    first_launch_.resize(jobs_.size());
    trace_device_ = AddTraceDevice();
  }
  while (jobs_done_ < jobs_.size()) {
    const bool went_on = StepOnce();
    PLEXUS_RETURN_IF_ERROR(error_);
    if (!went_on) {
      return InternalError(workload_.system.name + ": stands still with " +
                           std::to_string(jobs_.size() - jobs_done_) + " jobs left");
    }
  }
  // What is on its way to the host still arrives.
  while (StepOnce()) PLEXUS_RETURN_IF_ERROR(error_);
  PLEXUS_RETURN_IF_ERROR(error_);
  SimulationResult result;
  result.end = TimePoint{};
  for (const JobOutcome& outcome : jobs_) result.end = std::max(result.end, outcome.done);
  result.busy = gpu().stats().busy;
  result.blocks = gpu().stats().blocks_finished - num_markers();
  result.launches = gpu().stats().launches - num_markers();
  result.jobs = std::move(jobs_);
  return result;
}

// --- Traces

uint16_t SystemRun::AddTraceDevice() {
  return trace()->AddDevice("simulated " + workload_.device.name, "SM");
}

uint32_t TraceNames(TraceRecorder& trace, const ProgramPtr& program) {
  return trace.NamesOf(program, 1 + program->kernels.size(), [&](size_t i) -> std::string_view {
    return i == 0 ? program->name : program->kernels[i - 1].name;
  });
}

void SystemRun::NoteLaunch(uint32_t job) {
  if (trace() != nullptr && first_launch_[job] == TimePoint{}) first_launch_[job] = now();
}

// Blocks that have ended since the last time, where they ran.
void SystemRun::TraceBlocks() {
  for (; spans_traced_ < gpu().spans().size(); ++spans_traced_) {
    const SimGpuSpan& span = gpu().spans()[spans_traced_];
    TraceEvent event;
    event.kind = TraceKind::kBlocks;
    event.device = trace_device_;
    event.begin = event.mark = span.begin;
    event.end = span.end;
    event.unit = span.sm;
    event.first_block = span.first_block;
    event.blocks = span.blocks;
    if (Describe(span.tag, &event)) trace()->Record(event);
  }
}

void SystemRun::TraceJob(uint32_t job) {
  const SimModel& model = model_of(job);
  TraceEvent event;
  event.begin = jobs_[job].arrival;
  event.end = jobs_[job].done;
  event.name = trace()->Intern(model.name);
  event.request = job;
  event.tenant = model.tenant;
  if (!traces_jobs()) {
    event.kind = TraceKind::kJob;
    event.device = trace_device_;
    event.job = job;
    event.mark = first_launch_[job];
    trace()->Record(event);
  }
  event.kind = TraceKind::kRequest;
  event.device = 0;
  event.job = kNoTraceId;
  event.mark = TimePoint{};
  if (model.tenant < workload_.tenants.size() && !workload_.tenants[model.tenant].name.empty()) {
    event.label = trace()->Intern(workload_.tenants[model.tenant].name);
  }
  trace()->Record(event);
}

}  // namespace plexus
