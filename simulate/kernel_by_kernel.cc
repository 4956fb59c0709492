// kernel-by-kernel: every job has at most one kernel at the device; the next goes out when it has
// ended, in the order in which kernels become ready: round robin among the jobs. Nothing that waits
// in a hardware queue waits for a predecessor.
#include "simulate/direct_run.h"

namespace plexus {
namespace {

class KernelByKernelRun : public DirectRun {
 public:
  KernelByKernelRun(const Workload& workload, const std::vector<Arrival>& arrivals,
                    const RunHooks& hooks)
      : DirectRun(workload, arrivals, hooks),
        pool_(workload.system.streams),
        streams_(arrivals.size()) {}

 protected:
  void OnArrival(uint32_t job) override {
    streams_[job] = pool_.Take();
    Issue(TagOf(job, 0));
  }
  uint32_t StreamOf(uint32_t job) override { return streams_[job]; }
  bool instrumented() const override { return true; }
  bool Interesting(const SimGpuEvent& event) const override {
    return event.kind == SimGpuEvent::Kind::kBlocksFinished;
  }
  void OnReport(const SimGpuEvent& event) override {
    if (!event.last) return;
    const uint32_t job = JobOfTag(event.tag);
    const uint32_t next = KernelOf(event.tag) + 1;
    if (next < num_kernels(job)) {
      Issue(TagOf(job, next));
    } else {
      pool_.Return(streams_[job]);
      FinishJob(job);
    }
  }

 private:
  StreamPool pool_;
  std::vector<uint32_t> streams_;
};

}  // namespace

std::unique_ptr<SystemRun> MakeKernelByKernel(const Workload& workload,
                                              const std::vector<Arrival>& arrivals,
                                              const RunHooks& hooks) {
  return std::make_unique<KernelByKernelRun>(workload, arrivals, hooks);
}

}  // namespace plexus
