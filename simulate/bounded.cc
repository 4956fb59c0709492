// bounded: an uninstrumented scheduler. It sees the ends of kernels only, keeps at most K launches
// at the device, at most a few of one job, and gives every free place to the first job by SRPT or
// by deadline (XSched, OSDI 2025, is the model). A job's launches follow each other on its stream,
// so nothing stands between two kernels.
#include <set>

#include "simulate/direct_run.h"

namespace plexus {
namespace {

// Without a deadline of its own a job should be done within this many times its service time.
constexpr int kDeadlineFactor = 8;

class BoundedRun : public DirectRun {
 public:
  BoundedRun(const Workload& workload, const std::vector<Arrival>& arrivals, const RunHooks& hooks)
      : DirectRun(workload, arrivals, hooks),
        by_deadline_(workload.system.policy == "edf"),
        pool_(workload.system.streams),
        state_(arrivals.size()) {
    for (const SimModel& model : workload.models) {
      // What is left before each kernel, from the alone time: as well known as it can be.
      const double scale = static_cast<double>(model.alone_time.count()) /
                           static_cast<double>(model.program->EstimatedTime().count());
      std::vector<double> left(model.program->kernels.size() + 1);
      for (size_t k = left.size() - 1; k-- > 0;) {
        const Kernel& kernel = model.program->kernels[k];
        left[k] = left[k + 1] +
                  scale * kernel.grid * static_cast<double>(kernel.estimated_block_time.count());
      }
      left_.push_back(std::move(left));
    }
  }

 protected:
  void OnArrival(uint32_t job) override {
    state_[job].stream = pool_.Take();
    ready_.insert({KeyOf(job), job});
    Pump();
  }
  uint32_t StreamOf(uint32_t job) override { return state_[job].stream; }
  bool instrumented() const override { return false; }
  void OnReport(const SimGpuEvent& event) override {
    const uint32_t job = JobOfTag(event.tag);
    State& state = state_[job];
    --in_flight_;
    // A job that stood at its own bound may launch again.
    if (state.next < num_kernels(job) && state.in_flight == workload_.system.job_depth) {
      --state.in_flight;
      ready_.insert({KeyOf(job), job});
    } else {
      --state.in_flight;
    }
    if (KernelOf(event.tag) + 1 == num_kernels(job)) {
      pool_.Return(state.stream);
      FinishJob(job);
    }
    Pump();
  }

 private:
  struct State {
    uint32_t stream = 0;
    uint32_t next = 0;  // kernel
    uint32_t in_flight = 0;
  };
  double KeyOf(uint32_t job) const {
    const uint32_t m = this->job(job).model;
    if (!by_deadline_) return left_[m][state_[job].next];
    const SimModel& model = workload_.models[m];
    const Duration within =
        model.deadline.count() > 0 ? model.deadline : kDeadlineFactor * model.alone_time;
    return static_cast<double>((this->job(job).arrival + within).time_since_epoch().count());
  }
  void Pump() {
    while (in_flight_ < workload_.system.in_flight && !ready_.empty()) {
      const uint32_t job = ready_.begin()->second;
      ready_.erase(ready_.begin());
      State& state = state_[job];
      Issue(TagOf(job, state.next++));
      ++state.in_flight;
      ++in_flight_;
      if (state.next < num_kernels(job) && state.in_flight < workload_.system.job_depth) {
        ready_.insert({KeyOf(job), job});
      }
    }
  }

  const bool by_deadline_;
  StreamPool pool_;
  std::vector<State> state_;
  std::vector<std::vector<double>> left_;        // model × kernel
  std::set<std::pair<double, uint32_t>> ready_;  // could launch one more kernel
  uint32_t in_flight_ = 0;
};

}  // namespace

std::unique_ptr<SystemRun> MakeBounded(const Workload& workload,
                                       const std::vector<Arrival>& arrivals,
                                       const RunHooks& hooks) {
  return std::make_unique<BoundedRun>(workload, arrivals, hooks);
}

}  // namespace plexus
