// Timeouts, cancellation, and devices that misbehave.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <random>
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
    bed.dispatcher.OnEvent(part);  // a repeat is no further block
    EXPECT_EQ(bed.device.arena_bytes(), 100u);
    ++part.number;
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

// Where the hardware places the blocks a repeated count must not pass for new blocks: the next
// kernel would start before this one has ended.
TEST(DispatcherFaultTest, ARepeatedPartOfALaunchIsNoFurtherBlock) {
  TestBed::Options options = Cpu(1);
  options.device.unit_addressed = false;
  options.device.unit_limits.blocks = 2;
  TestBed bed(options);
  bed.device.fate = [](const Launch&) { return Fate::kRepeat; };
  for (int i = 0; i < 3; ++i) bed.Submit(Chain("a", 3, 4, 50 * kUs));
  bed.Run();
  EXPECT_EQ(bed.dispatcher.stats().events_ignored, bed.device.ran().size());
  for (const auto& [job, status] : bed.ended) EXPECT_TRUE(status.ok());
  bed.CheckHistory();
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ReportsThatOvertakeEachOtherAreAllCounted) {
  TestBed::Options options = Cpu(1);
  options.device.unit_addressed = false;
  options.device.unit_limits.blocks = 4;
  TestBed bed(options);
  LaunchId launch;
  bed.on_launch = [&](const Launch& l) { launch = l.id; };
  bed.device.fate = [](const Launch&) { return Fate::kDrop; };
  const JobId job = bed.Submit(Chain("a", 1, 4, 50 * kUs));
  bed.Run();
  DeviceEvent part;
  part.launch = launch;
  part.blocks = 1;
  for (const uint32_t number : {3u, 1u, 3u, 0u, 1u, 4u, 1000u}) {  // it cannot have a fifth
    part.number = number;
    bed.dispatcher.OnEvent(part);
    EXPECT_FALSE(bed.Ended(job));
  }
  EXPECT_EQ(bed.dispatcher.stats().events_ignored, 4u);
  part.number = 2;
  bed.dispatcher.OnEvent(part);
  EXPECT_EQ(bed.CodeOf(job), StatusCode::kOk);
  bed.CheckAtRest();
}

TEST(DispatcherFaultTest, ALostDeviceFreesTheMemoryOfLaunchesThatWereGivenUp) {
  for (const bool unit_addressed : {true, false}) {
    TestBed::Options options = Cpu(1);
    options.device.unit_addressed = unit_addressed;
    options.device.tells_idle = false;
    options.dispatcher.hang_bound = std::chrono::seconds(2);
    TestBed bed(options);
    bed.device.fate = [](const Launch&) { return Fate::kDrop; };
    bed.Submit(Chain("lost", 1, 1, 150 * kUs, 100));
    bed.Run();
    bed.dispatcher.Pump(kStart + std::chrono::seconds(3));
    EXPECT_EQ(bed.ended.size(), 1u);
    EXPECT_EQ(bed.device.arena_bytes(), 100u);
    DeviceEvent lost;
    lost.kind = DeviceEvent::Kind::kDeviceLost;
    bed.dispatcher.OnEvent(lost);
    bed.CheckAtRest();
  }
}

