// Timeouts, cancellation, and devices that misbehave.
#include <gtest/gtest.h>

#include "sched/test_bed.h"

namespace plexus {
namespace {

constexpr TimePoint kStart{std::chrono::seconds(1)};
using Fate = SimDevice::Fate;

TestBed::Options Cpu(uint32_t units, std::string policy = "fifo") {
  TestBed::Options o;
  o.device.units = units;
  o.policy = std::move(policy);
  return o;
}

TEST(DispatcherFaultTest, AWaitingJobTimesOutWhenPumped) {
  TestBed bed(Cpu(1));
  const JobId running = bed.Submit(Chain("running", 1, 1, 500 * kUs));
  JobSpec spec = bed.Spec(Chain("waiting", 1, 1, kUs));
  spec.attributes.timeout_at = kStart + 100 * kUs;
  const JobId waiting = bed.Submit(spec);
  EXPECT_EQ(bed.dispatcher.Pump(kStart), kStart + 100 * kUs);
  EXPECT_FALSE(bed.Ended(waiting));
  bed.dispatcher.Pump(kStart + 100 * kUs);
  EXPECT_EQ(bed.CodeOf(waiting), StatusCode::kDeadlineExceeded);
  bed.Run();
  EXPECT_EQ(bed.CodeOf(running), StatusCode::kOk);
  EXPECT_EQ(bed.dispatcher.Pump(bed.clock.Now()), TimePoint::max());
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ARunningJobTimesOutAtItsNextBoundary) {
  TestBed bed(Cpu(1));
  JobSpec spec = bed.Spec(Chain("long", 10, 1, 150 * kUs));
  spec.attributes.timeout_at = kStart + 200 * kUs;
  const JobId job = bed.Submit(spec);
  bed.Run();
  EXPECT_EQ(bed.CodeOf(job), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(bed.EndOf(job), kStart + 300 * kUs);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ACancelledJobEndsWhenItsLaunchIsBack) {
  TestBed bed(Cpu(1));
  const JobId job = bed.Submit(Chain("long", 10, 1, 150 * kUs));
  const JobId waiting = bed.Submit(Chain("waiting", 1, 1, 150 * kUs));
  bed.dispatcher.Cancel(waiting, CancelledError("client went away"));
  EXPECT_EQ(bed.CodeOf(waiting), StatusCode::kCancelled);
  EXPECT_NE(bed.ended.at(waiting).message().find("went away"), std::string::npos);
  bed.dispatcher.Cancel(job, CancelledError("why"));
  EXPECT_FALSE(bed.Ended(job));
  bed.dispatcher.Cancel(job, CancelledError("again"));
  bed.Run();
  EXPECT_EQ(bed.CodeOf(job), StatusCode::kCancelled);
  EXPECT_EQ(bed.EndOf(job), kStart + 150 * kUs);
  bed.dispatcher.Cancel(job, CancelledError("too late"));
  bed.dispatcher.Cancel(JobId(), CancelledError("unknown"));
  bed.dispatcher.Cancel(JobId(123), CancelledError("unknown"));
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, AFaultEndsItsJobAndNamesProgramAndKernel) {
  TestBed bed(Cpu(1));
  const JobId bad = bed.Submit(Chain("bad", 3, 1, 150 * kUs));
  const JobId good = bed.Submit(Chain("good", 3, 1, 150 * kUs));
  bed.device.fate = [&](const Launch& l) {
    return bed.id_of[l.id] == bad && l.kernel == KernelId(1) ? Fate::kFault : Fate::kReport;
  };
  bed.Run();
  EXPECT_EQ(bed.CodeOf(bad), StatusCode::kInternal);
  EXPECT_NE(bed.ended.at(bad).message().find("program bad: kernel k1: simulated fault"),
            std::string::npos)
      << bed.ended.at(bad).message();
  EXPECT_EQ(bed.CodeOf(good), StatusCode::kOk);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, RepeatedAndUnknownEventsAreIgnoredAndCounted) {
  TestBed bed(Cpu(2));
  bed.device.fate = [](const Launch&) { return Fate::kRepeat; };
  for (int i = 0; i < 5; ++i) bed.Submit(Chain("a", 3, 4, 50 * kUs));
  DeviceEvent unknown;
  unknown.launch = LaunchId(77);
  unknown.blocks = 1;
  bed.dispatcher.OnEvent(unknown);
  bed.dispatcher.OnEvent(DeviceEvent{});
  bed.Run();
  EXPECT_EQ(bed.dispatcher.stats().events_ignored, 2 + bed.device.ran().size());
  for (const auto& [job, status] : bed.ended) EXPECT_TRUE(status.ok());
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ALostEventIsFoundByTheNextOneOfItsUnit) {
  TestBed bed(Cpu(1));
  int events = 0;
  bed.device.fate = [&](const Launch&) { return ++events == 3 ? Fate::kDrop : Fate::kReport; };
  for (int i = 0; i < 10; ++i) bed.Submit(Chain("a", 2, 2, 20 * kUs));
  bed.Run();
  EXPECT_EQ(bed.ended.size(), 10u);
  for (const auto& [job, status] : bed.ended) EXPECT_TRUE(status.ok());
  EXPECT_EQ(bed.dispatcher.stats().launches_lost, 1u);
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ALaunchThatNeverReportsEndsItsJobAfterTheBound) {
  for (const bool unit_addressed : {true, false}) {
    TestBed::Options options = Cpu(1);
    options.device.unit_addressed = unit_addressed;
    options.dispatcher.hang_bound = std::chrono::seconds(2);
    TestBed bed(options);
    bool drop = true;
    bed.device.fate = [&](const Launch&) { return drop ? Fate::kDrop : Fate::kReport; };
    const JobId lost = bed.Submit(Chain("lost", 2, 1, 150 * kUs));
    const JobId next = bed.Submit(Chain("next", 1, 1, 150 * kUs));
    bed.device.Step();
    drop = false;
    EXPECT_EQ(bed.dispatcher.Pump(bed.clock.Now()), kStart + std::chrono::seconds(2));
    bed.Run();
    bed.clock.Advance(std::chrono::seconds(2));
    bed.dispatcher.Pump(bed.clock.Now());
    bed.Run();
    EXPECT_EQ(bed.CodeOf(lost), StatusCode::kUnavailable);
    EXPECT_EQ(bed.CodeOf(next), StatusCode::kOk);
    bed.CheckAtRest();
  }
}

TEST(DispatcherFaultTest, ALateReportOfALostLaunchIsHarmless) {
  TestBed::Options options = Cpu(1);
  options.dispatcher.hang_bound = std::chrono::seconds(2);
  TestBed bed(options);
  LaunchId launch;
  bed.on_launch = [&](const Launch& l) { launch = l.id; };
  bed.device.fate = [](const Launch&) { return Fate::kDrop; };
  bed.Submit(Chain("slow", 1, 1, 150 * kUs, 100));
  bed.Run();
  bed.dispatcher.Pump(kStart + std::chrono::seconds(3));
  EXPECT_EQ(bed.ended.size(), 1u);
  EXPECT_EQ(bed.device.arena_bytes(), 100u);  // it may still write there
  DeviceEvent late;
  late.launch = launch;
  late.blocks = 1;
  bed.dispatcher.OnEvent(late);
  bed.dispatcher.OnEvent(late);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ALostDeviceEndsEveryJobAndRefusesNewOnes) {
  TestBed bed(Cpu(2));
  std::vector<JobId> jobs;
  for (int i = 0; i < 8; ++i) jobs.push_back(bed.Submit(Chain("a", 3, 2, 150 * kUs)));
  int events = 0;
  bed.device.fate = [&](const Launch&) {
    return ++events == 5 ? Fate::kLoseDevice : Fate::kReport;
  };
  bed.Run();
  for (JobId job : jobs) EXPECT_EQ(bed.CodeOf(job), StatusCode::kUnavailable);
  EXPECT_EQ(bed.dispatcher.Submit(bed.Spec(Chain("a", 1, 1, kUs))).status().code(),
            StatusCode::kUnavailable);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, AStoppedDeviceEndsJobsAsTheirLaunchesComeBack) {
  TestBed bed(Cpu(2));
  for (int i = 0; i < 6; ++i) bed.Submit(Chain("a", 3, 2, 150 * kUs));
  bed.device.Stop();
  bed.Run();
  EXPECT_EQ(bed.ended.size(), 6u);
  for (const auto& [job, status] : bed.ended) EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  bed.CheckAtRest();
}

// The same workload, with one event after the other going wrong: whatever happens to it, every job
// ends once, the others end well, and the mirror is empty.
TEST(DispatcherFaultTest, WhateverGoesWrongAtAnyEventTheOthersFinish) {
  enum class What { kFault, kRepeat, kCancel, kTimeout };
  for (const bool unit_addressed : {true, false}) {
    for (const What what : {What::kFault, What::kRepeat, What::kCancel, What::kTimeout}) {
      // A repeated count of single blocks cannot be told from a new one.
      if (what == What::kRepeat && !unit_addressed) continue;
      int total = 1;
      for (int victim = 0; victim < total; ++victim) {
        TestBed::Options options = Cpu(2, "srpt");
        options.device.unit_addressed = unit_addressed;
        options.device.unit_limits.blocks = 2;
        options.device.arena_budget_bytes = 250;
        TestBed bed(options);
        JobId hit;
        int events = 0;
        bed.device.fate = [&](const Launch& l) {
          if (events++ != victim) return Fate::kReport;
          if (what == What::kTimeout) return Fate::kReport;
          hit = bed.id_of[l.id];
          if (what == What::kFault) return Fate::kFault;
          if (what == What::kRepeat) return Fate::kRepeat;
          if (what == What::kCancel) bed.dispatcher.Cancel(hit, CancelledError("test"));
          return Fate::kReport;
        };
        for (int i = 0; i < 5; ++i) {
          JobSpec spec = bed.Spec(MakeProgram("p" + std::to_string(i),
                                              {{3, 60 * kUs, {}, {}},
                                               {2, 40 * kUs, {0}, {}},
                                               {1, 40 * kUs, {0}, {}},
                                               {4, 30 * kUs, {1, 2}, {}}},
                                              100));
          if (what == What::kTimeout && i == 2) {
            spec.attributes.timeout_at = kStart + 30 * victim * kUs;
            hit = bed.Submit(spec);
          } else {
            bed.Submit(spec);
          }
        }
        bed.Run();
        SCOPED_TRACE(testing::Message() << "unit_addressed " << unit_addressed << " what "
                                        << static_cast<int>(what) << " event " << victim);
        total = events;
        ASSERT_EQ(bed.ended.size(), 5u);
        for (const auto& [job, status] : bed.ended) {
          if (job != hit || what == What::kRepeat) {
            ASSERT_TRUE(status.ok()) << status.ToString();
          }
        }
        bed.CheckHistory();
        bed.CheckAtRest();
      }
    }
  }
}

}  // namespace
}  // namespace plexus
