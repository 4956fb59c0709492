// The CPU device under the real dispatcher, with real threads: counted, never timed.
#include "device/cpu/cpu_device.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <deque>
#include <functional>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "sched/dispatcher.h"

namespace plexus {
namespace {

// Runs a function per block.
class LambdaCode : public CpuKernelCode {
 public:
  using Fn = std::function<Status(uint32_t block, const CpuBlockContext&)>;
  explicit LambdaCode(Fn fn, size_t scratch_bytes = 0)
      : fn_(std::move(fn)), scratch_bytes_(scratch_bytes) {}
  size_t scratch_bytes() const override { return scratch_bytes_; }
  Status Run(uint32_t first, uint32_t count, const CpuBlockContext& context) const override {
    for (uint32_t b = first; b < first + count; ++b) PLEXUS_RETURN_IF_ERROR(fn_(b, context));
    return OkStatus();
  }

 private:
  Fn fn_;
  size_t scratch_bytes_;
};

Kernel MakeKernel(uint32_t grid, LambdaCode::Fn fn, size_t scratch_bytes = 0) {
  Kernel kernel;
  kernel.name = "k";
  kernel.grid = grid;
  kernel.estimated_block_time = std::chrono::microseconds(50);
  kernel.code = std::make_shared<LambdaCode>(std::move(fn), scratch_bytes);
  return kernel;
}

std::shared_ptr<Program> ChainOf(std::string name, std::vector<Kernel> kernels,
                                 size_t arena_bytes = 0) {
  auto program = std::make_shared<Program>();
  program->name = name;
  ContentHasher hasher;
  hasher.UpdateString(name);
  program->signature = hasher.Finish();
  program->device_kind = "cpu";
  program->arena_bytes = arena_bytes;
  program->kernels = std::move(kernels);
  for (uint32_t k = 0; k < program->kernels.size(); ++k) {
    program->kernels[k].dependencies = k > 0 ? 1 : 0;
    if (k + 1 < program->kernels.size()) program->kernels[k].successors = {KernelId(k + 1)};
  }
  return program;
}

// Counts ends and lets threads wait for a number of them.
class Counter : public JobListener {
 public:
  void OnJobDone(JobId, Status status, JobBuffers) override {
    if (status.ok()) {
      ok.fetch_add(1);
    } else {
      last_code.store(status.code());
      failed.fetch_add(1);
    }
    if (device != nullptr) device->NotifyDone();
    ended.fetch_add(1);
    ended.notify_all();
  }
  void WaitFor(uint32_t count) {
    for (uint32_t now = ended.load(); now < count; now = ended.load()) ended.wait(now);
  }
  CpuDevice* device = nullptr;
  std::atomic<uint32_t> ok{0}, failed{0}, ended{0};
  std::atomic<StatusCode> last_code{StatusCode::kOk};
};

class CpuDeviceTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  CpuDeviceTest()
      : device(Options(), RealClock::Get()),
        dispatcher(device, MakePolicy("srpt").value(), RealClock::Get(), nullptr, nullptr) {}
  ~CpuDeviceTest() override { device.Stop(); }
  static CpuDeviceOptions Options() {
    CpuDeviceOptions o;
    o.workers = GetParam();
    o.arena_budget_bytes = 1 << 20;
    return o;
  }
  JobSpec Spec(const ProgramPtr& program, JobListener* listener) {
    JobSpec spec;
    spec.program = program;
    spec.listener = listener;
    return spec;
  }
  // Submits and runs as a synchronous caller.
  void RunHere(const ProgramPtr& program) {
    struct Flag : JobListener {
      explicit Flag(CpuDevice& d) : device(d) {}
      void OnJobDone(JobId, Status s, JobBuffers) override {
        status = std::move(s);
        CpuDevice& d = device;  // once done is true, this listener may be gone
        done.store(true);
        d.NotifyDone();
      }
      CpuDevice& device;
      Status status;
      std::atomic<bool> done{false};
    } flag(device);
    CpuDevice::Participant participant(device);
    ASSERT_TRUE(dispatcher.Submit(Spec(program, &flag)).ok());
    participant.RunUntil([&] { return flag.done.load(); });
    EXPECT_TRUE(flag.status.ok()) << flag.status.ToString();
  }

