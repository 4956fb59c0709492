// Properties that hold for every workload, tried on many random ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "sched/test_bed.h"

namespace plexus {
namespace {

struct Workload {
  TestBed::Options options;
  std::vector<ProgramPtr> programs;
  std::vector<std::pair<TimePoint, size_t>> arrivals;
};

ProgramPtr RandomProgram(std::mt19937& random, const std::string& name, size_t arena_budget) {
  std::vector<KernelSpec> specs(1 + random() % 8);
  for (uint32_t k = 0; k < specs.size(); ++k) {
    specs[k].grid = random() % 3 == 0 ? 1 + random() % 40 : 1 + random() % 3;
    specs[k].block_time = (1 + random() % 250) * kUs;
    for (uint32_t before = 0; before < k; ++before) {
      if (random() % 3 == 0) specs[k].after.push_back(before);
    }
  }
  return MakeProgram(name, specs, random() % 4 == 0 ? 0 : 1 + random() % arena_budget);
}

Workload RandomWorkload(uint32_t seed) {
  std::mt19937 random(seed);
  Workload w;
  w.options.policy = seed % 2 == 0 ? "fifo" : "srpt";
  w.options.device.units = 1 + random() % 5;
  w.options.device.queue_depth = random() % 3;
  w.options.device.unit_addressed = random() % 4 != 0;
  w.options.device.unit_limits.blocks = 1 + random() % 3;
  w.options.device.wake_latency = random() % 2 == 0 ? Duration{0} : 40 * kUs;
  w.options.device.arena_budget_bytes = 1000;
  for (int p = 0; p < 4; ++p) {
    w.programs.push_back(RandomProgram(random, "p" + std::to_string(p), 1000));
  }
  TimePoint at(std::chrono::seconds(1));
  const size_t jobs = 1 + random() % 30;
  for (size_t i = 0; i < jobs; ++i) {
    at += static_cast<int>(random() % 2 == 0 ? 0 : random() % 800) * kUs;
    w.arrivals.emplace_back(at, random() % w.programs.size());
  }
  return w;
}

// Submits at the arrivals' times and steps the device in between; `each` after every step.
template <typename Each>
void Play(TestBed& bed, const Workload& w, Each each) {
  size_t next = 0;
  for (;;) {
    const TimePoint arrival = next < w.arrivals.size() ? w.arrivals[next].first : TimePoint::max();
    if (arrival <= bed.device.NextAt() && arrival != TimePoint::max()) {
      bed.clock.AdvanceTo(arrival);
      bed.Submit(w.programs[w.arrivals[next++].second]);
    } else if (!bed.device.Step()) {
      return;
    }
    each();
  }
}

constexpr uint32_t kWorkloads = 1500;

TEST(DispatcherPropertyTest, NothingIsLostRunTwiceOrRunTooEarly) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    Play(bed, w, [&] {
      const DispatcherStats s = bed.dispatcher.stats();
      ASSERT_LE(bed.device.arena_bytes(), 1000u);
      if (w.options.device.unit_addressed) {
        ASSERT_EQ(s.in_flight, bed.device.in_flight());
        ASSERT_LE(s.in_flight, w.options.device.units * (1 + w.options.device.queue_depth));
      }
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    for (const auto& [job, status] : bed.ended) ASSERT_TRUE(status.ok()) << status.ToString();
    bed.CheckHistory();
    bed.CheckAtRest();
    EXPECT_EQ(bed.dispatcher.stats().events_ignored, 0u);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(DispatcherPropertyTest, NoUnitIdlesWhileAJobIsReady) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    w.options.device.wake_latency = Duration{0};
    w.options.device.unit_addressed = true;
    TestBed bed(w.options);
    Play(bed, w, [&] {
      const DispatcherStats s = bed.dispatcher.stats();
      if (s.ready > 0) {
        ASSERT_GE(s.in_flight, w.options.device.units);
      }
    });
    if (testing::Test::HasFailure()) return;
  }
}

// On one unit without a queue, with exact times, every launch is of the job with least left among
// those that hold what they need.
TEST(DispatcherPropertyTest, SrptAlwaysRunsTheJobWithLeastLeft) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Workload w = RandomWorkload(seed);
    w.options.policy = "srpt";
    w.options.device.units = 1;
    w.options.device.queue_depth = 0;
    w.options.device.unit_addressed = true;
    w.options.device.wake_latency = Duration{0};
    w.options.device.arena_budget_bytes = size_t{1} << 20;
    TestBed bed(w.options);
    std::map<JobId, Duration> left;
    bed.on_launch = [&](const Launch& launch) {
      const auto [at, is_new] = left.try_emplace(launch.job->id);
      if (is_new) {
        for (const Kernel& k : launch.job->program->kernels) {
          at->second += k.grid * k.estimated_block_time;
        }
      }
      for (const auto& [job, other] : left) {
        ASSERT_LE(at->second, other) << "a job with less left waits";
      }
      const Kernel& kernel = launch.job->program->kernels[launch.kernel.value()];
      at->second -= launch.num_blocks * kernel.estimated_block_time;
      if (at->second == Duration{0}) left.erase(at);
    };
    // Jobs that have not launched yet count, too.
    size_t submitted = 0;
    Play(bed, w, [&] {
      for (; submitted < bed.programs.size(); ++submitted) {
        const auto& [job, program] = *std::next(bed.programs.begin(), submitted);
        if (bed.Ended(job) || left.count(job) > 0) continue;
        bool launched = false;
        for (const auto& [launch, owner] : bed.id_of) launched = launched || owner == job;
        if (launched) continue;
        for (const Kernel& k : program->kernels) left[job] += k.grid * k.estimated_block_time;
      }
    });
    if (testing::Test::HasFailure()) return;
  }
}

