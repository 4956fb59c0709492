// SystemRun: one run of one system; the host in simulated time, and the loop around it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "simulate/system.h"

namespace plexus {

// A host thread takes in arrivals and reports one after the other; each costs time, and so does
// every launch call that follows from it (HostCosts). While it is busy, work queues up. Derived
// classes decide. Thread-compatible, on a manual clock.
class SystemRun {
 public:
  SystemRun(const Workload& workload, const std::vector<Arrival>& arrivals, const RunHooks& hooks);
  virtual ~SystemRun() = default;

  Result<SimulationResult> Run();

 protected:
  // Numbers are the derived class's own.
  using Work = uint64_t;
  using Call = uint64_t;

  // --- What a system does
  virtual Status Init() = 0;  // before anything else
  virtual void OnArrival(uint32_t job) = 0;
  virtual void OnWork(Work work) = 0;
  virtual void OnCall(Call call) = 0;  // the call reaches the device now
  virtual SimGpu& gpu() = 0;
  virtual bool StepDevice() { return gpu().Step(); }
  virtual TimePoint DeviceNextAt() const = 0;
  // For traces: fills in what ran under this tag: names, job, request, tenant, and when it was
  // launched. False if it was nothing of the workload's.
  virtual bool Describe(uint64_t tag, TraceEvent* blocks) = 0;
  // Whether the system records jobs and launches itself; and the recorder's number of its device.
  virtual bool traces_jobs() const { return false; }
  virtual uint16_t AddTraceDevice();
  // Launches of one block that belong to no kernel; not counted.
  virtual uint32_t num_markers() const { return 0; }

  // --- What it has
  TimePoint now() const { return clock_.Now(); }
  // The host will take this in when it is free, at the cost of a notification.
  void Post(Work work);
  // From OnArrival and OnWork: made once the host has come to it, at the cost of a launch.
  void Issue(Call call);
  // A call by a thread of its own, independent of the host thread.
  void IssueAt(Call call, TimePoint at);
  void FinishJob(uint32_t job);
  void Fail(Status status);
  TraceRecorder* trace() const { return hooks_.trace; }  // null: none is taken
  // For traces of systems that do not record jobs themselves: the job launches something now.
  void NoteLaunch(uint32_t job);
  const SimModel& model_of(uint32_t job) const { return workload_.models[jobs_[job].model]; }
  const JobOutcome& job(uint32_t index) const { return jobs_[index]; }
  uint32_t num_jobs() const { return static_cast<uint32_t>(jobs_.size()); }

  const Workload& workload_;
  ManualClock clock_;

 private:
  struct Timed {
    TimePoint at;
    uint64_t sequence;
    Call call;
    bool operator>(const Timed& other) const {
      return at != other.at ? at > other.at : sequence > other.sequence;
    }
  };
  struct Item {
    Work work;
    bool is_arrival;
  };
  bool StepOnce();
  void TraceBlocks();
  void TraceJob(uint32_t job);

  const std::vector<Arrival>& arrivals_;
  const RunHooks& hooks_;
  std::vector<JobOutcome> jobs_;
  std::vector<bool> done_;
  uint32_t next_arrival_ = 0, jobs_done_ = 0;
  std::deque<Item> inbox_;
  TimePoint host_free_{};
  std::deque<Timed> calls_;    // of the host thread, in order
  std::vector<Timed> others_;  // heap: of threads of their own
  uint64_t next_sequence_ = 0;
  Status error_;
  // Only while a trace is taken.
  uint16_t trace_device_ = 0;
  size_t spans_traced_ = 0;
  std::vector<TimePoint> first_launch_;  // by job
};

// The recorder's ids of a program's names: its own, and from the next on those of its kernels.
uint32_t TraceNames(TraceRecorder& trace, const ProgramPtr& program);

// The systems; each in its own file.
std::unique_ptr<SystemRun> MakeSubmitAll(const Workload& workload,
                                         const std::vector<Arrival>& arrivals,
                                         const RunHooks& hooks);
std::unique_ptr<SystemRun> MakeKernelByKernel(const Workload& workload,
                                              const std::vector<Arrival>& arrivals,
                                              const RunHooks& hooks);
std::unique_ptr<SystemRun> MakePaella(const Workload& workload,
                                      const std::vector<Arrival>& arrivals, const RunHooks& hooks);
std::unique_ptr<SystemRun> MakeBounded(const Workload& workload,
                                       const std::vector<Arrival>& arrivals, const RunHooks& hooks);
std::unique_ptr<SystemRun> MakePlexus(const Workload& workload,
                                      const std::vector<Arrival>& arrivals, const RunHooks& hooks);

}  // namespace plexus
