// plexus: the real Dispatcher, unmodified, behind the same host costs as the other systems.
#include <deque>
#include <utility>

#include "sched/dispatcher.h"
#include "simulate/host.h"
#include "simulate/segments.h"

namespace plexus {
namespace {

// Memory is not what these runs are about: arenas are only numbers.
class CountedArena : public Arena {
 public:
  explicit CountedArena(size_t size_bytes) : size_bytes_(size_bytes) {}
  size_t size_bytes() const override { return size_bytes_; }

 private:
  size_t size_bytes_;
};

// The Dispatcher's device: Submit is a launch call of the host thread, which reaches the GPU once
// the host has come to it. Every launch has a stream of its own while it is in flight, so slices of
// one kernel run side by side; the dispatcher launches nothing before what it needs has ended.
class PlexusRun : public SystemRun, public Device, public SimGpuListener, public JobListener {
 public:
  PlexusRun(const Workload& workload, const std::vector<Arrival>& arrivals, const RunHooks& hooks)
      : SystemRun(workload, arrivals, hooks) {
    const SimGpuOptions& gpu = workload.device;
    info_.kind = "sim";
    info_.name = "simulated " + gpu.name;
    info_.units = gpu.sms;
    info_.unit_limits = gpu.sm;
    info_.reports_block_starts = gpu.report_starts;
    info_.launch_latency =
        gpu.launch_latency + gpu.notification_latency + workload.system.host.launch;
    info_.arena_budget_bytes = gpu.memory_bytes;
  }

 protected:
  // --- SystemRun
  Status Init() override {
    SimGpuOptions options = workload_.device;
    options.record_spans = trace() != nullptr;
    PLEXUS_ASSIGN_OR_RETURN(gpu_, SimGpu::Create(options, clock_, this));
    PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, MakePolicy(workload_.system.policy));
    DispatcherOptions dispatcher;
    dispatcher.quantum = workload_.system.quantum;
    dispatcher.hardware_bound = workload_.system.hardware_bound;
    dispatcher.max_jobs = num_jobs();
    for (const SimModel& model : workload_.models) {
      programs_.push_back(workload_.system.in_order ? InOrderProgram(*model.program)
                                                    : model.program);
    }
    dispatcher_ = std::make_unique<Dispatcher>(*this, std::move(policy), clock_, &profiles_,
                                               trace(), dispatcher);
    for (uint32_t i = 0; i < workload_.tenants.size(); ++i) {
      PLEXUS_RETURN_IF_ERROR(
          dispatcher_->SetTenantWeight(TenantId(i), workload_.tenants[i].weight));
    }
    if (workload_.system.batching == "none" || workload_.segments.empty()) return OkStatus();
    SegmentHooks hooks;
    hooks.done = [this](uint32_t index) { FinishJob(index); };
    hooks.submitting = [this](uint32_t index) { submitting_ = index; };
    hooks.submitted = [this](JobId id, uint32_t index) { Remember(id, index); };
    hooks.wake_at = [this](uint32_t segment, TimePoint at) { IssueAt(kWake | segment, at); };
    hooks.fail = [this](Status status) { Fail(std::move(status)); };
    segments_ = std::make_unique<Segments>(workload_, *dispatcher_, clock_, std::move(hooks));
    return OkStatus();
  }
  SimGpu& gpu() override { return *gpu_; }
  TimePoint DeviceNextAt() const override { return gpu_->NextAt(); }
  bool traces_jobs() const override { return true; }
  uint16_t AddTraceDevice() override { return dispatcher_->trace_device(); }
  bool Describe(uint64_t tag, TraceEvent* blocks) override {
    const TracedLaunch& launch = traced_[tag >> 32];
    blocks->label = launch.names;
    blocks->name = launch.names + 1 + launch.kernel;
    blocks->job = launch.job.value();
    blocks->request = launch.request;
    blocks->tenant = model_of(launch.request).tenant;
    blocks->first_block += launch.first_block;
    blocks->mark = launch.at;
    return true;
  }

