// SimDevice: a deterministic device on a manual clock, for tests of what sits above the interface.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "device/device.h"

namespace plexus {

struct SimDeviceOptions {
  uint32_t units = 1;
  // True: launches name a unit, each runs its own in order and reports whole launches (as a CPU).
  // False: blocks are placed in order on the unit with most free block slots
  // (unit_limits.blocks each) and reported one by one (as a GPU).
  bool unit_addressed = true;
  uint32_t queue_depth = 1;
  UnitLimits unit_limits;
  Duration launch_latency{0};
  Duration wake_latency{0};  // of an idle unit; what WakeLatency reports, nothing else
  size_t arena_budget_bytes = size_t{1} << 30;
};

// Runs no code: a block takes its time and is reported. Programs for it have device_kind "sim".
// Thread-compatible; events come from Step.
class SimDevice : public Device {
 public:
  SimDevice(const SimDeviceOptions& options, ManualClock& clock);
  ~SimDevice() override;

  const DeviceInfo& info() const override { return info_; }
  void SetSink(DeviceEventSink* sink) override { sink_ = sink; }
  Status Submit(const Launch& launch) override;
  Duration WakeLatency(UnitId unit) const override;
  Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) override;
  void Stop() override { stopped_ = true; }

  // Advances the clock to the next completion and reports it; false when nothing is in flight.
  bool Step();
  // When the next completion is due; TimePoint::max() when nothing is in flight.
  TimePoint NextAt() const;

  // What happens to the next report, in order of completion.
  enum class Fate { kReport, kDrop, kRepeat, kFault, kLoseDevice };
  std::function<Fate(const Launch&)> fate;
  // One block's time; the kernel's estimate where this is not set.
  std::function<Duration(const Launch&, uint32_t block)> block_time;

  // What has run, in order of completion.
  struct Ran {
    Launch launch;  // of a hardware-placed device: one block each
    UnitId unit;
    TimePoint begin, end;
  };
  const std::vector<Ran>& ran() const { return ran_; }
  size_t arena_bytes() const { return *arena_bytes_; }  // in use now
  size_t peak_arena_bytes() const { return peak_arena_bytes_; }
  uint32_t in_flight() const;  // launches not yet over

 private:
  struct Running {
    Launch launch;
    UnitId unit;
    TimePoint begin, end;
    uint64_t sequence;
  };
  Duration TimeOf(const Launch& launch, uint32_t block) const;
  void Begin(const Launch& launch, UnitId unit, Duration time);
  void Place();
  void Discard(LaunchId launch);

  SimDeviceOptions options_;
  DeviceInfo info_;
  ManualClock& clock_;
  DeviceEventSink* sink_ = nullptr;
  std::vector<std::deque<Launch>> queues_;  // unit-addressed: waiting behind the running launch
  std::vector<uint32_t> busy_;              // running launches or blocks per unit
  std::deque<Launch> waiting_;              // hardware-placed: blocks not yet placed
  std::vector<Running> running_;
  std::vector<Ran> ran_;
  std::shared_ptr<size_t> arena_bytes_ = std::make_shared<size_t>(0);
  size_t peak_arena_bytes_ = 0;
  uint64_t next_sequence_ = 0;
  bool stopped_ = false;
  bool lost_ = false;
};

}  // namespace plexus