TEST(DispatcherFaultTest, RemovingATenantSparesJobsThatOthersPayForToo) {
  TestBed bed(Cpu(1, "fair(srpt, 1000)"));
  ASSERT_TRUE(bed.dispatcher.SetTenantWeight(TenantId(1), 3).ok());
  const auto submit = [&](std::vector<Payer> payers) {
    JobSpec spec = bed.Spec(Chain("batch", 2, 1, 150 * kUs));
    spec.attributes.tenant = TenantId(1);
    spec.payers = std::move(payers);
    return bed.Submit(std::move(spec));
  };
  const JobId mixed = submit({{TenantId(1), 1}, {TenantId(2), 1}});
  const JobId own = submit({{TenantId(1), 2}, {TenantId(1), 1}});
  const JobId others = submit({{TenantId(2), 2}});
  bed.device.Step();
  EXPECT_NE(bed.dispatcher.tenant_stats(TenantId(1)).time, Duration{0});
  EXPECT_EQ(bed.dispatcher.RemoveTenant(TenantId(1), OkStatus()), 1u);
  const TenantStats removed = bed.dispatcher.tenant_stats(TenantId(1));
  EXPECT_EQ(removed.weight, 1);
  EXPECT_EQ(removed.time, Duration{0});
  EXPECT_EQ(removed.deficit, Duration{0});
  bed.Run();
  EXPECT_EQ(bed.CodeOf(own), StatusCode::kCancelled);
  EXPECT_EQ(bed.CodeOf(mixed), StatusCode::kOk);
  EXPECT_EQ(bed.CodeOf(others), StatusCode::kOk);
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
  EXPECT_EQ(bed.dispatcher.RemoveTenant(TenantId(1), UnavailableError("tenant removed")), 3u);
  EXPECT_EQ(bed.dispatcher.RemoveTenant(TenantId(1), UnavailableError("again")), 0u);
  EXPECT_EQ(bed.dispatcher.RemoveTenant(TenantId(77), OkStatus()), 0u);
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

enum class What {
  kFault,
  kHang,
  kDrop,
  kRepeat,
  kRepeatLate,
  kDropStart,
  kRepeatStart,
  kLoseDevice,
  kCancel,
  kRemoveTenant,
  kTimeout,
};
// Who says where a launch runs, and what is reported: whole launches; single blocks; groups of
// blocks, late, and their starts.
enum class Placing { kUnits, kBlocks, kGpu };

struct Scene {
  What what;
  Placing placing;
  const char* policy;

  bool of_starts() const { return what == What::kDropStart || what == What::kRepeatStart; }
  bool exists() const { return !of_starts() || placing == Placing::kGpu; }
  // Whether nobody may notice.
  bool harmless() const {
    return of_starts() || what == What::kRepeat || what == What::kRepeatLate;
  }
};

// Five jobs of two tenants, with the `victim`-th event going wrong; -1: none.
class Disturbed {
 public:
  Disturbed(const Scene& scene, int victim)
      : scene_(scene), victim_(victim), bed_(OptionsFor(scene)) {
    bed_.on_launch = [this](const Launch& l) {
      if (scene_.what == What::kHang && launches_ == victim_) hung_ = l.id;
      ++launches_;
    };
    bed_.device.block_time = [this](const Launch& l, uint32_t block) {
      const Kernel& kernel = l.job->program->kernels[l.kernel.value()];
      // One block of it, so that the others find room on a device that places blocks itself.
      if (l.id != hung_ || block != l.first_block) return kernel.estimated_block_time;
      hit_ = l.job->id;
      return Duration(std::chrono::minutes(5));
    };
    bed_.device.fate = [this](const Launch& l) { return FateOf(l); };
    bed_.device.start_fate = [this](const Launch& l) { return FateOfStart(l); };
    bed_.on_event = [this](const DeviceEvent& event) {
      const bool struck = victim_ >= 0 && events_ == victim_ + 1;
      if (scene_.what == What::kRepeatLate && struck && !seen_) seen_ = event;
    };
  }

  // Until everybody has heard; how many events there were.
  int Play() {
    SubmitAll();
    const Duration hang_bound = OptionsFor(scene_).dispatcher.hang_bound;
    // What a hung or lost launch keeps waiting goes on once that was given up.
    for (int round = 0; round < 8 && bed_.ended.size() < kJobs; ++round) {
      const TimePoint until = bed_.clock.Now() + hang_bound;
      while (bed_.device.NextAt() <= until && bed_.device.Step()) RepeatLate();
      bed_.clock.AdvanceTo(until);
      bed_.dispatcher.Pump(until);
    }
    EXPECT_EQ(bed_.ended.size(), kJobs);
    bed_.Run();  // what hung comes back at last
    if (seen_ && !repeated_) bed_.dispatcher.OnEvent(*seen_);
    // And so do lost reports, which nobody needs any more but to give the memory back.
    for (const DeviceEvent& late : bed_.device.dropped()) bed_.dispatcher.OnEvent(late);
    return scene_.of_starts() ? starts_ : scene_.what == What::kHang ? launches_ : events_;
  }

  void Check() {
    if (victim_ >= 0 && scene_.what != What::kTimeout) {
      EXPECT_TRUE(hit_.valid()) << "nothing went wrong";
    }
    for (const auto& [job, status] : bed_.ended) {
      const bool spared =
          scene_.what != What::kLoseDevice && job != hit_ && tenant_of_[job] != removed_;
      if (victim_ < 0 || spared || scene_.harmless()) {
        EXPECT_TRUE(status.ok()) << status.ToString();
      } else if (scene_.what == What::kFault) {
        EXPECT_EQ(status.code(), StatusCode::kInternal);
      }
    }
    const bool repeats = scene_.what == What::kRepeat || scene_.what == What::kRepeatLate ||
                         scene_.what == What::kRepeatStart;
    if (repeats && victim_ >= 0) {
      EXPECT_EQ(bed_.dispatcher.stats().events_ignored, 1u);
    }
    bed_.CheckHistory();
    bed_.CheckAtRest();
  }

 private:
  static constexpr uint32_t kJobs = 5;

  static TestBed::Options OptionsFor(const Scene& scene) {
    TestBed::Options options = Cpu(2, scene.policy);
    options.device.unit_addressed = scene.placing == Placing::kUnits;
    options.device.unit_limits.blocks = 2;
    options.device.arena_budget_bytes = 250;
    options.dispatcher.hang_bound = std::chrono::seconds(1);
    if (scene.placing == Placing::kGpu) {
      SimGpuOptions gpu;
      gpu.sms = 2;
      gpu.sm.blocks = 8;
      gpu.sm.threads = 256;
      gpu.queues = 4;
      gpu.launch_latency = 2 * kUs;
      gpu.kernel_gap = 2 * kUs;
      gpu.notification_latency = 3 * kUs;
      options.device.gpu = gpu;
    }
    return options;
  }

  void SubmitAll() {
    const uint32_t wide = scene_.placing == Placing::kGpu ? 12 : 1;
    for (uint32_t i = 0; i < kJobs; ++i) {
      JobSpec spec = bed_.Spec(MakeProgram("p" + std::to_string(i),
                                           {{3 * wide, 60 * kUs, {}, {}},
                                            {2 * wide, 40 * kUs, {0}, {}},
                                            {1 * wide, 40 * kUs, {0}, {}},
                                            {4 * wide, 30 * kUs, {1, 2}, {}}},
                                           100));
      spec.attributes.tenant = TenantId(i % 2);
      const bool times_out = scene_.what == What::kTimeout && victim_ >= 0 && i == 2;
      if (times_out) spec.attributes.timeout_at = kStart + 30 * victim_ * kUs;
      const JobId job = bed_.Submit(std::move(spec));
      tenant_of_[job] = i % 2;
      if (times_out) hit_ = job;
    }
  }

  Fate FateOf(const Launch& l) {
    if (events_++ != victim_) return Fate::kReport;
    const JobId job = bed_.id_of[l.id];
    switch (scene_.what) {
      case What::kFault:
        hit_ = job;
        return Fate::kFault;
      case What::kDrop:
        hit_ = job;
        return Fate::kDrop;
      case What::kRepeat:
        hit_ = job;
        return Fate::kRepeat;
      case What::kRepeatLate:  // by on_event and RepeatLate
        hit_ = job;
        return Fate::kReport;
      case What::kLoseDevice:
        hit_ = job;
        return Fate::kLoseDevice;
      case What::kCancel:
        hit_ = job;
        bed_.dispatcher.Cancel(hit_, CancelledError("test"));
        return Fate::kReport;
      case What::kRemoveTenant:
        hit_ = job;
        removed_ = tenant_of_[hit_];
        bed_.dispatcher.RemoveTenant(TenantId(removed_), UnavailableError("tenant removed"));
        return Fate::kReport;
      case What::kHang:
      case What::kDropStart:
      case What::kRepeatStart:
      case What::kTimeout:
        return Fate::kReport;
    }
    return Fate::kReport;
  }

  Fate FateOfStart(const Launch& l) {
    if (!scene_.of_starts() || starts_++ != victim_) return Fate::kReport;
    hit_ = bed_.id_of[l.id];
    return scene_.what == What::kDropStart ? Fate::kDrop : Fate::kRepeat;
  }

  // Once, some reports later.
  void RepeatLate() {
    if (!seen_ || repeated_ || events_ < victim_ + 4) return;
    repeated_ = true;
    bed_.dispatcher.OnEvent(*seen_);
  }

  const Scene scene_;
  const int victim_;
  TestBed bed_;
  std::map<JobId, uint32_t> tenant_of_;
  JobId hit_;
  LaunchId hung_;
  uint32_t removed_ = ~0u;
  int events_ = 0, starts_ = 0, launches_ = 0;
  std::optional<DeviceEvent> seen_;
  bool repeated_ = false;
};

// All of them, or some by seed where there are many or each takes long.
std::vector<int> Victims(int events, uint32_t seed) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr int kMost = 6;
#else
  constexpr int kMost = 300;
#endif
  std::vector<int> victims(static_cast<size_t>(events));
  for (int i = 0; i < events; ++i) victims[static_cast<size_t>(i)] = i;
  std::shuffle(victims.begin(), victims.end(), std::mt19937(seed));
  victims.resize(static_cast<size_t>(std::min(events, kMost)));
  return victims;
}

