// SimDevice: a deterministic device on a manual clock, for what sits above the interface.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "device/device.h"
#include "device/sim/sim_gpu.h"

namespace plexus {

struct SimDeviceOptions {
  uint32_t units = 1;
  // True: launches name a unit, each runs its own in order and reports whole launches (as a CPU).
  // False: a SimGpu places the blocks and reports them. Without `gpu`, that is one of `units` SMs
  // of `unit_limits` which reports each block by itself.
  bool unit_addressed = true;
  std::optional<SimGpuOptions> gpu;  // hardware-placed only; instead of the above and below
  uint32_t queue_depth = 1;
  UnitLimits unit_limits;
  Duration launch_latency{0};
  Duration wake_latency{0};  // of an idle unit; what WakeLatency reports, nothing else
  bool tells_idle = true;    // unit-addressed only: whether IsIdle knows
  size_t arena_budget_bytes = size_t{1} << 30;
  bool record_history = true;  // for ran(), which grows without bound
};

// Runs no code: a block takes its time and is reported. Programs for it have device_kind "sim".
//
// Hardware-placed, a launch takes a stream of its own while it is in flight, the lowest-numbered
// free one, and with it a hardware queue. Launches of one job that are in flight together are
// slices or branches that may overlap: the dispatcher launches a kernel only when its predecessors
// have been reported finished. (On a real GPU an event wait on those stands before it.)
//
// Thread-compatible; events come from Step.
class SimDevice : public Device, private SimGpuListener {
 public:
  // The options must be sound (see SimGpu::Create).
  SimDevice(const SimDeviceOptions& options, ManualClock& clock);
  // A simulated GPU, whose memory is the arena budget; kInvalidArgument names a bad option.
  static Result<std::unique_ptr<SimDevice>> Create(const SimGpuOptions& gpu, ManualClock& clock,
                                                   bool record_history = false);
  ~SimDevice() override;

  const DeviceInfo& info() const override { return info_; }
  void SetSink(DeviceEventSink* sink) override { sink_ = sink; }
  Status Submit(const Launch& launch) override;
  Duration WakeLatency(UnitId unit) const override;
  bool IsIdle(UnitId unit) const override;
  Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) override;
  void Stop() override { stopped_ = true; }

  // Advances the clock to the next thing that happens and reports at most one thing; false when
  // nothing is in flight. Without latencies each step reports a completion.
  bool Step();
  // When the next step is due; TimePoint::max() when nothing is in flight.
  TimePoint NextAt() const;

  // What happens to the next report of finished blocks, in their order. Hardware-placed, the launch
  // that is passed has the message's number of blocks; which ones the message does not tell.
  enum class Fate { kReport, kDrop, kRepeat, kFault, kLoseDevice };
  std::function<Fate(const Launch&)> fate;
  // The same for reports of started blocks; the first three only.
  std::function<Fate(const Launch&)> start_fate;
  // One block's time; the kernel's estimate where this is not set.
  std::function<Duration(const Launch&, uint32_t block)> block_time;

  // What has run, in order of completion.
  struct Ran {
    Launch launch;  // of a hardware-placed device: one block each
    UnitId unit;
    TimePoint begin, end;
  };
  const std::vector<Ran>& ran() const { return ran_; }
  // Reports of finished blocks that were dropped. They may be handed to the sink later.
  const std::vector<DeviceEvent>& dropped() const { return dropped_; }
  size_t arena_bytes() const { return *arena_bytes_; }  // in use now
  size_t peak_arena_bytes() const { return peak_arena_bytes_; }
  uint32_t in_flight() const;                       // launches not yet over
  const SimGpu* gpu() const { return gpu_.get(); }  // null when unit-addressed

 private:
  struct Running {
    Launch launch;
    UnitId unit;
    TimePoint begin, end;
    uint64_t sequence;
  };
  void OnGpuEvent(const SimGpuEvent& event) override;
  Duration TimeOf(const Launch& launch, uint32_t block) const;
  Status SubmitToGpu(const Launch& launch);
  void RecordSpans();
  void StartUnits();
  bool StepUnits();
  // Reports as `fate` has it. `tag`: of a hardware-placed launch.
  void Report(const Launch& launch, DeviceEvent event, uint32_t tag = 0);

  SimDeviceOptions options_;
  DeviceInfo info_;
  ManualClock& clock_;
  DeviceEventSink* sink_ = nullptr;
  // Unit-addressed.
  std::vector<std::deque<Launch>> queues_;  // waiting behind the running launch
  std::vector<uint32_t> busy_;              // running launches per unit
  std::vector<Running> running_;
  uint64_t next_sequence_ = 0;
  // Hardware-placed.
  std::unique_ptr<SimGpu> gpu_;
  std::vector<Launch> launches_;  // by tag, which is also the stream
  std::vector<uint32_t> free_tags_;
  size_t spans_seen_ = 0;
  uint64_t reports_ = 0;

  std::vector<Ran> ran_;
  std::vector<DeviceEvent> dropped_;
  std::shared_ptr<size_t> arena_bytes_ = std::make_shared<size_t>(0);
  size_t peak_arena_bytes_ = 0;
  bool stopped_ = false;
  bool lost_ = false;
};

}  // namespace plexus