  CpuDevice device;
  Dispatcher dispatcher;
};

TEST_P(CpuDeviceTest, EveryBlockOfEveryJobFromManyThreadsRunsOnce) {
  constexpr uint32_t kThreads = 4, kJobs = 1500, kKernels = 5, kGrid = 7;
  std::atomic<uint64_t> blocks{0};
  std::vector<Kernel> kernels;
  for (uint32_t k = 0; k < kKernels; ++k) {
    kernels.push_back(MakeKernel(kGrid, [&](uint32_t, const CpuBlockContext& c) {
      if (c.arena == nullptr) return InternalError("no arena");
      blocks.fetch_add(1);
      return OkStatus();
    }));
  }
  const ProgramPtr program = ChainOf("count", std::move(kernels), 4096);
  Counter counter;
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint32_t i = 0; i < kJobs; ++i) {
        EXPECT_TRUE(dispatcher.Submit(Spec(program, &counter)).ok());
      }
    });
  }
  for (std::thread& t : threads) t.join();
  counter.WaitFor(kThreads * kJobs);
  EXPECT_EQ(counter.ok.load(), kThreads * kJobs);
  EXPECT_EQ(blocks.load(), uint64_t{kThreads} * kJobs * kKernels * kGrid);
  const DispatcherStats stats = dispatcher.stats();
  EXPECT_EQ(stats.in_flight, 0u);
  EXPECT_EQ(stats.events_ignored, 0u);
  EXPECT_EQ(stats.blocks, blocks.load());
  device.Stop();  // before the counter goes: a callback may still notify
}

// Each kernel reads what the one before wrote, without atomics: the device orders them.
TEST_P(CpuDeviceTest, AKernelSeesWhatTheKernelsBeforeItWrote) {
  constexpr uint32_t kGrid = 16, kKernels = 20;
  std::vector<uint32_t> cells(kGrid, 0);
  std::vector<Kernel> kernels;
  for (uint32_t k = 0; k < kKernels; ++k) {
    kernels.push_back(MakeKernel(kGrid, [&cells, k](uint32_t b, const CpuBlockContext&) {
      // A neighbour's cell of the kernel before.
      const uint32_t other = (b * 7 + 3) % kGrid;
      if (k % 2 == 1 && cells[other] < k) return InternalError("too early");
      if (k % 2 == 0) cells[b] = k + 1;
      return OkStatus();
    }));
  }
  const ProgramPtr program = ChainOf("order", std::move(kernels));
  for (int i = 0; i < 50; ++i) {
    std::fill(cells.begin(), cells.end(), 0);
    RunHere(program);
  }
}

TEST_P(CpuDeviceTest, SynchronousCallersFromManyThreadsAllReturn) {
  constexpr uint32_t kThreads = 5, kCalls = 400;
  std::atomic<uint64_t> blocks{0};
  const auto count = [&](uint32_t, const CpuBlockContext&) {
    blocks.fetch_add(1);
    return OkStatus();
  };
  const ProgramPtr program = ChainOf("sync", {MakeKernel(3, count), MakeKernel(1, count)});
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (uint32_t i = 0; i < kCalls; ++i) RunHere(program);
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(blocks.load(), uint64_t{kThreads} * kCalls * 4);
}