// The same workload, with one event after the other going wrong: whatever happens to it, every job
// ends once, the others end well, and the mirror is empty.
TEST(DispatcherFaultTest, WhateverGoesWrongAtAnyEventTheOthersFinish) {
  constexpr What kAll[] = {What::kFault,        What::kHang,       What::kDrop,
                           What::kRepeat,       What::kRepeatLate, What::kDropStart,
                           What::kRepeatStart,  What::kLoseDevice, What::kCancel,
                           What::kRemoveTenant, What::kTimeout};
  uint32_t seed = 0;
  for (const Placing placing : {Placing::kUnits, Placing::kBlocks, Placing::kGpu}) {
    for (const What what : kAll) {
      for (const char* policy : {"srpt", "stretch", "fair(edf, 50)"}) {
        const Scene scene{what, placing, policy};
        if (!scene.exists()) continue;
        Disturbed undisturbed(scene, -1);
        const int events = undisturbed.Play();
        undisturbed.Check();
        ASSERT_GT(events, 15);
        for (const int victim : Victims(events, ++seed)) {
          SCOPED_TRACE(testing::Message()
                       << "placing " << static_cast<int>(placing) << " what "
                       << static_cast<int>(what) << " policy " << policy << " event " << victim);
          Disturbed disturbed(scene, victim);
          disturbed.Play();
          disturbed.Check();
          if (HasFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace plexus
