#include "device/sim/sim_device.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace plexus {
namespace {

using std::chrono::microseconds;
using Kind = DeviceEvent::Kind;
using Fate = SimDevice::Fate;

// A job of one kernel on a simulated GPU, and the events that come back.
class Bed : public DeviceEventSink {
 public:
  explicit Bed(const SimGpuOptions& options, uint32_t grid = 40) {
    device = SimDevice::Create(options, clock, /*record_history=*/true).value();
    device->SetSink(this);
    auto program = std::make_shared<Program>();
    Kernel kernel;
    kernel.grid = grid;
    kernel.resources.threads = 128;
    kernel.estimated_block_time = microseconds(10);
    program->kernels.push_back(kernel);
    job.program = program;
  }
  Status Submit(uint64_t id, uint32_t first, uint32_t blocks) {
    Launch launch;
    launch.id = LaunchId(id);
    launch.job = &job;
    launch.kernel = KernelId(0);
    launch.first_block = first;
    launch.num_blocks = blocks;
    return device->Submit(launch);
  }
  void OnEvent(const DeviceEvent& event) override { events.push_back(event); }
  void Run() {
    while (device->Step()) {
    }
  }
  uint32_t Blocks(Kind kind, uint64_t id) const {
    uint32_t blocks = 0;
    for (const DeviceEvent& e : events) {
      if (e.kind == kind && e.launch == LaunchId(id)) blocks += e.blocks;
    }
    return blocks;
  }
  ManualClock clock;
  std::unique_ptr<SimDevice> device;
  JobContext job;
  std::vector<DeviceEvent> events;
};

TEST(SimDeviceTest, InfoTellsWhatTheGpuIs) {
  Bed bed(SimGpuPreset("h100").value());
  const DeviceInfo& info = bed.device->info();
  EXPECT_EQ(info.kind, "sim");
  EXPECT_EQ(info.name, "h100");
  EXPECT_EQ(info.units, 132u);
  EXPECT_EQ(info.unit_limits.shared_bytes, 228 * 1024);
  EXPECT_FALSE(info.unit_addressed);
  EXPECT_TRUE(info.reports_block_starts);
  EXPECT_EQ(info.launch_latency, Duration(2150));
  EXPECT_EQ(info.arena_budget_bytes, size_t{80} << 30);
  SimGpuOptions silent = SimGpuPreset("h100").value();
  silent.report_starts = false;
  EXPECT_FALSE(Bed(silent).device->info().reports_block_starts);
}

TEST(SimDeviceTest, ALaunchReportsInGroupsAndItsBlocksAreInTheHistory) {
  Bed bed(SimGpuPreset("t4").value());
  ASSERT_TRUE(bed.Submit(7, 4, 36).ok());
  bed.Run();
  ASSERT_EQ(bed.events.size(), 6u);
  EXPECT_EQ(bed.Blocks(Kind::kBlocksStarted, 7), 36u);
  EXPECT_EQ(bed.Blocks(Kind::kBlocksFinished, 7), 36u);
  EXPECT_EQ(bed.events.back().blocks, 4u);
  EXPECT_EQ(bed.events.back().device_time, Duration(microseconds(40)));
  EXPECT_EQ(bed.events.back().at, TimePoint(Duration(12150)));
  EXPECT_EQ(bed.clock.Now(), TimePoint(Duration(12150 + 1500)));
  std::vector<bool> ran(40);
  for (const SimDevice::Ran& r : bed.device->ran()) ran[r.launch.first_block] = true;
  EXPECT_EQ(std::count(ran.begin(), ran.end(), true), 36);
  EXPECT_FALSE(ran[3]);
  EXPECT_EQ(bed.device->in_flight(), 0u);
}

TEST(SimDeviceTest, LaunchesInFlightTogetherOverlap) {
  Bed bed(SimGpuPreset("t4").value());
  ASSERT_TRUE(bed.Submit(1, 0, 20).ok());
  ASSERT_TRUE(bed.Submit(2, 20, 20).ok());
  bed.Run();
  for (const SimDevice::Ran& r : bed.device->ran()) EXPECT_EQ(r.begin, TimePoint(Duration(2150)));
}

// Each fate at each report: what is reported, and that nothing stays behind.
TEST(SimDeviceTest, EveryFateAtEveryReportLeavesNothingInFlight) {
  for (const Fate what : {Fate::kDrop, Fate::kRepeat, Fate::kFault, Fate::kLoseDevice}) {
    for (int victim = 0; victim < 6; ++victim) {
      Bed bed(SimGpuPreset("t4").value());
      int reports = 0;
      uint64_t hit = 0;
      bed.device->fate = [&](const Launch& launch) {
        if (reports++ != victim) return Fate::kReport;
        hit = launch.id.value();
        return what;
      };
      ASSERT_TRUE(bed.Submit(1, 0, 40).ok());
      ASSERT_TRUE(bed.Submit(2, 0, 40).ok());
      bed.Run();
      SCOPED_TRACE(testing::Message() << "fate " << static_cast<int>(what) << " at " << victim);
      ASSERT_NE(hit, 0u);
      EXPECT_EQ(bed.device->in_flight(), 0u);
      const uint32_t finished = bed.Blocks(Kind::kBlocksFinished, hit);
      const uint32_t group = victim % 3 == 2 ? 8 : 16;
      if (what == Fate::kDrop) {
        EXPECT_EQ(finished, 40 - group);
      }
      if (what == Fate::kRepeat) {
        EXPECT_EQ(finished, 40 + group);
      }
      if (what == Fate::kFault) {
        EXPECT_EQ(finished, static_cast<uint32_t>(victim % 3) * 16);
        EXPECT_EQ(bed.Blocks(Kind::kFault, hit), group);
      }
      if (what == Fate::kLoseDevice) {
        EXPECT_EQ(bed.events.back().kind, Kind::kDeviceLost);
        EXPECT_EQ(bed.Submit(3, 0, 1).code(), StatusCode::kUnavailable);
        continue;
      }
      EXPECT_EQ(bed.Blocks(Kind::kBlocksFinished, 3 - hit), 40u);
      // The places of the launches are free again.
      ASSERT_TRUE(bed.Submit(3, 0, 40).ok());
      bed.Run();
      EXPECT_EQ(bed.Blocks(Kind::kBlocksFinished, 3), 40u);
    }
  }
}

TEST(SimDeviceTest, ABlockThatFitsNoSmAndBadOptionsAreRefused) {
  SimGpuOptions small = SimGpuPreset("t4").value();
  small.sm.threads = 96;
  Bed bed(small);
  EXPECT_EQ(bed.Submit(1, 0, 1).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(bed.device->in_flight(), 0u);
  small.sms = 0;
  EXPECT_EQ(SimDevice::Create(small, bed.clock).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
