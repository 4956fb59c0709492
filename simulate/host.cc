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
  if (next == device_at && next < std::min({call_at, other_at, host_at})) return StepDevice();
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
  if (hooks_.trace != nullptr) TraceSpans();
  result.jobs = std::move(jobs_);
  return result;
}

void SystemRun::TraceSpans() {
  TraceRecorder& trace = *hooks_.trace;
  const uint16_t device = trace.AddDevice("simulated " + workload_.device.name, "SM");
  std::vector<uint32_t> names;
  for (const SimModel& model : workload_.models) names.push_back(trace.Intern(model.name));
  for (const SimGpuSpan& span : gpu().spans()) {
    const uint32_t job = JobOfTag(span.tag);
    TraceEvent event;
    event.kind = TraceKind::kBlocks;
    event.device = device;
    event.name = names[jobs_[job].model];
    event.begin = span.begin;
    event.end = span.end;
    event.job = job;
    event.unit = span.sm;
    event.first_block = span.first_block;
    event.blocks = span.blocks;
    trace.Record(event);
  }
  for (uint32_t j = 0; j < jobs_.size(); ++j) {
    TraceEvent event;
    event.kind = TraceKind::kJob;
    event.device = device;
    event.name = names[jobs_[j].model];
    event.begin = jobs_[j].arrival;
    event.end = jobs_[j].done;
    event.job = j;
    event.tenant = workload_.models[jobs_[j].model].tenant;
    trace.Record(event);
  }
}

}  // namespace plexus
