// Timeouts, cancellation, and devices that misbehave.
#include <gtest/gtest.h>

#include <set>

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
  options.device.tells_idle = false;
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

// A device that knows that its unit is idle tells a lost report from a unit that hangs.
TEST(DispatcherFaultTest, AUnitWhoseReportGotLostIsUsedAgain) {
  for (const bool tells_idle : {true, false}) {
    TestBed::Options options = Cpu(2);
    options.device.tells_idle = tells_idle;
    options.dispatcher.hang_bound = std::chrono::seconds(2);
    TestBed bed(options);
    bed.device.fate = [](const Launch& l) {
      return l.unit == UnitId(1) ? Fate::kDrop : Fate::kReport;
    };
    const JobId lost = bed.Submit(Chain("lost", 1, 2, 150 * kUs, 100));
    bed.Run();
    bed.device.fate = nullptr;
    bed.clock.Advance(std::chrono::seconds(3));
    bed.dispatcher.Pump(bed.clock.Now());
    EXPECT_EQ(bed.CodeOf(lost), StatusCode::kUnavailable);
    EXPECT_EQ(bed.dispatcher.stats().launches_lost, 1u);
    EXPECT_EQ(bed.device.arena_bytes(), tells_idle ? 0u : 100u);
    const size_t before = bed.device.ran().size();
    bed.Submit(Chain("wide", 1, 8, 150 * kUs));
    bed.Run();
    std::set<uint32_t> units;
    for (size_t i = before; i < bed.device.ran().size(); ++i) {
      units.insert(bed.device.ran()[i].unit.value());
    }
    EXPECT_EQ(units, tells_idle ? std::set<uint32_t>({0, 1}) : std::set<uint32_t>({0}));
    if (tells_idle) bed.CheckAtRest();
  }
}

