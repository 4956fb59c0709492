// The CPU device: one worker thread per unit, one block at a time each.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.h"
#include "device/device.h"

namespace plexus {

// What a CPU kernel sees when one of its blocks runs. `scratch` is the worker's own, 64-byte
// aligned, grown to the largest request of any live Program.
struct CpuBlockContext {
  std::byte* arena = nullptr;
  const Tensor* inputs = nullptr;  // the job's
  Tensor* outputs = nullptr;       // the job's
  std::byte* scratch = nullptr;    // CpuKernelCode::scratch_bytes() at least
  uint32_t worker = 0;
};

// Code of one kernel on a CPU. Immutable; Run is called from many workers at once, with disjoint
// ranges. An error faults the job, not the process.
class CpuKernelCode : public KernelCode {
 public:
  virtual size_t scratch_bytes() const { return 0; }
  virtual Status Run(uint32_t first_block, uint32_t num_blocks,
                     const CpuBlockContext& context) const = 0;
};

struct CpuDeviceOptions {
  uint32_t workers = 0;  // 0: one per core this process may use
  bool pin = false;
  size_t arena_budget_bytes = size_t{4} << 30;
  // How long an idle worker spins before it parks while work was recent; an idle server parks.
  Duration spin = std::chrono::microseconds(50);
};

class CpuDevice : public Device {
 public:
  CpuDevice(const CpuDeviceOptions& options, const Clock& clock);
  ~CpuDevice() override;  // Stop()s

  const DeviceInfo& info() const override;
  void SetSink(DeviceEventSink* sink) override;
  Status Submit(const Launch& launch) override;
  Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) override;
  void Stop() override;

  // The calling thread takes the place of a parked worker (if one is parked) and runs its launches
  // until `done()` is true, so that a synchronous call pays no thread hand-off. Returns when done()
  // holds. Blocks without spinning if every worker runs by itself. `done` is polled between
  // launches and must be cheap; NotifyDone() wakes a blocked caller.
  void Participate(const std::function<bool()>& done);
  void NotifyDone();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plexus
