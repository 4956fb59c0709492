// Schedules small enough to compute by hand.
#include "device/sim/sim_gpu.h"

#include <gtest/gtest.h>

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
