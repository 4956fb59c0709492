// What is recorded of jobs, launches and decisions (docs/tracing.md).
#include <algorithm>

#include "sched/dispatcher_core.h"

namespace plexus {

// A decision is recorded with the blocks that it led to: here it is only kept.
void Dispatcher::Core::TraceDecision(const JobRecord& job, LaunchRecord& launch) {
  launch.key = policy_->Key(job.view, now_);
  launch.remaining = job.view.remaining_time;
  launch.ready = num_ready();
}

void Dispatcher::Core::TraceBlocks(JobRecord& job, const LaunchRecord& launch,
                                   const DeviceEvent& event) {
  TraceEvent span;
  span.kind = TraceKind::kBlocks;
  span.device = trace_device_;
  span.label = TraceNames(job);
  span.name = span.label + 1 + launch.kernel;
  span.end = event.at;
  span.begin = launch.at;
  if (event.device_time.count() > 0) {
    // A unit runs blocks in turn; those that the hardware placed together began together.
    const bool in_turn = launch.unit.valid() || event.blocks == 0;
    span.begin = event.at - event.device_time / (in_turn ? 1 : event.blocks);
  }
  span.begin = std::min(span.begin, span.end);
  span.job = job.view.id.value();
  span.request = job.request.value();
  if (launch.unit.valid()) span.unit = launch.unit.value();
  span.tenant = job.view.tenant.value();
  // A device that reports in parts does not say which of the launch's blocks they were: counted up.
  span.first_block = launch.first_block + launch.done;
  span.blocks = std::min(event.blocks, launch.blocks - launch.done);
  span.mark = launch.at;
  if (launch.done == 0 && launch.ready > 0) {
    span.key = launch.key;
    span.remaining_ns = launch.remaining.count();
    span.ready = launch.ready;
  }
  trace_->Record(span);
}

void Dispatcher::Core::TraceJob(JobRecord& job) {
  TraceEvent span;
  span.kind = TraceKind::kJob;
  span.code = static_cast<uint8_t>(job.end_status.code());
  span.device = trace_device_;
  span.name = TraceNames(job);
  span.begin = job.submitted_at;
  span.end = std::max(now_, job.submitted_at);
  span.job = job.view.id.value();
  span.request = job.request.value();
  span.tenant = job.view.tenant.value();
  span.mark = job.first_launch;
  trace_->Record(span);
}

uint32_t Dispatcher::Core::TraceNames(JobRecord& job) {
  if (job.trace_names == 0) {
    const Program& program = *job.context.program;
    job.trace_names = trace_->NamesOf(job.context.program, 1 + program.kernels.size(),
                                      [&program](size_t i) -> std::string_view {
                                        return i == 0 ? program.name : program.kernels[i - 1].name;
                                      });
  }
  return job.trace_names;
}

}  // namespace plexus
