// DirectRun: what systems that launch kernels on streams themselves have in common.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "simulate/host.h"

namespace plexus {

// Launches and reports go by tags: job and kernel. A job's kernels run in program order on one
// stream. Reports reach the derived class when the host takes them in.
class DirectRun : public SystemRun, public SimGpuListener {
 public:
  DirectRun(const Workload& workload, const std::vector<Arrival>& arrivals, const RunHooks& hooks)
      : SystemRun(workload, arrivals, hooks) {}

 protected:
  static constexpr uint32_t kKernelBits = 20;  // ChainProgram and CheckWorkload keep below that

  static uint64_t TagOf(uint32_t job, uint32_t kernel) {
    return uint64_t{job} << kKernelBits | kernel;
  }
  static uint32_t JobOfTag(uint64_t tag) { return static_cast<uint32_t>(tag >> kKernelBits); }
  static uint32_t KernelOf(uint64_t tag) {
    return static_cast<uint32_t>(tag & ((1u << kKernelBits) - 1));
  }
  const Kernel& kernel_of(uint64_t tag) const {
    return model_of(JobOfTag(tag)).program->kernels[KernelOf(tag)];
  }
  uint32_t num_kernels(uint32_t job) const {
    return static_cast<uint32_t>(model_of(job).program->kernels.size());
  }

  virtual uint32_t StreamOf(uint32_t job) = 0;
  virtual bool instrumented() const = 0;
  // Whether the host looks at this report at all; those it skips cost it nothing.
  virtual bool Interesting(const SimGpuEvent&) const { return true; }
  virtual void OnReport(const SimGpuEvent& event) = 0;

  Status Init() override {
    SimGpuOptions options = workload_.device;
    options.record_spans = trace() != nullptr;
    PLEXUS_ASSIGN_OR_RETURN(gpu_, SimGpu::Create(options, clock_, this));
    return OkStatus();
  }
  SimGpu& gpu() override { return *gpu_; }
  TimePoint DeviceNextAt() const override { return gpu_->NextAt(); }
  void OnGpuEvent(const SimGpuEvent& event) override {
    if (!Interesting(event)) return;
    reports_.push_back(event);
    Post(0);
  }
  void OnWork(Work) override {
    const SimGpuEvent event = reports_.front();
    reports_.pop_front();
    OnReport(event);
  }
  void OnCall(Call tag) override {
    if (trace() != nullptr) {
      NoteLaunch(JobOfTag(tag));
      called_[tag] = now();
    }
    if (Status status = gpu_->Launch(LaunchOf(tag)); !status.ok()) Fail(std::move(status));
  }
  bool Describe(uint64_t tag, TraceEvent* blocks) override {
    const uint32_t job = JobOfTag(tag);
    const ProgramPtr& program = model_of(job).program;
    if (KernelOf(tag) >= program->kernels.size()) return false;  // a marker
    blocks->label = TraceNames(*trace(), program);
    blocks->name = blocks->label + 1 + KernelOf(tag);
    blocks->job = blocks->request = job;
    blocks->tenant = model_of(job).tenant;
    blocks->mark = called_.at(tag);
    return true;
  }
  virtual SimGpuLaunch LaunchOf(uint64_t tag) {
    const Kernel& kernel = kernel_of(tag);
    SimGpuLaunch launch;
    launch.tag = tag;
    launch.stream = StreamOf(JobOfTag(tag));
    launch.blocks = kernel.grid;
    launch.resources = kernel.resources;
    launch.block_time = kernel.estimated_block_time;
    launch.instrumented = instrumented();
    return launch;
  }

 private:
  std::unique_ptr<SimGpu> gpu_;
  std::deque<SimGpuEvent> reports_;
  std::unordered_map<uint64_t, TimePoint> called_;  // by tag; only while a trace is taken
};

// Streams for the jobs of a dispatcher: one each while there are enough, shared beyond.
class StreamPool {
 public:
  explicit StreamPool(uint32_t streams) : users_(streams) {
    for (uint32_t s = streams; s-- > 0;) free_.push_back(s);
  }
  uint32_t Take() {
    uint32_t stream;
    if (free_.empty()) {
      stream = next_shared_++ % static_cast<uint32_t>(users_.size());
    } else {
      stream = free_.back();
      free_.pop_back();
    }
    ++users_[stream];
    return stream;
  }
  void Return(uint32_t stream) {
    if (--users_[stream] == 0) free_.push_back(stream);
  }

 private:
  std::vector<uint32_t> users_;  // by stream
  std::vector<uint32_t> free_;   // streams without a user
  uint32_t next_shared_ = 0;
};

}  // namespace plexus