// The device reports a launch in parts: what is given up is over with the last of them only.
TEST(DispatcherFaultTest, APartOfALostLaunchDoesNotGiveItsMemoryBack) {
  TestBed::Options options = Cpu(1);
  options.device.unit_addressed = false;
  options.device.unit_limits.blocks = 4;
  options.dispatcher.hang_bound = std::chrono::seconds(2);
  TestBed bed(options);
  LaunchId launch;
  bed.on_launch = [&](const Launch& l) { launch = l.id; };
  bed.device.fate = [](const Launch&) { return Fate::kDrop; };
  bed.Submit(Chain("slow", 1, 4, 150 * kUs, 100));
  bed.Run();
  bed.dispatcher.Pump(kStart + std::chrono::seconds(3));
  EXPECT_EQ(bed.ended.size(), 1u);
  DeviceEvent part;
  part.launch = launch;
  for (const uint32_t blocks : {1u, 2u}) {
    part.blocks = blocks;
    bed.dispatcher.OnEvent(part);
    EXPECT_EQ(bed.device.arena_bytes(), 100u);
  }
  part.blocks = 1;
  bed.dispatcher.OnEvent(part);
  EXPECT_EQ(bed.device.arena_bytes(), 0u);
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

TEST(DispatcherFaultTest, ACancelledJobKeepsItsReasonAndIsCountedAsCancelled) {
  TestBed bed(Cpu(1));
  const JobId running = bed.Submit(Chain("running", 10, 1, 150 * kUs));
  const JobId waiting = bed.Submit(Chain("waiting", 1, 1, 150 * kUs));
  bed.dispatcher.Cancel(running, UnavailableError("shutting down"));
  bed.dispatcher.Cancel(waiting, OkStatus());
  bed.Run();
  EXPECT_EQ(bed.CodeOf(running), StatusCode::kUnavailable);
  EXPECT_EQ(bed.ended.at(running).message(), "shutting down");
  EXPECT_EQ(bed.CodeOf(waiting), StatusCode::kCancelled);
  EXPECT_EQ(bed.dispatcher.stats().jobs_cancelled, 2u);
  EXPECT_EQ(bed.dispatcher.stats().jobs_failed, 0u);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, RemovingATenantEndsItsJobsAndNoOthers) {
  TestBed bed(Cpu(2, "fair(srpt, 1000)"));
  std::map<JobId, uint32_t> owner;
  for (uint32_t i = 0; i < 9; ++i) {
    JobSpec spec = bed.Spec(Chain("a", 3, 2, 150 * kUs));
    spec.attributes.tenant = TenantId(i % 3);
    owner[bed.Submit(std::move(spec))] = i % 3;
  }
  EXPECT_EQ(bed.dispatcher.CancelTenant(TenantId(1), UnavailableError("tenant removed")), 3u);
  EXPECT_EQ(bed.dispatcher.CancelTenant(TenantId(1), UnavailableError("again")), 0u);
  EXPECT_EQ(bed.dispatcher.CancelTenant(TenantId(77), OkStatus()), 0u);
  bed.Run();
  for (const auto& [job, tenant] : owner) {
    EXPECT_EQ(bed.CodeOf(job), tenant == 1 ? StatusCode::kUnavailable : StatusCode::kOk);
  }
  bed.CheckAtRest();
}

// --- Deadlines

TEST(DispatcherFaultTest, ALateJobIsDroppedAsSoonAsItCannotMakeIt) {
  TestBed::Options options = Cpu(1, "edf");
  options.dispatcher.drop_late = true;
  TestBed bed(options);
  const ProgramPtr program = Chain("job", 4, 1, 100 * kUs);
  bed.Submit(program);
  bed.Run();  // now its times are known
  const TimePoint start = bed.clock.Now();
  const auto submit = [&](Duration deadline) {
    JobSpec spec = bed.Spec(program);
    spec.attributes.deadline = start + deadline;
    return bed.Submit(std::move(spec));
  };
  const JobId first = submit(400 * kUs), second = submit(800 * kUs), third = submit(1100 * kUs);
  const JobId hopeless = submit(399 * kUs);
  EXPECT_EQ(bed.CodeOf(hopeless), StatusCode::kDeadlineExceeded);
  EXPECT_NE(
      bed.ended.at(hopeless).message().find("399 us are left, what remains takes at least 400"),
      std::string::npos)
      << bed.ended.at(hopeless).message();
  bed.Run();
  EXPECT_EQ(bed.CodeOf(first), StatusCode::kOk);
  EXPECT_EQ(bed.CodeOf(second), StatusCode::kOk);
  EXPECT_EQ(bed.CodeOf(third), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(bed.EndOf(third), start + 800 * kUs) << "at the first event after it was too late";
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ADeadlineOfSomebodyElseDropsNobody) {
  TestBed::Options options = Cpu(1, "edf");
  options.dispatcher.drop_late = true;
  TestBed bed(options);
  const ProgramPtr program = Chain("job", 4, 1, 100 * kUs);
  bed.Submit(program);
  bed.Run();  // now its times are known
  const auto submit = [&](Duration deadline) {
    JobSpec spec = bed.Spec(program);
    spec.attributes.deadline = bed.clock.Now() + deadline;
    return bed.Submit(std::move(spec));
  };
  const JobId first = submit(2000 * kUs), second = submit(3000 * kUs);
  bed.dispatcher.Raise(second, {bed.clock.Now() + 10 * kUs, 0});
  bed.Run();
  EXPECT_EQ(bed.CodeOf(first), StatusCode::kOk);
  EXPECT_EQ(bed.CodeOf(second), StatusCode::kOk);
  EXPECT_LT(bed.EndOf(second), bed.EndOf(first));
  bed.CheckAtRest();
}

// A path is told in time on one unit; spread over all of them it could still be in time.
TEST(DispatcherFaultTest, APathThatCouldSpreadOverAllUnitsIsNotTooLate) {
  TestBed::Options options = Cpu(4, "edf");
  options.dispatcher.drop_late = true;
  TestBed bed(options);
  const ProgramPtr program = Chain("job", 1, 4, 100 * kUs);
  bed.Submit(program);
  bed.Run();  // now its times are known
  const auto submit = [&](Duration path) {
    JobSpec spec = bed.Spec(program);
    spec.attributes.deadline = bed.clock.Now() + 200 * kUs;
    spec.attributes.remaining_path = path;
    const JobId job = bed.Submit(std::move(spec));
    bed.Run();
    return bed.CodeOf(job);
  };
  EXPECT_EQ(submit(400 * kUs), StatusCode::kOk);
  EXPECT_EQ(submit(405 * kUs), StatusCode::kDeadlineExceeded);
}

TEST(DispatcherFaultTest, WhatHasNeverRunIsDroppedOnlyAfterItsDeadline) {
  TestBed::Options options = Cpu(1, "edf");
  options.dispatcher.drop_late = true;
  TestBed bed(options);
  bed.device.block_time = [](const Launch&, uint32_t) { return 10 * kUs; };
  JobSpec guessed = bed.Spec(Chain("said to be long", 3, 1, 5000 * kUs));
  guessed.attributes.deadline = kStart + 100 * kUs;
  const JobId job = bed.Submit(std::move(guessed));
  JobSpec late = bed.Spec(Chain("late", 1, 1, kUs));
  late.attributes.deadline = kStart - 1 * kUs;
  EXPECT_EQ(bed.CodeOf(bed.Submit(std::move(late))), StatusCode::kDeadlineExceeded);
  bed.Run();
  EXPECT_EQ(bed.CodeOf(job), StatusCode::kOk);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, WithoutTheOptionALateJobRuns) {
  TestBed bed(Cpu(1, "edf"));
  JobSpec late = bed.Spec(Chain("late", 1, 1, kUs));
  late.attributes.deadline = kStart - 1 * kUs;
  const JobId job = bed.Submit(std::move(late));
  bed.Run();
  EXPECT_EQ(bed.CodeOf(job), StatusCode::kOk);
}

// --- Everything, everywhere

enum class What { kFault, kHang, kDrop, kRepeat, kLoseDevice, kCancel, kCancelTenant, kTimeout };

struct Disturbance {
  What what;
  bool unit_addressed;
  std::string policy;
};

// Five jobs of two tenants, with the `victim`-th event going wrong; how many events there were.
int Disturb(const Disturbance& d, int victim) {
  TestBed::Options options = Cpu(2, d.policy);
  options.device.unit_addressed = d.unit_addressed;
  options.device.unit_limits.blocks = 2;
  options.device.arena_budget_bytes = 250;
  options.dispatcher.hang_bound = std::chrono::seconds(1);
  TestBed bed(options);
  std::map<JobId, uint32_t> tenant_of;
  JobId hit;
  LaunchId dropped;
  uint32_t hit_tenant = ~0u;
  int events = 0, launches = 0;
  std::map<LaunchId, int> launch_number;
  bed.on_launch = [&](const Launch& l) { launch_number[l.id] = launches++; };
  bed.device.block_time = [&](const Launch& l, uint32_t) {
    const Kernel& kernel = l.job->program->kernels[l.kernel.value()];
    if (d.what != What::kHang || launch_number.at(l.id) != victim) {
      return kernel.estimated_block_time;
    }
    hit = l.job->id;
    return Duration(std::chrono::minutes(5));
  };
  bed.device.fate = [&](const Launch& l) {
    if (events++ != victim || d.what == What::kTimeout || d.what == What::kHang) {
      return Fate::kReport;
    }
    hit = bed.id_of[l.id];
    switch (d.what) {
      case What::kFault:
        return Fate::kFault;
      case What::kDrop:
        dropped = l.id;
        return Fate::kDrop;
      case What::kRepeat:
        return Fate::kRepeat;
      case What::kLoseDevice:
        return Fate::kLoseDevice;
      case What::kCancel:
        bed.dispatcher.Cancel(hit, CancelledError("test"));
        return Fate::kReport;
      default:
        hit_tenant = tenant_of[hit];
        bed.dispatcher.CancelTenant(TenantId(hit_tenant), UnavailableError("tenant removed"));
        return Fate::kReport;
    }
  };
  for (uint32_t i = 0; i < 5; ++i) {
    JobSpec spec = bed.Spec(MakeProgram("p" + std::to_string(i),
                                        {{3, 60 * kUs, {}, {}},
                                         {2, 40 * kUs, {0}, {}},
                                         {1, 40 * kUs, {0}, {}},
                                         {4, 30 * kUs, {1, 2}, {}}},
                                        100));
    spec.attributes.tenant = TenantId(i % 2);
    const bool times_out = d.what == What::kTimeout && victim >= 0 && i == 2;
    if (times_out) spec.attributes.timeout_at = kStart + 30 * victim * kUs;
    const JobId job = bed.Submit(std::move(spec));
    tenant_of[job] = i % 2;
    if (times_out) hit = job;
  }
  // What a hung or lost launch keeps waiting goes on once that was given up.
  for (int round = 0; round < 8 && bed.ended.size() < 5; ++round) {
    const TimePoint until = bed.clock.Now() + options.dispatcher.hang_bound;
    while (bed.device.NextAt() <= until && bed.device.Step()) {
    }
    bed.clock.AdvanceTo(until);
    bed.dispatcher.Pump(until);
  }
  EXPECT_EQ(bed.ended.size(), 5u);
  bed.Run();  // what hung comes back at last
  if (d.what == What::kDrop && victim >= 0) {
    // And so does a lost report, which nobody needs any more but to give the memory back.
    DeviceEvent late;
    late.launch = dropped;
    late.blocks = 1;
    bed.dispatcher.OnEvent(late);
  }
  for (const auto& [job, status] : bed.ended) {
    const bool spared =
        d.what == What::kLoseDevice ? false : job != hit && tenant_of[job] != hit_tenant;
    if (spared || d.what == What::kRepeat) {
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
  }
  bed.CheckHistory();
  bed.CheckAtRest();
  return d.what == What::kHang ? launches : events;
}

// The same workload, with one event after the other going wrong: whatever happens to it, every job
// ends once, the others end well, and the mirror is empty.
TEST(DispatcherFaultTest, WhateverGoesWrongAtAnyEventTheOthersFinish) {
  for (const bool unit_addressed : {true, false}) {
    for (const What what :
         {What::kFault, What::kHang, What::kDrop, What::kRepeat, What::kLoseDevice, What::kCancel,
          What::kCancelTenant, What::kTimeout}) {
      // A repeated count of single blocks cannot be told from a new one.
      if (what == What::kRepeat && !unit_addressed) continue;
      for (const char* policy : {"srpt", "stretch", "fair(edf, 50)"}) {
        int total = 1;
        for (int victim = 0; victim < total; ++victim) {
          SCOPED_TRACE(testing::Message()
                       << "unit_addressed " << unit_addressed << " what " << static_cast<int>(what)
                       << " policy " << policy << " event " << victim);
          Disturb({what, unit_addressed, policy}, victim);
          if (HasFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace plexus
