// Systems that hand over every kernel of a job at once and leave the order to the hardware.
#include <algorithm>

#include "simulate/direct_run.h"

namespace plexus {
namespace {

// one-stream: all jobs on stream 0. stream-per-job: each job has a stream and a client thread that
// launches its kernels. job-by-job: a stream per job, but one dispatcher thread launches, all of
// one job's kernels before the next job's. Jobs in order of arrival. Behind a job's last kernel
// stands a marker that tells the host of its end (an event or the copy of the result, in reality):
// it waits in the hardware queue as everything does.
class SubmitAllRun : public DirectRun {
 public:
  using DirectRun::DirectRun;

 protected:
  void OnArrival(uint32_t job) override {
    const uint32_t kernels = num_kernels(job);
    const bool own_thread = workload_.system.name == "stream-per-job";
    const HostCosts& host = workload_.system.host;
    TimePoint at = std::max(now(), this->job(job).arrival + host.arrival);
    for (uint32_t k = 0; k <= kernels; ++k) {
      if (own_thread) {
        IssueAt(TagOf(job, k), at += host.launch);
      } else {
        Issue(TagOf(job, k));
      }
    }
  }
  uint32_t StreamOf(uint32_t job) override {
    return workload_.system.name == "one-stream" ? 0 : job % kMaxStreams;
  }
  bool instrumented() const override { return false; }
  bool Interesting(const SimGpuEvent& event) const override { return IsMarker(event.tag); }
  void OnReport(const SimGpuEvent& event) override { FinishJob(JobOfTag(event.tag)); }
  SimGpuLaunch LaunchOf(uint64_t tag) override {
    if (!IsMarker(tag)) return DirectRun::LaunchOf(tag);
    SimGpuLaunch marker;
    marker.tag = tag;
    marker.stream = StreamOf(JobOfTag(tag));
    marker.blocks = 1;
    marker.block_time = Duration(1);
    marker.instrumented = false;
    return marker;
  }
  uint32_t num_markers() const override { return num_jobs(); }

 private:
  bool IsMarker(uint64_t tag) const { return KernelOf(tag) == num_kernels(JobOfTag(tag)); }

  static constexpr uint32_t kMaxStreams = 1 << 22;
};

}  // namespace

std::unique_ptr<SystemRun> MakeSubmitAll(const Workload& workload,
                                         const std::vector<Arrival>& arrivals,
                                         const RunHooks& hooks) {
  return std::make_unique<SubmitAllRun>(workload, arrivals, hooks);
}

}  // namespace plexus
