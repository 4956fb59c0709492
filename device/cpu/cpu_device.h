// The CPU device: one worker thread per unit, one block at a time each.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "device/device.h"

namespace plexus {

// What a CPU kernel sees when one of its blocks runs. `scratch` is the worker's own, 64-byte
// aligned, grown to the largest request of any live Program.
struct CpuBlockContext {
  std::byte* arena = nullptr;      // null when the Program needs none
  const Tensor* inputs = nullptr;  // the job's
  Tensor* outputs = nullptr;       // the job's
  std::byte* scratch = nullptr;    // CpuKernelCode::scratch_bytes() at least; null for 0
  uint32_t worker = 0;
};

// Code of one kernel on a CPU. Immutable; Run is called from many workers at once, with disjoint
// ranges. An error or an exception faults the job, not the process.
class CpuKernelCode : public KernelCode {
 public:
  virtual size_t scratch_bytes() const { return 0; }
  virtual Status Run(uint32_t first_block, uint32_t num_blocks,
                     const CpuBlockContext& context) const = 0;
};

struct CpuDeviceOptions {
  uint32_t workers = 0;  // 0: one per core this process may use (affinity and CPU quota)
  // Worker i to the i-th of those cores. Else two workers that wake at once may share a core until
  // the kernel's next look, milliseconds later. nullopt: where there is a worker for every core.
  std::optional<bool> pin;
  size_t arena_budget_bytes = size_t{4} << 30;
  // How long an idle worker spins before it parks: about what parking and waking cost. Up to ten
  // times as long while another unit still runs something; an idle server parks.
  Duration spin = std::chrono::microseconds(50);
  // Blocks run single-threaded: the OpenMP thread count is set to one on every thread that runs
  // blocks, where an OpenMP runtime is loaded. This runs as well, once on each worker thread.
  std::function<void(uint32_t worker)> thread_init;
};

// Units are worker threads, addressed by launches; each holds one launch beyond the running one.
// Thread-safe, Submit one call at a time (Device).
class CpuDevice : public Device {
 public:
  CpuDevice(const CpuDeviceOptions& options, const Clock& clock);
  ~CpuDevice() override;  // Stop()s; requires that no Participant and no Arena is left

  const DeviceInfo& info() const override;
  void SetSink(DeviceEventSink* sink) override;
  Status Submit(const Launch& launch) override;
  Duration WakeLatency(UnitId unit) const override;
  bool IsIdle(UnitId unit) const override;
  UnitId LocalUnit() const override;
  // 64-byte aligned, 2 MiB and huge pages for large ones; contents undefined. The last one returned
  // is the first one handed out, while it is warm.
  Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) override;
  void Stop() override;

  // Lets a synchronous caller run its own job: while one lives, the thread that made it stands in
  // for an idle worker, if there is one. Make it *before* submitting, so that the first launch
  // lands on this thread's unit and no thread is woken for it:
  //
  //   CpuDevice::Participant participant(device);
  //   dispatcher.Submit(...);
  //   participant.RunUntil([&] { return finished.load(); });
  //
  // Runs whatever is launched on its unit, of this job or others. Belongs to its thread.
  class Participant {
   public:
    explicit Participant(CpuDevice& device);
    ~Participant();
    Participant(const Participant&) = delete;
    Participant& operator=(const Participant&) = delete;
    // Returns when done() holds. Spins for a while when there is nothing to run, then gives the
    // unit back and blocks; NotifyDone() wakes it. `done` is polled between launches: cheap, and
    // true for good once it is true.
    void RunUntil(const std::function<bool()>& done);

   private:
    void Release();
    CpuDevice& device_;
    class CpuUnit* unit_ = nullptr;
    bool owned_ = false;
    int omp_threads_ = 0;
  };

  // As Participant(*this).RunUntil(done), for a job already submitted.
  void Participate(const std::function<bool()>& done);
  // Call after what `done` reads has changed. Cheap when nobody is blocked.
  void NotifyDone();

  // Frees pooled arenas that nobody used for that long; returns the bytes freed. Cheap; for an
  // owner's housekeeping.
  size_t TrimArenas(Duration unused_for);
  size_t pooled_arena_bytes() const;
  // Units whose thread is asleep: all of them on an idle server.
  uint32_t parked_units() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plexus