TEST_P(CpuDeviceTest, ALoneSynchronousCallerRunsANarrowJobItself) {
  // Wait until the workers sleep, so that there is a unit to take.
  while (device.parked_units() < GetParam()) std::this_thread::yield();
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> elsewhere{0};
  std::vector<Kernel> kernels;
  for (int k = 0; k < 50; ++k) {
    kernels.push_back(MakeKernel(1, [&](uint32_t, const CpuBlockContext&) {
      if (std::this_thread::get_id() != caller) elsewhere.fetch_add(1);
      return OkStatus();
    }));
  }
  RunHere(ChainOf("narrow", std::move(kernels)));
  EXPECT_EQ(elsewhere.load(), 0);
  EXPECT_FALSE(device.LocalUnit().valid());
}

TEST_P(CpuDeviceTest, ACallerWithoutAUnitOfItsOwnBlocksUntilItsJobIsDone) {
  // Occupy every unit until released.
  std::atomic<bool> release{false};
  std::latch running(GetParam());
  Counter blockers;
  blockers.device = &device;
  const ProgramPtr blocker =
      ChainOf("blocker", {MakeKernel(1, [&](uint32_t, const CpuBlockContext&) {
                running.count_down();
                release.wait(false);
                return OkStatus();
              })});
  for (uint32_t i = 0; i < GetParam(); ++i) {
    ASSERT_TRUE(dispatcher.Submit(Spec(blocker, &blockers)).ok());
  }
  running.wait();
  std::thread caller([&] {
    RunHere(ChainOf("after",
                    {MakeKernel(2, [](uint32_t, const CpuBlockContext&) { return OkStatus(); })}));
  });
  release.store(true);
  release.notify_all();
  caller.join();
  blockers.WaitFor(GetParam());
  device.Stop();
}

TEST_P(CpuDeviceTest, ErrorsAndExceptionsEndTheirJobOnly) {
  const ProgramPtr fails =
      ChainOf("fails", {MakeKernel(4, [](uint32_t b, const CpuBlockContext&) {
                return b == 2 ? InvalidArgumentError("index out of range") : OkStatus();
              })});
  const ProgramPtr throws =
      ChainOf("throws", {MakeKernel(1, [](uint32_t, const CpuBlockContext&) -> Status {
                throw std::runtime_error("boom");
              })});
  const ProgramPtr odd =
      ChainOf("odd", {MakeKernel(1, [](uint32_t, const CpuBlockContext&) -> Status { throw 42; })});
  auto empty = ChainOf("no code", {Kernel{}});
  empty->kernels[0].estimated_block_time = Duration{1};
  const ProgramPtr good =
      ChainOf("good", {MakeKernel(4, [](uint32_t, const CpuBlockContext&) { return OkStatus(); })});
  struct Last : JobListener {
    void OnJobDone(JobId, Status s, JobBuffers) override {
      status = std::move(s);
      done.store(true);
      done.notify_all();
    }
    Status status;
    std::atomic<bool> done{false};
  };
  std::deque<Last> lasts;  // alive until the device has stopped: callbacks may still notify
  const auto run = [&](const ProgramPtr& program) {
    Last& last = lasts.emplace_back();
    EXPECT_TRUE(dispatcher.Submit(Spec(program, &last)).ok());
    last.done.wait(false);
    return last.status;
  };
  EXPECT_EQ(run(fails).code(), StatusCode::kInvalidArgument);
  EXPECT_NE(run(throws).message().find("boom"), std::string::npos);
  EXPECT_EQ(run(odd).code(), StatusCode::kInternal);
  EXPECT_EQ(run(empty).code(), StatusCode::kInternal);
  EXPECT_TRUE(run(good).ok());
  device.Stop();
}

