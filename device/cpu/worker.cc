#include "device/cpu/worker.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <string>

#include "device/cpu/arena_pool.h"

namespace plexus {

CpuUnit*& ThreadUnit() {
  thread_local CpuUnit* unit = nullptr;
  return unit;
}

int SetOpenMpThreads(int threads) {
  // Looked up at run time: the device itself needs no OpenMP, the kernels' libraries may bring it.
  using Set = void (*)(int);
  using Get = int (*)();
  static const Set set = reinterpret_cast<Set>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  static const Get get = reinterpret_cast<Get>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
  if (set == nullptr || get == nullptr) return 0;
  const int before = get();
  if (before != threads) set(threads);
  return before;
}

CpuUnit::~CpuUnit() { std::free(scratch_); }

void CpuUnit::Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

Status CpuUnit::Submit(const Launch& launch) {
  // Relaxed: only the submitter moves the counter, and closing shows in the exchange.
  uint64_t tail = tail_.load(std::memory_order_relaxed);
  if ((tail & kClosed) != 0) return UnavailableError("the CPU device has stopped");
  // Acquire: the runner is done with the slot that this one takes.
  if (tail - head_.load(std::memory_order_acquire) >= kCapacity) {
    return ResourceExhaustedError("worker " + std::to_string(index_) + " holds " +
                                  std::to_string(kCapacity) + " launches already");
  }
  ring_[tail % kCapacity] = launch;
  if (!tail_.compare_exchange_strong(tail, tail + 1)) {
    return UnavailableError("the CPU device has stopped");
  }
  if (state_.load() == kParked) Wake();
  return OkStatus();
}

void CpuUnit::Wake() {
  uint32_t expected = kParked;
  if (state_.compare_exchange_strong(expected, kWaking)) state_.notify_all();
}

void CpuUnit::WakeToStop() { Wake(); }

bool CpuUnit::TryClose() {
  if (!shared_.stopping.load()) return false;
  // Relaxed: if a launch arrives meanwhile, the exchange fails.
  uint64_t head = head_.load(std::memory_order_relaxed);
  return tail_.compare_exchange_strong(head, head | kClosed);
}

// After an idle spin: parks if there is nothing to do, and returns when the unit is this worker's
// again (kRunning).
void CpuUnit::AwaitUnit() {
  uint32_t expected = kIdle;
  if (HasWork() || shared_.stopping.load()) {
    if (state_.compare_exchange_strong(expected, kRunning)) return;
  } else if (state_.compare_exchange_strong(expected, kParked)) {
    expected = kParked;
    if ((tail_.load() != head_.load(std::memory_order_relaxed) || shared_.stopping.load()) &&
        state_.compare_exchange_strong(expected, kRunning)) {
      return;
    }
  }
  for (;;) {
    uint32_t state = state_.load();
    if (state == kWaking) {
      if (state_.compare_exchange_strong(state, kRunning)) return;
      continue;
    }
    state_.wait(state);
  }
}

bool CpuUnit::TryTake(bool spinning_too) {
  uint32_t state = state_.load();
  while (state == kParked || state == kWaking || (spinning_too && state == kIdle)) {
    // Nobody comes to a unit that is being stopped; its worker must get it to close it.
    if (shared_.stopping.load()) return false;
    if (state_.compare_exchange_weak(state, kTaken)) return true;
  }
  return false;
}

void CpuUnit::GiveBack() {
  // Sequentially consistent, and the load below is as well: see the class comment. head_ is read
  // before, while the unit is still ours.
  const uint64_t head = head_.load(std::memory_order_relaxed);
  state_.store(kParked);
  if (tail_.load() != head || shared_.stopping.load()) Wake();
}

bool CpuUnit::GrowScratch(size_t size_bytes) {
  if (size_bytes <= scratch_bytes_) return true;
  std::free(scratch_);
  scratch_ = AllocateAligned(size_bytes);
  scratch_bytes_ = scratch_ != nullptr ? size_bytes : 0;
  return scratch_ != nullptr;
}

Status CpuUnit::RunBlocks(const Launch& launch) {
  JobContext& job = *launch.job;
  const Kernel& kernel = job.program->kernels[launch.kernel.value()];
  const auto* code = static_cast<const CpuKernelCode*>(kernel.code.get());
  if (code == nullptr) return InternalError("kernel without code");
  if (!GrowScratch(code->scratch_bytes())) {
    return ResourceExhaustedError("no memory for " + std::to_string(code->scratch_bytes()) +
                                  " bytes of scratch");
  }
  CpuBlockContext context;
  if (job.arena != nullptr) context.arena = static_cast<CpuArena*>(job.arena.get())->data();
  context.inputs = job.buffers.inputs.data();
  context.outputs = job.buffers.outputs.data();
  context.scratch = scratch_;
  context.worker = index_;
  try {
    return code->Run(launch.first_block, launch.num_blocks, context);
  } catch (const std::exception& e) {
    return InternalError(std::string("exception: ") + e.what());
  } catch (...) {
    return InternalError("unknown exception");
  }
}

bool CpuUnit::RunOne() {
  // Relaxed: this thread is the only one to move it, or took the unit over with its state.
  const uint64_t head = head_.load(std::memory_order_relaxed);
  if (!HasWork()) return false;
  const Launch launch = ring_[head % kCapacity];
  running_.store(true, std::memory_order_relaxed);  // a hint for spinners
  DeviceEvent event;
  const TimePoint begin = shared_.clock.Now();
  event.status = RunBlocks(launch);
  event.at = shared_.clock.Now();
  event.kind = event.status.ok() ? DeviceEvent::Kind::kBlocksFinished : DeviceEvent::Kind::kFault;
  event.launch = launch.id;
  event.blocks = launch.num_blocks;
  event.device_time = std::max(event.at - begin, Duration{1});
  running_.store(false, std::memory_order_relaxed);
  // Release: whoever submits into this slot sees that we are done with it. Before the event, since
  // the next launch may come from inside it.
  head_.store(head + 1, std::memory_order_release);
  shared_.sink->OnEvent(event);
  return true;
}

}  // namespace plexus