// One unit, exact times: no order beats shortest-remaining-first in the mean.
TEST(DispatcherPropertyTest, SrptsMeanCompletionTimeIsNeverWorseThanFifos) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    Duration total[2] = {};
    for (int p = 0; p < 2; ++p) {
      std::mt19937 random(seed);
      TestBed::Options options;
      options.policy = p == 0 ? "srpt" : "fifo";
      options.device.queue_depth = 0;
      TestBed bed(options);
      Workload w;
      // Blocks are short against the gaps, so that slices approximate ideal preemption.
      for (int i = 0; i < 4; ++i) {
        w.programs.push_back(Chain("p" + std::to_string(i), 1 + random() % 200, 1, kUs));
      }
      TimePoint at(std::chrono::seconds(1));
      for (int i = 0; i < 40; ++i) {
        at += (random() % 120) * kUs;
        w.arrivals.emplace_back(at, random() % 4);
      }
      Play(bed, w, [] {});
      for (const auto& [job, end] : bed.ended_at) total[p] += end - TimePoint{};
      ASSERT_EQ(bed.ended_at.size(), 40u);
    }
    // A block of 1 us cannot be preempted: at most that much per job.
    EXPECT_LE(total[0], total[1] + 40 * kUs) << "seed " << seed;
  }
}

TEST(DispatcherPropertyTest, SwitchingThePolicyAnywhereLosesNothing) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    std::mt19937 random(seed);
    Play(bed, w, [&] {
      if (random() % 5 == 0) {
        bed.dispatcher.SetPolicy(MakePolicy(random() % 2 == 0 ? "fifo" : "srpt").value());
      }
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    bed.CheckHistory();
    bed.CheckAtRest();
    if (testing::Test::HasFailure()) return;
  }
}

// Faults, repeats, cancellations and timeouts all over the place.
TEST(DispatcherPropertyTest, NoDisturbanceLosesAJobOrLeavesTheMirrorWrong) {
  for (uint32_t seed = 0; seed < kWorkloads; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const Workload w = RandomWorkload(seed);
    TestBed bed(w.options);
    std::mt19937 random(seed + 1);
    bed.device.fate = [&](const Launch&) {
      switch (random() % 12) {
        case 0:
          return SimDevice::Fate::kFault;
        case 1:
          // A repeated count of single blocks cannot be told from a new one.
          return w.options.device.unit_addressed ? SimDevice::Fate::kRepeat
                                                 : SimDevice::Fate::kReport;
        default:
          return SimDevice::Fate::kReport;
      }
    };
    Play(bed, w, [&] {
      if (random() % 6 == 0 && !bed.programs.empty()) {
        const auto victim = std::next(bed.programs.begin(), random() % bed.programs.size());
        bed.dispatcher.Cancel(victim->first, CancelledError("test"));
      }
      if (random() % 8 == 0) bed.dispatcher.Pump(bed.clock.Now());
    });
    ASSERT_EQ(bed.ended.size(), w.arrivals.size());
    bed.CheckHistory();
    bed.CheckAtRest();
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace plexus
