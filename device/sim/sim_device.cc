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
    : options_(options), clock_(clock), queues_(options.units), busy_(options.units) {
  info_.kind = "sim";
  info_.name = "sim";
  info_.units = options.units;
  info_.unit_limits = options.unit_limits;
  info_.queue_depth = options.queue_depth;
  info_.unit_addressed = options.unit_addressed;
  info_.launch_latency = options.launch_latency;
  info_.arena_budget_bytes = options.arena_budget_bytes;
}

SimDevice::~SimDevice() = default;

Duration SimDevice::TimeOf(const Launch& launch, uint32_t block) const {
  if (block_time) return block_time(launch, block);
  return launch.job->program->kernels[launch.kernel.value()].estimated_block_time;
}

void SimDevice::Begin(const Launch& launch, UnitId unit, Duration time) {
  const TimePoint begin = clock_.Now();
  running_.push_back({launch, unit, begin, begin + time, next_sequence_++});
  ++busy_[unit.value()];
}

Status SimDevice::Submit(const Launch& launch) {
  if (stopped_ || lost_) return UnavailableError("the device has stopped");
  if (options_.unit_addressed) {
    const uint32_t u = launch.unit.value();
    if (u >= info_.units) return InvalidArgumentError("no such unit");
    if (busy_[u] + queues_[u].size() > info_.queue_depth) {
      return ResourceExhaustedError("the unit's queue is full");
    }
    queues_[u].push_back(launch);
  } else {
    for (uint32_t b = 0; b < launch.num_blocks; ++b) {
      Launch block = launch;
      block.first_block = launch.first_block + b;
      block.num_blocks = 1;
      waiting_.push_back(block);
    }
  }
  Place();
  return OkStatus();
}

void SimDevice::Place() {
  for (uint32_t u = 0; u < info_.units && options_.unit_addressed; ++u) {
    if (busy_[u] > 0 || queues_[u].empty()) continue;
    const Launch launch = queues_[u].front();
    queues_[u].pop_front();
    Duration time = info_.launch_latency;
    for (uint32_t b = 0; b < launch.num_blocks; ++b) time += TimeOf(launch, launch.first_block + b);
    Begin(launch, launch.unit, time);
  }
  while (!waiting_.empty()) {
    const auto least = std::min_element(busy_.begin(), busy_.end());
    if (*least >= static_cast<uint32_t>(info_.unit_limits.blocks)) return;
    const Launch block = waiting_.front();
    waiting_.pop_front();
    Begin(block, UnitId(static_cast<uint32_t>(least - busy_.begin())),
          info_.launch_latency + TimeOf(block, block.first_block));
  }
}

Duration SimDevice::WakeLatency(UnitId unit) const {
  return busy_[unit.value()] == 0 ? options_.wake_latency : Duration{0};
}

Result<std::unique_ptr<Arena>> SimDevice::AllocateArena(size_t size_bytes) {
  if (size_bytes > info_.arena_budget_bytes - *arena_bytes_) {
    return ResourceExhaustedError("the arena budget is used up");
  }
  std::unique_ptr<Arena> arena = std::make_unique<SimArena>(size_bytes, arena_bytes_);
  peak_arena_bytes_ = std::max(peak_arena_bytes_, *arena_bytes_);
  return arena;
}

// A fault ends the whole launch: what is left of it does not run.
void SimDevice::Discard(LaunchId launch) {
  std::erase_if(waiting_, [&](const Launch& l) { return l.id == launch; });
  std::erase_if(running_, [&](const Running& r) {
    if (r.launch.id != launch) return false;
    --busy_[r.unit.value()];
    return true;
  });
  Place();
}

TimePoint SimDevice::NextAt() const {
  TimePoint next = TimePoint::max();
  for (const Running& r : running_) next = std::min(next, r.end);
  return next;
}

uint32_t SimDevice::in_flight() const {
  size_t count = running_.size() + waiting_.size();
  for (const auto& queue : queues_) count += queue.size();
  return static_cast<uint32_t>(count);
}

bool SimDevice::Step() {
  if (running_.empty()) return false;
  const auto next =
      std::min_element(running_.begin(), running_.end(), [](const Running& a, const Running& b) {
        return std::pair(a.end, a.sequence) < std::pair(b.end, b.sequence);
      });
  const Running over = *next;
  running_.erase(next);
  --busy_[over.unit.value()];
  clock_.AdvanceTo(over.end);
  ran_.push_back({over.launch, over.unit, over.begin, over.end});
  Place();

  DeviceEvent event;
  event.kind = DeviceEvent::Kind::kBlocksFinished;
  event.launch = over.launch.id;
  event.blocks = over.launch.num_blocks;
  event.at = over.end;
  event.device_time = over.end - over.begin;
  switch (fate ? fate(over.launch) : Fate::kReport) {
    case Fate::kReport:
      break;
    case Fate::kDrop:
      return true;
    case Fate::kRepeat:
      sink_->OnEvent(event);
      break;
    case Fate::kFault:
      event.kind = DeviceEvent::Kind::kFault;
      event.status = InternalError("simulated fault");
      Discard(over.launch.id);
      break;
    case Fate::kLoseDevice:
      event.kind = DeviceEvent::Kind::kDeviceLost;
      event.status = UnavailableError("simulated loss");
      lost_ = true;
      running_.clear();
      waiting_.clear();
      for (auto& queue : queues_) queue.clear();
      break;
  }
  sink_->OnEvent(event);
  return true;
}

}  // namespace plexus