TEST_P(CpuDeviceTest, ScratchIsAlignedAndAsLargeAsAsked) {
  std::atomic<int> bad{0};
  const auto touch = [&](size_t size) {
    return [&bad, size](uint32_t, const CpuBlockContext& c) {
      if (reinterpret_cast<uintptr_t>(c.scratch) % 64 != 0) bad.fetch_add(1);
      std::fill(c.scratch, c.scratch + size, std::byte{1});
      return OkStatus();
    };
  };
  RunHere(ChainOf("scratch", {MakeKernel(4, touch(100), 100), MakeKernel(4, touch(70'000), 70'000),
                              MakeKernel(4, touch(10), 10)}));
  EXPECT_EQ(bad.load(), 0);
}

TEST_P(CpuDeviceTest, StopWithWorkInFlightEndsEveryJobAndReturns) {
  std::atomic<bool> release{false};
  std::latch running(1);
  std::atomic<bool> first{true};
  const ProgramPtr program =
      ChainOf("long", {MakeKernel(1,
                                  [&](uint32_t, const CpuBlockContext&) {
                                    if (first.exchange(false)) {
                                      running.count_down();
                                      release.wait(false);
                                    }
                                    return OkStatus();
                                  }),
                       MakeKernel(2, [](uint32_t, const CpuBlockContext&) { return OkStatus(); })});
  Counter counter;
  constexpr uint32_t kJobs = 40;
  for (uint32_t i = 0; i < kJobs; ++i) {
    ASSERT_TRUE(dispatcher.Submit(Spec(program, &counter)).ok());
  }
  running.wait();
  std::thread stopper([&] { device.Stop(); });
  release.store(true);
  release.notify_all();
  stopper.join();
  EXPECT_EQ(counter.ended.load(), kJobs);
  EXPECT_EQ(dispatcher.stats().in_flight, 0u);
  const uint32_t accepted = dispatcher.Submit(Spec(program, &counter)).ok() ? 1 : 0;
  EXPECT_EQ(counter.ended.load(), kJobs + accepted);
  EXPECT_GE(counter.failed.load(), accepted);
}

TEST_P(CpuDeviceTest, WorkersThatHaveNothingToDoPark) {
  RunHere(ChainOf("once",
                  {MakeKernel(8, [](uint32_t, const CpuBlockContext&) { return OkStatus(); })}));
  while (device.parked_units() < GetParam()) std::this_thread::yield();
}

TEST(PinnedWorkersTest, EachStaysOnItsCore) {
  CpuDeviceOptions options;
  options.workers = 3;
  options.pin = true;
  CpuDevice device(options, RealClock::Get());
  Dispatcher dispatcher(device, MakePolicy("srpt").value(), RealClock::Get(), nullptr, nullptr);
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  std::vector<int> cores;
  for (int c = 0; c < CPU_SETSIZE; ++c) {
    if (CPU_ISSET(c, &allowed)) cores.push_back(c);
  }
  std::atomic<uint32_t> right{0};
  JobSpec spec;
  spec.program = ChainOf("pinned", {MakeKernel(60, [&](uint32_t, const CpuBlockContext& context) {
                           const int core = cores[context.worker % cores.size()];
                           right += sched_getcpu() == core ? 1 : 0;
                           return OkStatus();
                         })});
  Counter counter;
  spec.listener = &counter;
  ASSERT_TRUE(dispatcher.Submit(std::move(spec)).ok());
  counter.WaitFor(1);
  EXPECT_EQ(right, 60u);
  device.Stop();
}

TEST_P(CpuDeviceTest, LaunchesItCannotTakeAreRefused) {
  Launch launch;
  EXPECT_EQ(device.Submit(launch).code(), StatusCode::kInvalidArgument);
  launch.unit = UnitId(GetParam());
  EXPECT_EQ(device.Submit(launch).code(), StatusCode::kInvalidArgument);
  device.Stop();
  device.Stop();
  launch.unit = UnitId(0);
  EXPECT_EQ(device.Submit(launch).code(), StatusCode::kUnavailable);
}

INSTANTIATE_TEST_SUITE_P(Workers, CpuDeviceTest, ::testing::Values(1, 2, 4),
                         [](const auto& info) { return std::to_string(info.param); });

}  // namespace
}  // namespace plexus