  void OnArrival(uint32_t index) override {
    const SimModel& model = model_of(index);
    JobSpec spec;
    spec.program = programs_[job(index).model];
    spec.buffers.inputs.resize(model.program->inputs.size());
    spec.buffers.outputs.resize(model.program->outputs.size());
    spec.listener = this;
    spec.attributes.request = RequestId(index);
    spec.attributes.tenant = TenantId(model.tenant);
    // At 0 would mean that nobody knows.
    spec.attributes.arrival = std::max(job(index).arrival, TimePoint(Duration(1)));
    if (model.deadline.count() > 0) spec.attributes.deadline = job(index).arrival + model.deadline;
    spec.attributes.priority = model.priority;
    if (segments_ != nullptr && !model.path.empty()) {
      return segments_->Start(index, job(index).model, spec.attributes);
    }
    submitting_ = index;
    const Result<JobId> id = dispatcher_->Submit(std::move(spec));
    if (!id.ok()) return Fail(id.status());
    Remember(*id, index);
  }
  void OnWork(Work) override {
    const SimGpuEvent event = reports_.front();
    reports_.pop_front();
    DeviceEvent report;
    report.kind = event.kind == SimGpuEvent::Kind::kBlocksStarted
                      ? DeviceEvent::Kind::kBlocksStarted
                      : DeviceEvent::Kind::kBlocksFinished;
    const uint32_t slot = static_cast<uint32_t>(event.tag);
    report.launch = launches_[slot].id;
    report.blocks = event.blocks;
    report.number = event.number;
    report.at = now();
    report.device_time = event.device_time;
    dispatcher_->OnEvent(report);
  }
  void OnCall(Call slot) override {
    if ((slot & kWake) != 0) return segments_->Wake(static_cast<uint32_t>(slot));
    if (Status status = gpu_->Launch(launches_[slot].gpu); !status.ok()) Fail(std::move(status));
  }

  // --- Device
  const DeviceInfo& info() const override { return info_; }
  void SetSink(DeviceEventSink*) override {}
  Status Submit(const Launch& launch) override {
    const uint32_t slot = static_cast<uint32_t>(launch.id.value());  // the low half: free or unused
    if (slot >= launches_.size()) launches_.resize(slot + 1);
    const Kernel& kernel = launch.job->program->kernels[launch.kernel.value()];
    SimGpuLaunch& gpu = launches_[slot].gpu;
    launches_[slot].id = launch.id;
    gpu.tag = slot;
    if (trace() != nullptr) {
      gpu.tag |= uint64_t{traced_.size()} << 32;
      traced_.push_back({launch.job->id, IndexOf(launch.job->id), launch.kernel.value(),
                         launch.first_block, TraceNames(*trace(), launch.job->program), now()});
    }
    gpu.stream = slot;
    gpu.blocks = launch.num_blocks;
    gpu.resources = kernel.resources;
    gpu.block_time = kernel.estimated_block_time;
    Issue(slot);
    return OkStatus();
  }
  Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) override {
    return std::unique_ptr<Arena>(std::make_unique<CountedArena>(size_bytes));
  }
  void Stop() override {}

  // --- SimGpuListener, JobListener
  void OnGpuEvent(const SimGpuEvent& event) override {
    reports_.push_back(event);
    Post(0);
  }
  void OnJobDone(JobId id, Status status, JobBuffers) override {
    if (!status.ok()) return Fail(std::move(status));
    FinishJob(IndexOf(id));
  }

 private:
  static constexpr Call kWake = Call{1} << 32;  // of a segment's queue
  struct InFlight {
    LaunchId id;
    SimGpuLaunch gpu;
  };
  struct TracedLaunch {
    JobId job;
    uint32_t request, kernel, first_block;
    uint32_t names;  // TraceNames
    TimePoint at;
  };
  // Jobs by the slot in the low half of their id. The dispatcher may launch a job, even end it,
  // before Submit has told its id: then it is the one being submitted.
  void Remember(JobId id, uint32_t index) {
    const uint32_t slot = static_cast<uint32_t>(id.value());
    if (slot >= index_.size()) index_.resize(slot + 1, {JobId(), 0});
    index_[slot] = {id, index};
  }
  uint32_t IndexOf(JobId id) const {
    const uint32_t slot = static_cast<uint32_t>(id.value());
    return slot < index_.size() && index_[slot].first == id ? index_[slot].second : submitting_;
  }

  DeviceInfo info_;
  std::unique_ptr<SimGpu> gpu_;
  std::vector<ProgramPtr> programs_;  // by model
  ProfileStore profiles_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<Segments> segments_;  // null: every request is one job
  std::deque<SimGpuEvent> reports_;
  std::vector<InFlight> launches_;                 // by launch slot
  std::vector<TracedLaunch> traced_;               // by the high half of the tag; see Submit
  std::vector<std::pair<JobId, uint32_t>> index_;  // by job slot
  uint32_t submitting_ = 0;
};

}  // namespace

std::unique_ptr<SystemRun> MakePlexus(const Workload& workload,
                                      const std::vector<Arrival>& arrivals, const RunHooks& hooks) {
  return std::make_unique<PlexusRun>(workload, arrivals, hooks);
}

}  // namespace plexus
