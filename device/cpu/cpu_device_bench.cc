// What the way from event to next launch costs on the CPU device.
#include <benchmark/benchmark.h>

#include <atomic>

#include "device/cpu/cpu_device.h"
#include "sched/dispatcher.h"

namespace plexus {
namespace {

// Spins for a fixed number of pauses.
class SpinCode : public CpuKernelCode {
 public:
  explicit SpinCode(uint32_t steps) : steps_(steps) {}
  Status Run(uint32_t, uint32_t count, const CpuBlockContext&) const override {
    for (uint32_t i = 0; i < steps_ * count; ++i) {
      uint32_t value = i;
      benchmark::DoNotOptimize(value);
    }
    return OkStatus();
  }

 private:
  uint32_t steps_;
};

struct Flag : JobListener {
  void OnJobDone(JobId, Status, JobBuffers) override {
    done.store(true, std::memory_order_release);
    device->NotifyDone();
  }
  CpuDevice* device = nullptr;
  std::atomic<bool> done{false};
};

// range(0): workers, range(1): steps of one block, range(2): grid. 100 kernels in a chain, called
// synchronously. Time per kernel beyond the blocks' own is the overhead.
void BM_SynchronousChain(benchmark::State& state) {
  CpuDeviceOptions options;
  options.workers = static_cast<uint32_t>(state.range(0));
  CpuDevice device(options, RealClock::Get());
  Dispatcher dispatcher(device, MakePolicy("srpt").value(), RealClock::Get(), nullptr, nullptr);
  auto program = std::make_shared<Program>();
  program->device_kind = "cpu";
  constexpr uint32_t kKernels = 100;
  const auto code = std::make_shared<SpinCode>(static_cast<uint32_t>(state.range(1)));
  for (uint32_t k = 0; k < kKernels; ++k) {
    Kernel kernel;
    kernel.grid = static_cast<uint32_t>(state.range(2));
    kernel.estimated_block_time = std::chrono::microseconds(1);
    kernel.dependencies = k > 0 ? 1 : 0;
    if (k + 1 < kKernels) kernel.successors = {KernelId(k + 1)};
    kernel.code = code;
    program->kernels.push_back(kernel);
  }
  Flag flag;
  flag.device = &device;
  for (auto _ : state) {
    flag.done.store(false);
    CpuDevice::Participant participant(device);
    JobSpec spec;
    spec.program = program;
    spec.listener = &flag;
    benchmark::DoNotOptimize(dispatcher.Submit(std::move(spec)));
    participant.RunUntil([&] { return flag.done.load(std::memory_order_acquire); });
  }
  const double busy_ns = static_cast<double>(dispatcher.stats().busy.count());
  const double kernels = static_cast<double>(state.iterations()) * kKernels;
  state.counters["kernels"] =
      benchmark::Counter(kernels, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["busy_per_kernel_us"] = busy_ns / kernels * 1e-3;
  device.Stop();
}
BENCHMARK(BM_SynchronousChain)
    ->UseRealTime()
    ->Args({1, 0, 1})
    ->Args({2, 0, 1})
    ->Args({1, 1000, 1})
    ->Args({2, 1000, 1})
    ->Args({1, 50'000, 8})
    ->Args({2, 50'000, 8});

}  // namespace
}  // namespace plexus

BENCHMARK_MAIN();
