// The Device interface: executes launches, reports events. Small on purpose.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "graph/tensor.h"
#include "program/program.h"

namespace plexus {

using LaunchId = Id<struct LaunchTag, uint64_t>;
using JobId = Id<struct JobTag, uint64_t>;
// A place that runs blocks: a CPU worker, an SM. A launch may name one.
using UnitId = Id<struct UnitTag>;

// Limits of one unit, in the device's own granularity.
struct UnitLimits {
  int32_t blocks = 1;
  int32_t threads = 1;
  int32_t registers = 0;
  int32_t shared_bytes = 0;
  int32_t register_granularity = 1;  // per warp
  int32_t shared_granularity = 1;
  int32_t warp_size = 1;
};

struct DeviceInfo {
  std::string kind;  // "cpu", "sim", "cuda"
  std::string name;
  uint32_t units = 1;
  UnitLimits unit_limits;
  // Launches a unit (unit_addressed) or the device may hold beyond the running ones.
  uint32_t queue_depth = 1;
  bool unit_addressed = false;  // launches name a unit (CPU); else the hardware places blocks
  bool reports_block_starts = false;
  bool preempts_at_blocks = true;  // a launch's blocks are separate scheduling points
  Duration launch_latency{0};      // from Submit to the first block, on a unit that is awake
  size_t arena_budget_bytes = 0;   // all jobs together
};

// Memory of one job on this device; returned to its device's pool when destroyed.
class Arena {
 public:
  virtual ~Arena() = default;
  virtual size_t size_bytes() const = 0;
};

// Where a job's inputs and outputs lie. CPU: host memory. Lifetime: until the job has finished.
struct JobBuffers {
  std::vector<Tensor> inputs;   // as Program::inputs
  std::vector<Tensor> outputs;  // as Program::outputs, allocated
};

// The device-facing part of a job. The dispatcher owns it and keeps it alive until the last launch
// has been reported finished or faulted.
struct JobContext {
  JobId id;
  ProgramPtr program;
  JobBuffers buffers;
  std::unique_ptr<Arena> arena;  // set before the first launch; null if the program needs none
};

// (job, kernel, block range): blocks [first_block, first_block + num_blocks) of the kernel's grid.
struct Launch {
  LaunchId id;
  JobContext* job = nullptr;
  KernelId kernel;
  uint32_t first_block = 0;
  uint32_t num_blocks = 0;
  UnitId unit;  // valid iff DeviceInfo::unit_addressed
};

// kFault and the last kBlocksFinished end a launch: nothing of it runs any more. A device may
// report a launch in parts (blocks < num_blocks). It numbers them, so that one that comes twice is
// not taken for new blocks. On the way they may overtake each other, by no more than ReportWindow
// (sched/report_window.h) tells apart.
struct DeviceEvent {
  enum class Kind : uint8_t { kBlocksStarted, kBlocksFinished, kCopyFinished, kFault, kDeviceLost };
  Kind kind = Kind::kBlocksFinished;
  LaunchId launch;
  uint32_t blocks = 0;      // how many of the launch's blocks (all so far unreported, for a CPU)
  uint32_t number = 0;      // of the launch's reports of this kind, counted from 0
  TimePoint at{};           // when it happened, on the device's clock
  Duration device_time{0};  // summed over the blocks; 0 where the device cannot tell
  Status status;            // kFault, kDeviceLost: why
};

// The only way back from a device. OnEvent may be called from any of the device's threads, and from
// inside Submit never.
class DeviceEventSink {
 public:
  virtual ~DeviceEventSink() = default;
  virtual void OnEvent(const DeviceEvent& event) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  // Once, before the first Submit; the sink outlives the device's last event.
  virtual void SetSink(DeviceEventSink* sink) = 0;
  // Never blocks; one call at a time. The device borrows launch.job until every block is reported
  // finished or faulted. A unit runs its launches in the order of their submission.
  // kResourceExhausted when the unit's queue is full, kUnavailable after Stop; then the launch has
  // not been taken.
  virtual Status Submit(const Launch& launch) = 0;
  // What it takes until a launch submitted now to this unit could start there, beyond
  // info().launch_latency and the work it already holds: a parked worker must be woken first. A
  // hint; cheap.
  virtual Duration WakeLatency(UnitId) const { return Duration{0}; }
  // Whether everything that was submitted to the unit is over, reported or not. False where the
  // device cannot tell.
  virtual bool IsIdle(UnitId) const { return false; }
  // The unit that the calling thread itself runs, if any: a launch on it needs no hand-off.
  virtual UnitId LocalUnit() const { return UnitId(); }
  // From the pool; kResourceExhausted above the budget. Bytes 0 gives an empty arena.
  virtual Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) = 0;
  // No event after it returns; launches in flight are run to the end or reported as faults first.
  virtual void Stop() = 0;
};

}  // namespace plexus
