#include "device/sim/sim_device.h"

#include <algorithm>
#include <utility>

namespace plexus {
namespace {

class SimArena : public Arena {
 public:
  SimArena(size_t size_bytes, std::shared_ptr<size_t> in_use)
      : size_bytes_(size_bytes), in_use_(std::move(in_use)) {
    *in_use_ += size_bytes_;
  }
  ~SimArena() override { *in_use_ -= size_bytes_; }
  size_t size_bytes() const override { return size_bytes_; }

 private:
  size_t size_bytes_;
  std::shared_ptr<size_t> in_use_;
};

}  // namespace

SimDevice::SimDevice(const SimDeviceOptions& options, ManualClock& clock)
    : options_(options), clock_(clock) {
  info_.kind = "sim";
  info_.queue_depth = options.queue_depth;
  info_.unit_addressed = options.unit_addressed;
  info_.arena_budget_bytes = options.arena_budget_bytes;
  if (options.unit_addressed) {
    info_.name = "sim";
    info_.units = options.units;
    info_.unit_limits = options.unit_limits;
    info_.launch_latency = options.launch_latency;
    queues_.resize(options.units);
    busy_.resize(options.units);
    return;
  }
  SimGpuOptions gpu;
  if (options.gpu) {
    gpu = *options.gpu;
  } else {
    gpu.sms = options.units;
    gpu.sm = options.unit_limits;
    gpu.sm.threads = std::max(gpu.sm.threads, gpu.sm.blocks * gpu.sm.warp_size);
    gpu.launch_latency = options.launch_latency;
    gpu.notification_group = 1;
    gpu.report_starts = false;
  }
  gpu.record_spans = options.record_history;
  gpu_ = SimGpu::Create(gpu, clock, this).value();
  info_.name = gpu.name;
  info_.units = gpu.sms;
  info_.unit_limits = gpu.sm;
  info_.launch_latency = gpu.launch_latency;
  info_.reports_block_starts = gpu.report_starts;
}

Result<std::unique_ptr<SimDevice>> SimDevice::Create(const SimGpuOptions& gpu, ManualClock& clock,
                                                     bool record_history) {
  PLEXUS_RETURN_IF_ERROR(SimGpu::Create(gpu, clock, nullptr).status());
  SimDeviceOptions options;
  options.unit_addressed = false;
  options.gpu = gpu;
  options.arena_budget_bytes = gpu.memory_bytes;
  options.record_history = record_history;
  return std::make_unique<SimDevice>(options, clock);
}

SimDevice::~SimDevice() = default;

Duration SimDevice::TimeOf(const Launch& launch, uint32_t block) const {
  if (block_time) return block_time(launch, block);
  return launch.job->program->kernels[launch.kernel.value()].estimated_block_time;
}

Status SimDevice::Submit(const Launch& launch) {
  if (stopped_ || lost_) return UnavailableError("the device has stopped");
  if (gpu_ != nullptr) return SubmitToGpu(launch);
  const uint32_t u = launch.unit.value();
  if (u >= info_.units) return InvalidArgumentError("no such unit");
  if (busy_[u] + queues_[u].size() > info_.queue_depth) {
    return ResourceExhaustedError("the unit's queue is full");
  }
  queues_[u].push_back(launch);
  StartUnits();
  return OkStatus();
}

Duration SimDevice::WakeLatency(UnitId unit) const {
  return gpu_ == nullptr && busy_[unit.value()] == 0 ? options_.wake_latency : Duration{0};
}

bool SimDevice::IsIdle(UnitId unit) const {
  return gpu_ == nullptr && options_.tells_idle && busy_[unit.value()] == 0 &&
         queues_[unit.value()].empty();
}

Result<std::unique_ptr<Arena>> SimDevice::AllocateArena(size_t size_bytes) {
  if (size_bytes > info_.arena_budget_bytes - *arena_bytes_) {
    return ResourceExhaustedError("the arena budget is used up");
  }
  std::unique_ptr<Arena> arena = std::make_unique<SimArena>(size_bytes, arena_bytes_);
  peak_arena_bytes_ = std::max(peak_arena_bytes_, *arena_bytes_);
  return arena;
}

TimePoint SimDevice::NextAt() const {
  if (gpu_ != nullptr) return gpu_->NextAt();
  TimePoint next = TimePoint::max();
  for (const Running& r : running_) next = std::min(next, r.end);
  return next;
}

uint32_t SimDevice::in_flight() const {
  if (gpu_ != nullptr) return gpu_->in_flight();
  size_t count = running_.size();
  for (const auto& queue : queues_) count += queue.size();
  return static_cast<uint32_t>(count);
}

bool SimDevice::Step() {
  if (gpu_ == nullptr) return StepUnits();
  const uint64_t before = reports_;
  if (!gpu_->Step()) return false;
  while (reports_ == before && gpu_->NextAt() <= clock_.Now()) gpu_->Step();
  return true;
}

void SimDevice::Report(const Launch& launch, DeviceEvent event, uint32_t tag) {
  switch (fate ? fate(launch) : Fate::kReport) {
    case Fate::kReport:
      break;
    case Fate::kDrop:
      dropped_.push_back(event);
      return;
    case Fate::kRepeat:
      sink_->OnEvent(event);
      break;
    case Fate::kFault:
      // A fault ends the whole launch: what is left of it does not run.
      if (gpu_ != nullptr && gpu_->Abort(tag)) free_tags_.push_back(tag);
      event.kind = DeviceEvent::Kind::kFault;
      event.status = InternalError("simulated fault");
      break;
    case Fate::kLoseDevice:
      event.kind = DeviceEvent::Kind::kDeviceLost;
      event.status = UnavailableError("simulated loss");
      lost_ = true;
      running_.clear();
      for (auto& queue : queues_) queue.clear();
      if (gpu_ != nullptr) gpu_->Reset();
      break;
  }
  sink_->OnEvent(event);
}

// --- Unit-addressed

void SimDevice::StartUnits() {
  for (uint32_t u = 0; u < info_.units; ++u) {
    if (busy_[u] > 0 || queues_[u].empty()) continue;
    const Launch launch = queues_[u].front();
    queues_[u].pop_front();
    Duration time = info_.launch_latency;
    for (uint32_t b = 0; b < launch.num_blocks; ++b) time += TimeOf(launch, launch.first_block + b);
    const TimePoint begin = clock_.Now();
    running_.push_back({launch, launch.unit, begin, begin + time, next_sequence_++});
    ++busy_[u];
  }
}

bool SimDevice::StepUnits() {
  if (running_.empty()) return false;
  const auto next =
      std::min_element(running_.begin(), running_.end(), [](const Running& a, const Running& b) {
        return std::pair(a.end, a.sequence) < std::pair(b.end, b.sequence);
      });
  const Running over = *next;
  running_.erase(next);
  --busy_[over.unit.value()];
  clock_.AdvanceTo(over.end);
  if (options_.record_history) ran_.push_back({over.launch, over.unit, over.begin, over.end});
  StartUnits();

  DeviceEvent event;
  event.kind = DeviceEvent::Kind::kBlocksFinished;
  event.launch = over.launch.id;
  event.blocks = over.launch.num_blocks;
  event.at = over.end;
  event.device_time = over.end - over.begin;
  Report(over.launch, event);
  return true;
}

// --- Hardware-placed

Status SimDevice::SubmitToGpu(const Launch& launch) {
  if (block_time && !gpu_->block_time) {
    gpu_->block_time = [this](uint64_t tag, uint32_t block) {
      const Launch& l = launches_[tag];
      return block_time(l, l.first_block + block);
    };
  }
  if (free_tags_.empty()) {
    free_tags_.push_back(static_cast<uint32_t>(launches_.size()));
    launches_.emplace_back();
  }
  const uint32_t tag = free_tags_.back();
  const Kernel& kernel = launch.job->program->kernels[launch.kernel.value()];
  SimGpuLaunch l;
  l.tag = tag;
  l.stream = tag;
  l.blocks = launch.num_blocks;
  l.resources = kernel.resources;
  l.block_time = kernel.estimated_block_time;
  PLEXUS_RETURN_IF_ERROR(gpu_->Launch(l));
  free_tags_.pop_back();
  launches_[tag] = launch;
  if (gpu_->options().launch_latency == Duration{0}) gpu_->CatchUp();
  return OkStatus();
}

void SimDevice::RecordSpans() {
  for (; spans_seen_ < gpu_->spans().size(); ++spans_seen_) {
    const SimGpuSpan& span = gpu_->spans()[spans_seen_];
    Launch block = launches_[span.tag];
    block.first_block += span.first_block;
    block.num_blocks = 1;
    for (uint32_t b = 0; b < span.blocks; ++b, ++block.first_block) {
      ran_.push_back({block, UnitId(span.sm), span.begin, span.end});
    }
  }
}

void SimDevice::OnGpuEvent(const SimGpuEvent& gpu_event) {
  RecordSpans();
  Launch launch = launches_[gpu_event.tag];
  DeviceEvent event;
  event.launch = launch.id;
  event.blocks = gpu_event.blocks;
  event.number = gpu_event.number;
  event.at = gpu_event.at;
  event.device_time = gpu_event.device_time;
  if (gpu_event.kind == SimGpuEvent::Kind::kBlocksStarted) {
    event.kind = DeviceEvent::Kind::kBlocksStarted;
    const Fate fate = start_fate ? start_fate(launch) : Fate::kReport;
    if (fate == Fate::kDrop) return;
    if (fate == Fate::kRepeat) sink_->OnEvent(event);
    sink_->OnEvent(event);
    return;
  }
  ++reports_;
  event.kind = DeviceEvent::Kind::kBlocksFinished;
  const uint32_t tag = static_cast<uint32_t>(gpu_event.tag);
  launch.num_blocks = gpu_event.blocks;
  if (gpu_event.last) free_tags_.push_back(tag);
  Report(launch, event, tag);
}

}  // namespace plexus
