// CpuUnit: a place that runs blocks, and who may run them there.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "device/cpu/cpu_device.h"

namespace plexus {

// What the units of one device share.
struct CpuShared {
  explicit CpuShared(const Clock& c) : clock(c) {}
  const Clock& clock;
  DeviceEventSink* sink = nullptr;
  Duration spin{0};
  std::atomic<bool> stopping{false};
};

// A unit holds up to two launches, the running one included. One thread runs them at a time: the
// unit's own worker thread, or a Participant that took the unit while the worker was idle.
//
//             idle worker spins       spin over                launch submitted
//   kRunning ------------------> kIdle -------> kParked ---------------------> kWaking
//      ^  ^                        |  |            |  \                           |
//      |  +------------------------+  +------------+---+--> kTaken <--------------+
//      |        work arrives              a participant takes it
//      +--- the worker's thread wakes up (from kWaking), after a participant left (kTaken→kParked)
//
// All transitions and the submission counter are sequentially consistent: whoever lets go of the
// unit (stores its state, then looks for launches) and whoever submits (publishes a launch, then
// looks at the state) cannot both miss the other.
class alignas(64) CpuUnit {
 public:
  enum State : uint32_t { kRunning, kIdle, kParked, kWaking, kTaken };

  CpuUnit(uint32_t index, CpuShared& shared) : index_(index), shared_(shared) {}
  ~CpuUnit();

  uint32_t index() const { return index_; }
  // Relaxed: for hints.
  State state() const { return static_cast<State>(state_.load(std::memory_order_relaxed)); }
  bool running() const { return running_.load(std::memory_order_relaxed); }

  // One call at a time. Wakes the worker if it is parked.
  Status Submit(const Launch& launch);

  // For the thread that has the unit. Runs the oldest launch and reports it; false if none.
  bool RunOne();
  bool HasWork() const {
    // Acquire: the launch was written before the counter.
    return (tail_.load(std::memory_order_acquire) & ~kClosed) !=
           head_.load(std::memory_order_relaxed);
  }

  // For participants: takes the unit if its worker is in the given kind of state.
  bool TryTake(bool spinning_too);
  void GiveBack();

  // The worker thread's life. `any_running` says whether some unit of the device runs a launch.
  template <typename AnyRunning>
  void WorkerLoop(AnyRunning any_running) {
    for (;;) {
      while (RunOne()) {
      }
      if (TryClose()) return;
      state_.store(kIdle);
      Spin(any_running, [this] { return state_.load(std::memory_order_relaxed) != kIdle; });
      AwaitUnit();
    }
  }
  // Waits for a launch, or until `leave()`, for as long as spinning pays.
  template <typename AnyRunning, typename Leave>
  bool Spin(AnyRunning any_running, Leave leave) {
    const TimePoint start = shared_.clock.Now();
    for (uint32_t i = 1;; ++i) {
      if (HasWork() || leave()) return true;
      Pause();
      if (i % 64 != 0) continue;
      const Duration limit = any_running() ? 10 * shared_.spin : shared_.spin;
      if (shared_.clock.Now() - start > limit || shared_.stopping.load()) return false;
    }
  }
  void WakeToStop();

  std::thread thread;

 private:
  static constexpr uint64_t kClosed = uint64_t{1} << 63;
  static constexpr uint64_t kCapacity = 2;
  static void Pause();
  bool TryClose();
  void AwaitUnit();
  void Wake();
  Status RunBlocks(const Launch& launch);
  bool GrowScratch(size_t size_bytes);

  const uint32_t index_;
  CpuShared& shared_;
  std::atomic<uint32_t> state_{kRunning};
  std::atomic<bool> running_{false};
  std::atomic<uint64_t> tail_{0};  // launches submitted; kClosed: no more
  Launch ring_[kCapacity];
  alignas(64) std::atomic<uint64_t> head_{0};  // launches over; written by who has the unit
  std::byte* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
};

// The unit that this thread runs now; nullptr if none.
CpuUnit*& ThreadUnit();

// The OpenMP thread count of this thread: sets it, returns the one before; 0 where no OpenMP
// runtime is loaded.
int SetOpenMpThreads(int threads);

}  // namespace plexus
