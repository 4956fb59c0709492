// What a decision costs: one finished block in, one launch out, without a device behind it.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "sched/dispatcher.h"

namespace plexus {
namespace {

// Takes launches and keeps them for the benchmark to report.
class NullDevice : public Device {
 public:
  explicit NullDevice(uint32_t units) {
    info_.kind = "null";
    info_.units = units;
    info_.unit_addressed = true;
    info_.arena_budget_bytes = size_t{1} << 40;
  }
  const DeviceInfo& info() const override { return info_; }
  void SetSink(DeviceEventSink*) override {}
  Status Submit(const Launch& launch) override {
    launches.push_back(launch);
    return OkStatus();
  }
  Result<std::unique_ptr<Arena>> AllocateArena(size_t) override {
    return ResourceExhaustedError("none");
  }
  void Stop() override {}
  std::vector<Launch> launches;

 private:
  DeviceInfo info_;
};

class Resubmitter : public JobListener {
 public:
  void OnJobDone(JobId, Status, JobBuffers) override { ++done; }
  uint64_t done = 0;
};

ProgramPtr ChainProgram(uint32_t kernels, uint32_t grid, Duration block_time) {
  auto program = std::make_shared<Program>();
  program->name = "bench";
  program->device_kind = "null";
  for (uint32_t k = 0; k < kernels; ++k) {
    Kernel kernel;
    kernel.grid = grid;
    kernel.estimated_block_time = block_time;
    kernel.dependencies = k > 0 ? 1 : 0;
    if (k + 1 < kernels) kernel.successors = {KernelId(k + 1)};
    program->kernels.push_back(kernel);
  }
  return program;
}

void Report(Dispatcher& dispatcher, const Launch& launch, TimePoint at, Duration time) {
  DeviceEvent event;
  event.launch = launch.id;
  event.blocks = launch.num_blocks;
  event.at = at;
  event.device_time = time;
  dispatcher.OnEvent(event);
}

// range(0): jobs that wait, range(1): kernels of each, range(2): blocks of each kernel. Each
// iteration reports one launch and gets one. With one kernel of one block, every report ends a job,
// another one is submitted, and the heap moves each time.
void BM_Decision(benchmark::State& state, const char* policy) {
  NullDevice device(2);
  ManualClock clock;
  Resubmitter listener;
  Dispatcher dispatcher(device, MakePolicy(policy).value(), clock, nullptr, nullptr);
  const ProgramPtr program =
      ChainProgram(static_cast<uint32_t>(state.range(1)), static_cast<uint32_t>(state.range(2)),
                   std::chrono::microseconds(100));
  uint32_t random = 1;
  const auto submit = [&] {
    JobSpec spec;
    random = random * 1664525 + 1013904223;
    spec.attributes.remaining_path = Duration(random >> 8);
    spec.program = program;
    spec.listener = &listener;
    benchmark::DoNotOptimize(dispatcher.Submit(std::move(spec)));
  };
  for (int64_t i = 0; i < state.range(0); ++i) submit();
  uint64_t resubmitted = 0;
  for (auto _ : state) {
    const Launch launch = device.launches.front();
    device.launches.erase(device.launches.begin());
    clock.Advance(std::chrono::microseconds(100));
    Report(dispatcher, launch, clock.Now(), launch.num_blocks * std::chrono::microseconds(100));
    for (; resubmitted < listener.done; ++resubmitted) submit();
  }
  const DispatcherStats stats = dispatcher.stats();
  state.counters["per_decision"] =
      benchmark::Counter(static_cast<double>(stats.decisions),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  while (!device.launches.empty()) {
    const Launch launch = device.launches.front();
    device.launches.erase(device.launches.begin());
    Report(dispatcher, launch, clock.Now(), Duration{1000});
  }
}
BENCHMARK_CAPTURE(BM_Decision, srpt, "srpt")
    ->Args({1, 100, 4})
    ->Args({10, 100, 4})
    ->Args({1000, 100, 4})
    ->Args({50'000, 100, 4})
    ->Args({1000, 1, 1})
    ->Args({50'000, 1, 1});
BENCHMARK_CAPTURE(BM_Decision, fifo, "fifo")->Args({1000, 100, 4})->Args({1000, 1, 1});

void BM_SubmitToDone(benchmark::State& state) {
  NullDevice device(2);
  ManualClock clock;
  Resubmitter listener;
  Dispatcher dispatcher(device, MakePolicy("srpt").value(), clock, nullptr, nullptr);
  const ProgramPtr program =
      ChainProgram(static_cast<uint32_t>(state.range(0)), 1, std::chrono::microseconds(1));
  for (auto _ : state) {
    JobSpec spec;
    spec.program = program;
    spec.listener = &listener;
    benchmark::DoNotOptimize(dispatcher.Submit(std::move(spec)));
    while (!device.launches.empty()) {
      const Launch launch = device.launches.back();
      device.launches.pop_back();
      Report(dispatcher, launch, clock.Now(), Duration{1000});
    }
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_SubmitToDone)->Arg(1)->Arg(100);

}  // namespace
}  // namespace plexus

BENCHMARK_MAIN();
