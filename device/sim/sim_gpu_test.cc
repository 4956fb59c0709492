// Schedules small enough to compute by hand.
#include "device/sim/sim_gpu.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <tuple>

namespace plexus {
namespace {

using std::chrono::microseconds;
using Kind = SimGpuEvent::Kind;

struct Seen {
  Kind kind;
  uint64_t tag;
  uint32_t blocks;
  int64_t at_us, seen_us;
  bool last;
};

// A GPU and what its host sees.
class Bed : public SimGpuListener {
 public:
  explicit Bed(SimGpuOptions options) {
    options.record_spans = true;
    gpu = SimGpu::Create(options, clock, this).value();
  }
  void OnGpuEvent(const SimGpuEvent& e) override {
    seen.push_back({e.kind, e.tag, e.blocks, e.at.time_since_epoch() / microseconds(1),
                    clock.Now().time_since_epoch() / microseconds(1), e.last});
    if (on_event) on_event(e);
  }
  void Launch(uint64_t tag, uint32_t stream, uint32_t blocks, int64_t block_us,
              BlockResources resources = {}, bool instrumented = false) {
    SimGpuLaunch l;
    l.tag = tag;
    l.stream = stream;
    l.blocks = blocks;
    l.resources = resources;
    l.block_time = microseconds(block_us);
    l.instrumented = instrumented;
    const Status status = gpu->Launch(l);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void Run() {
    while (gpu->Step()) {
    }
  }
  // When the last block of the launch ended.
  int64_t EndOf(uint64_t tag) const {
    TimePoint end{};
    for (const SimGpuSpan& s : gpu->spans()) end = s.tag == tag ? std::max(end, s.end) : end;
    return end.time_since_epoch() / microseconds(1);
  }
  int64_t BeginOf(uint64_t tag) const {
    TimePoint begin = TimePoint::max();
    for (const SimGpuSpan& s : gpu->spans()) {
      begin = s.tag == tag ? std::min(begin, s.begin) : begin;
    }
    return begin.time_since_epoch() / microseconds(1);
  }
  ManualClock clock;
  std::unique_ptr<SimGpu> gpu;
  std::vector<Seen> seen;
  std::function<void(const SimGpuEvent&)> on_event;
};

SimGpuOptions Gpu(uint32_t sms, int32_t slots, uint32_t queues) {
  SimGpuOptions o;
  o.sms = sms;
  o.sm.blocks = slots;
  o.sm.threads = 1024;
  o.sm.warp_size = 32;
  o.queues = queues;
  return o;
}

BlockResources Block(int32_t threads, int32_t registers = 0, int32_t shared_bytes = 0) {
  BlockResources r;
  r.threads = threads;
  r.registers_per_thread = registers;
  r.shared_bytes = shared_bytes;
  return r;
}

TEST(SimGpuTest, AGridRunsInWavesAndTheTailIsPaidFor) {
  Bed bed(Gpu(4, 2, 1));  // 8 places
  bed.Launch(1, 0, 17, 10);
  bed.Run();
  EXPECT_EQ(bed.EndOf(1), 30);  // 8 + 8 + 1
  ASSERT_EQ(bed.seen.size(), 1u);
  EXPECT_EQ(bed.seen[0].kind, Kind::kKernelFinished);
  EXPECT_EQ(bed.seen[0].blocks, 17u);
  EXPECT_EQ(bed.gpu->in_flight(), 0u);
  EXPECT_EQ(bed.gpu->stats().busy, 17 * Duration(microseconds(10)));
}

// Streams 0 and 1 in one queue: the second kernel of stream 0 waits for its first, and with it the
// kernel of stream 1 behind it, although the GPU is idle.
TEST(SimGpuTest, OneQueueBlocksBehindItsHeadTwoQueuesDoNot) {
  for (const uint32_t queues : {1u, 2u}) {
    Bed bed(Gpu(4, 2, queues));
    bed.Launch(1, 0, 1, 100);
    bed.Launch(2, 0, 1, 100);
    bed.Launch(3, 1, 1, 100);
    bed.Run();
    EXPECT_EQ(bed.EndOf(1), 100);
    EXPECT_EQ(bed.EndOf(2), 200);
    EXPECT_EQ(bed.EndOf(3), queues == 1 ? 200 : 100);
  }
}

TEST(SimGpuTest, KernelsOfDifferentStreamsOverlapTheTailOfTheOlderIsFilled) {
  Bed bed(Gpu(4, 2, 2));
  bed.Launch(1, 0, 12, 10);  // 8, then 4
  bed.Launch(2, 1, 8, 10);   // 4 beside that tail, then 4
  bed.Run();
  EXPECT_EQ(bed.EndOf(1), 20);
  EXPECT_EQ(bed.BeginOf(2), 10);
  EXPECT_EQ(bed.EndOf(2), 30);
}

TEST(SimGpuTest, AHeadThatDoesNotFitLetsTheHeadOfAnotherQueuePass) {
  Bed bed(Gpu(1, 8, 2));
  bed.Launch(1, 0, 1, 100, Block(768));
  bed.Launch(2, 2, 1, 100, Block(512));  // 256 threads are left
  bed.Launch(3, 4, 1, 10, Block(32));    // behind it in queue 0
  bed.Launch(4, 1, 1, 10, Block(256));
  bed.Run();
  EXPECT_EQ(bed.BeginOf(2), 100);
  EXPECT_EQ(bed.BeginOf(3), 100);
  EXPECT_EQ(bed.BeginOf(4), 0);
}

// What one SM of a T4 holds: 16 blocks, 1024 threads, 65536 registers, 64 KiB shared memory.
TEST(SimGpuTest, TheTightestResourceLimitsHowManyBlocksAreResident) {
  struct Case {
    BlockResources block;
    uint32_t per_sm;
  };
  const Case cases[] = {
      {Block(32), 16},               // slots
      {Block(128), 8},               // threads
      {Block(100), 8},               // in whole warps
      {Block(128, 128), 4},          // registers: 16384 each
      {Block(128, 129), 3},          // 129 * 32 rounds up to 17 units of 256 per warp
      {Block(64, 0, 16 * 1024), 4},  // shared memory
      {Block(64, 0, 16 * 1024 + 1), 3},
  };
  for (const Case& c : cases) {
    SimGpuOptions options = SimGpuPreset("t4").value();
    options.sms = 1;
    options.launch_latency = Duration{0};
    Bed bed(options);
    EXPECT_EQ(bed.gpu->Capacity(c.block), c.per_sm);
    bed.Launch(1, 0, 3 * c.per_sm, 10, c.block);
    ASSERT_TRUE(bed.gpu->Step());
    EXPECT_EQ(bed.gpu->resident(0), c.per_sm);
    bed.Run();
    EXPECT_EQ(bed.EndOf(1), 30);
    EXPECT_EQ(bed.gpu->resident(0), 0u);
  }
}

TEST(SimGpuTest, LaunchesGapsAndReportsTakeTheirTime) {
  SimGpuOptions options = Gpu(2, 1, 4);
  options.launch_latency = microseconds(2);
  options.kernel_gap = microseconds(3);
  options.notification_latency = microseconds(5);
  options.completion_latency = microseconds(7);
  options.report_starts = false;
  Bed bed(options);
  bed.Launch(1, 0, 1, 10);
  bed.Launch(2, 0, 1, 10, {}, /*instrumented=*/true);
  bed.Launch(3, 1, 1, 10);
  bed.Run();
  EXPECT_EQ(bed.BeginOf(1), 2);
  EXPECT_EQ(bed.BeginOf(2), 15);
  EXPECT_EQ(bed.BeginOf(3), 2);
  ASSERT_EQ(bed.seen.size(), 3u);
  EXPECT_EQ(bed.seen[0].seen_us, 19);
  EXPECT_EQ(bed.seen[1].seen_us, 19);
  EXPECT_EQ(bed.seen[2].tag, 2u);
  EXPECT_EQ(bed.seen[2].at_us, 25);
  EXPECT_EQ(bed.seen[2].seen_us, 30);
  // A stream that has been idle for longer than the gap starts at once.
  bed.Launch(4, 0, 1, 10);
  bed.Run();
  EXPECT_EQ(bed.BeginOf(4), 32);
}

TEST(SimGpuTest, BlocksReportInGroupsAndTheRestAtTheEnd) {
  SimGpuOptions options = Gpu(8, 4, 1);  // 32 places
  options.notification_group = 16;
  Bed bed(options);
  bed.Launch(1, 0, 42, 10, {}, true);
  bed.Launch(2, 0, 3, 10, {}, true);  // a short grid: one message for each
  bed.Run();
  std::vector<std::tuple<Kind, uint64_t, uint32_t, int64_t, bool>> got;
  for (const Seen& s : bed.seen) got.emplace_back(s.kind, s.tag, s.blocks, s.at_us, s.last);
  using T = std::tuple<Kind, uint64_t, uint32_t, int64_t, bool>;
  EXPECT_EQ(got, (std::vector<T>{
                     {Kind::kBlocksStarted, 1, 16, 0, false},
                     {Kind::kBlocksStarted, 1, 16, 0, false},
                     {Kind::kBlocksFinished, 1, 16, 10, false},
                     {Kind::kBlocksFinished, 1, 16, 10, false},
                     {Kind::kBlocksStarted, 1, 10, 10, false},
                     {Kind::kBlocksFinished, 1, 10, 20, true},
                     {Kind::kBlocksStarted, 2, 3, 20, false},
                     {Kind::kBlocksFinished, 2, 3, 30, true},
                 }));
}

TEST(SimGpuTest, AGroupMayEndInALaterWaveAndCarriesItsBlocksTime) {
  SimGpuOptions options = Gpu(5, 2, 1);  // 10 places
  options.report_starts = false;
  Bed bed(options);
  bed.gpu->block_time = [](uint64_t, uint32_t block) {
    return Duration(microseconds(block < 10 ? 10 : 20));
  };
  Duration times{0};
  bed.on_event = [&](const SimGpuEvent& e) { times += e.device_time; };
  bed.Launch(1, 0, 20, 1, {}, true);
  bed.Run();
  ASSERT_EQ(bed.seen.size(), 2u);
  EXPECT_EQ(bed.seen[0].blocks, 16u);
  EXPECT_EQ(bed.seen[0].at_us, 30);
  EXPECT_EQ(bed.seen[1].blocks, 4u);
  EXPECT_EQ(times, Duration(microseconds(10 * 10 + 10 * 20)));
}

TEST(SimGpuTest, TheSameSeedGivesTheSameTraceAnotherOneADifferentTrace) {
  const auto trace = [](uint64_t seed) {
    SimGpuOptions options = SimGpuPreset("v100").value();
    options.block_jitter = 0.3;
    options.seed = seed;
    Bed bed(options);
    for (uint32_t i = 0; i < 20; ++i) bed.Launch(i, i % 7, 1 + 97 * i, 10 + i, Block(128), true);
    bed.Run();
    std::vector<std::tuple<uint64_t, uint32_t, uint32_t, int64_t, int64_t>> spans;
    for (const SimGpuSpan& s : bed.gpu->spans()) {
      spans.emplace_back(s.tag, s.sm, s.first_block, s.begin.time_since_epoch().count(),
                         s.end.time_since_epoch().count());
    }
    return spans;
  };
  const auto first = trace(5);
  EXPECT_EQ(first, trace(5));
  EXPECT_NE(first, trace(6));
}

TEST(SimGpuTest, JitterKeepsTheMeanAndSpreadsTheTimes) {
  SimGpuOptions options = Gpu(1, 1, 1);
  options.block_jitter = 0.5;
  Bed bed(options);
  bed.Launch(1, 0, 20000, 10);
  bed.Run();
  const double mean_us =
      std::chrono::duration<double, std::micro>(bed.gpu->stats().busy).count() / 20000;
  EXPECT_NEAR(mean_us, 10, 0.2);
  Duration shortest = Duration::max(), longest{0};
  for (const SimGpuSpan& s : bed.gpu->spans()) {
    shortest = std::min(shortest, s.end - s.begin);
    longest = std::max(longest, s.end - s.begin);
  }
  EXPECT_LT(shortest, Duration(microseconds(4)));
  EXPECT_GT(longest, Duration(microseconds(25)));
}

TEST(SimGpuTest, AnAbortedLaunchStopsAtOnceWhereverItIs) {
  SimGpuOptions options = Gpu(2, 2, 1);  // 4 places
  options.launch_latency = microseconds(1);
  options.notification_latency = microseconds(4);
  Bed bed(options);
  bed.Launch(1, 0, 8, 10, {}, true);  // runs
  bed.Launch(2, 0, 1, 10, {}, true);  // waits for its stream
  bed.Launch(3, 1, 1, 10, {}, true);  // waits behind that
  while (bed.clock.Now() < TimePoint(microseconds(13)) && bed.gpu->Step()) {
  }
  bed.Launch(4, 2, 1, 10, {}, true);  // on its way
  EXPECT_TRUE(bed.gpu->Abort(4));
  EXPECT_TRUE(bed.gpu->Abort(2));
  EXPECT_TRUE(bed.gpu->Abort(1));
  EXPECT_FALSE(bed.gpu->Abort(1));
  EXPECT_FALSE(bed.gpu->Abort(99));
  const size_t seen = bed.seen.size();
  EXPECT_EQ(bed.gpu->in_flight(), 1u);
  const int64_t now_us = bed.clock.Now().time_since_epoch() / microseconds(1);
  bed.Run();
  for (size_t i = seen; i < bed.seen.size(); ++i) EXPECT_EQ(bed.seen[i].tag, 3u);
  EXPECT_EQ(bed.BeginOf(3), now_us);
  EXPECT_EQ(bed.gpu->in_flight(), 0u);
  EXPECT_EQ(bed.gpu->resident(0) + bed.gpu->resident(1), 0u);
}

// Whatever is aborted at whatever step, the rest runs to its end and every SM is empty.
TEST(SimGpuTest, AbortsAnywhereLeaveNothingBehind) {
  for (uint32_t victim = 0; victim < 12; ++victim) {
    for (int after = 0; after < 60; after += 3) {
      SimGpuOptions options = SimGpuPreset("t4").value();
      options.sms = 2;
      options.queues = 2;
      options.block_jitter = victim % 2 == 0 ? 0.2 : 0;
      Bed bed(options);
      for (uint32_t i = 0; i < 12; ++i) {
        bed.Launch(i, i % 5, 1 + 9 * i, 10, Block(64 << i % 4), i % 3 != 0);
      }
      for (int step = 0; step < after; ++step) bed.gpu->Step();
      const bool aborted = bed.gpu->Abort(victim);
      bed.Run();
      std::map<uint64_t, uint32_t> finished;
      for (const Seen& s : bed.seen) {
        if (s.kind != Kind::kBlocksStarted) finished[s.tag] += s.blocks;
      }
      for (uint32_t i = 0; i < 12; ++i) {
        if (i == victim && aborted) continue;
        EXPECT_EQ(finished[i], 1 + 9 * i) << "victim " << victim << " after " << after;
      }
      EXPECT_EQ(bed.gpu->in_flight(), 0u);
      EXPECT_EQ(bed.gpu->resident(0) + bed.gpu->resident(1), 0u);
    }
  }
}

TEST(SimGpuTest, CopiesKeepTheirStreamsOrderAndOneEnginePerDirection) {
  SimGpuOptions options = Gpu(1, 1, 1);
  options.copy_bytes_per_sec = 1e9;
  options.copy_latency = microseconds(5);
  Bed bed(options);
  const auto copy = [&](uint64_t tag, uint32_t stream, SimGpuCopy::Direction direction) {
    ASSERT_TRUE(bed.gpu->Copy({tag, stream, 10'000, direction}).ok());
  };
  using D = SimGpuCopy::Direction;
  copy(1, 0, D::kHostToDevice);
  bed.Launch(2, 0, 1, 100);
  copy(3, 1, D::kHostToDevice);
  copy(4, 0, D::kDeviceToHost);
  copy(5, 1, D::kDeviceToHost);  // behind 4 in its engine
  bed.Run();
  std::map<uint64_t, int64_t> at;
  for (const Seen& s : bed.seen) at[s.tag] = s.at_us;
  EXPECT_EQ(at, (std::map<uint64_t, int64_t>{{1, 15}, {2, 115}, {3, 30}, {4, 130}, {5, 145}}));
  EXPECT_EQ(bed.gpu->in_flight(), 0u);
}

TEST(SimGpuTest, BadLaunchesAndOptionsAreRefusedWithTheReason) {
  ManualClock clock;
  const auto gpu = SimGpu::Create(SimGpuPreset("t4").value(), clock, nullptr).value();
  SimGpuLaunch l;
  l.blocks = 1;
  l.block_time = microseconds(1);
  l.resources = Block(2048);
  Status status = gpu->Launch(l);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("'t4': a block needs 2048 threads, a unit has 1024"),
            std::string::npos)
      << status.message();
  l.resources = Block(32);
  l.stream = 1u << 30;
  EXPECT_EQ(gpu->Launch(l).code(), StatusCode::kInvalidArgument);
  l.stream = 0;
  l.blocks = 0;
  EXPECT_EQ(gpu->Launch(l).code(), StatusCode::kInvalidArgument);
  l.blocks = 1;
  l.block_time = Duration{0};
  EXPECT_EQ(gpu->Launch(l).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(gpu->in_flight(), 0u);
  EXPECT_FALSE(gpu->Step());

  const std::function<void(SimGpuOptions&)> spoil[] = {
      [](SimGpuOptions& o) { o.sms = 0; },
      [](SimGpuOptions& o) { o.queues = 0; },
      [](SimGpuOptions& o) { o.sm.blocks = 0; },
      [](SimGpuOptions& o) { o.sm.warp_size = 0; },
      [](SimGpuOptions& o) { o.notification_group = 0; },
      [](SimGpuOptions& o) { o.launch_latency = Duration{-1}; },
      [](SimGpuOptions& o) { o.block_jitter = std::numeric_limits<double>::quiet_NaN(); },
      [](SimGpuOptions& o) { o.copy_bytes_per_sec = 0; },
      [](SimGpuOptions& o) { o.peak_flops = -1; },
  };
  for (const auto& f : spoil) {
    SimGpuOptions options = SimGpuPreset("t4").value();
    f(options);
    EXPECT_EQ(SimGpu::Create(options, clock, nullptr).status().code(),
              StatusCode::kInvalidArgument);
  }
}

TEST(SimGpuTest, PresetsAreSoundAndAnUnknownNameListsThem) {
  ManualClock clock;
  EXPECT_EQ(SimGpuPresetNames(), (std::vector<std::string>{"t4", "p100", "v100", "a100", "h100"}));
  for (const std::string& name : SimGpuPresetNames()) {
    const Result<SimGpuOptions> options = SimGpuPreset(name);
    ASSERT_TRUE(options.ok());
    EXPECT_TRUE(SimGpu::Create(*options, clock, nullptr).ok());
    EXPECT_GT(options->peak_flops, 0);
  }
  const Status status = SimGpuPreset("h200").status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "unknown device 'h200'; known: t4, p100, v100, a100, h100");
}

// Published for 10,000 jobs of eight dependent one-block kernels of about 0.6 ms on a T4, best over
// the arrival rates; here a tenth of the jobs, all there from the start.
TEST(SimGpuTest, HeadOfLineBlockingFollowsThePublishedCurve) {
  const std::map<uint32_t, double> published_s = {{1, 47.8}, {2, 23}, {4, 11}, {8, 5.4}, {16, 2.9}};
  for (const auto& [queues, published] : published_s) {
    SimGpuOptions options = SimGpuPreset("t4").value();
    options.queues = queues;
    ManualClock clock;
    const auto gpu = SimGpu::Create(options, clock, nullptr).value();
    for (uint32_t job = 0; job < 1000; ++job) {
      for (uint32_t k = 0; k < 8; ++k) {
        SimGpuLaunch l;
        l.tag = job * 8 + k;
        l.stream = job;
        l.blocks = 1;
        l.resources = Block(128);
        l.block_time = microseconds(600);
        ASSERT_TRUE(gpu->Launch(l).ok());
      }
    }
    while (gpu->Step()) {
    }
    const double seconds = std::chrono::duration<double>(clock.Now().time_since_epoch()).count();
    EXPECT_NEAR(seconds * 10 / published, 1.0, 0.2) << queues << " queues";
  }
}

}  // namespace
}  // namespace plexus
