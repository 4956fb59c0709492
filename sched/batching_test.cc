#include "sched/batching.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

constexpr Duration kUs = std::chrono::microseconds(1);
constexpr TimePoint kNow{std::chrono::seconds(1)};

void Teach(BatchCurve& curve, uint32_t size, Duration time, int runs = 3) {
  for (int run = 0; run < runs; ++run) curve.Learn(size, {time, time});
}

constexpr int kAgain = 12;  // runs before what is doubted is judged

// Sizes 1, 2, 4, ... take these times, latency and device alike; what was doubted has been measured
// once more.
BatchCurve Curve(const std::vector<Duration>& times) {
  BatchCurve curve(64);
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < times.size(); ++i) {
      curve.SetReady(1u << i);
      Teach(curve, 1u << i, times[i], round == 0 ? 3 : kAgain);
    }
  }
  return curve;
}

struct Case {
  BatchCurve curve;
  std::vector<Waiting> waiting;
  uint32_t others = 0;
  TimePoint now = kNow;

  BatchChoice Ask(const std::string& policy) const {
    return MakeBatchPolicy(policy).value()->Choose({now, curve, waiting, others});
  }
  TimePoint When(const std::string& policy) const {
    return MakeBatchPolicy(policy).value()->InLineAt({now, curve, waiting, others});
  }
};

std::vector<Waiting> Rows(size_t count, TimePoint due = TimePoint::max()) {
  return std::vector<Waiting>(count, Waiting{kNow, due});
}

// --- BatchCurve

TEST(BatchCurveTest, SizesArePowersOfTwoUpToTheMost) {
  BatchCurve curve(12);
  EXPECT_EQ(curve.limit(), 8u);
  curve.SetReady(2);
  curve.SetReady(16);
  EXPECT_EQ(curve.largest(), 2u);
  EXPECT_EQ(curve.Fit(1), 1u);
  EXPECT_EQ(curve.Fit(2), 2u);
  EXPECT_EQ(curve.Fit(3), 0u);
  EXPECT_EQ(BatchCurve(0).limit(), 1u);
  EXPECT_EQ(BatchCurve(1u << 30).limit(), BatchCurve::kMostRows);
}

TEST(BatchCurveTest, ColdFirstRunsDoNotCount) {
  BatchCurve curve(4);
  curve.SetReady(2);
  curve.Learn(1, {10 * kUs, 10 * kUs});
  curve.Learn(2, {500 * kUs, 500 * kUs});
  EXPECT_EQ(curve.Of(2).latency, 12 * kUs) << "not tried enough: a guess";
  curve.Learn(2, {14 * kUs, 7 * kUs});
  curve.Learn(2, {15 * kUs, 8 * kUs});
  EXPECT_EQ(curve.Of(2).latency, 14 * kUs);
  EXPECT_EQ(curve.Of(2).busy, 7 * kUs);
}

TEST(BatchCurveTest, LargerSizesArePreparedOnlyWhereTheLastOneGained) {
  BatchCurve gains(8);
  EXPECT_EQ(gains.Next(false), 2u);
  gains.SetReady(2);
  EXPECT_EQ(gains.Next(false), 0u) << "it has to show first";
  EXPECT_EQ(gains.Next(true), 4u);
  gains = Curve({10 * kUs, 12 * kUs});
  EXPECT_EQ(gains.Next(false), 4u);
  EXPECT_FALSE(gains.Useless(2));
  const BatchCurve flat = Curve({10 * kUs, 20 * kUs});
  EXPECT_TRUE(flat.Useless(2));
  EXPECT_EQ(flat.Next(false), 0u);
}

TEST(BatchCurveTest, WhatSeemsUselessIsMeasuredOnceMoreAfterHalfOfIt) {
  BatchCurve curve(4);
  curve.SetReady(2);
  curve.SetReady(4);
  Teach(curve, 1, 10 * kUs);
  Teach(curve, 2, 12 * kUs);
  Teach(curve, 4, 30 * kUs);  // while the machine was busy
  EXPECT_FALSE(curve.Useless(4));
  EXPECT_EQ(curve.largest(), 2u) << "to be measured";
  EXPECT_EQ(curve.Fit(3), 4u) << "it can run all the same";
  Teach(curve, 2, 14 * kUs, kAgain);
  EXPECT_EQ(curve.largest(), 4u);
  Teach(curve, 4, 18 * kUs, kAgain);
  EXPECT_FALSE(curve.Useless(4));
  EXPECT_EQ(curve.Of(4).busy, 18 * kUs);
  EXPECT_EQ(curve.largest(), 4u);
}

TEST(BatchCurveTest, WhatSeemsUselessTwiceIs) {
  BatchCurve curve(4);
  curve.SetReady(2);
  for (int round = 0; round < 2; ++round) {
    EXPECT_FALSE(curve.Useless(2));
    Teach(curve, 1, 10 * kUs, round == 0 ? 3 : kAgain);
    Teach(curve, 2, 20 * kUs, round == 0 ? 3 : kAgain);
  }
  EXPECT_TRUE(curve.Useless(2));
}

// The machine gets slower while only the largest size runs: its half is not what it was, either.
TEST(BatchCurveTest, AMachineThatGetsSlowerMakesNothingUseless) {
  BatchCurve curve = Curve({10 * kUs, 16 * kUs, 26 * kUs});
  for (int run = 0; run < 100; ++run) {
    const uint32_t size = curve.largest();
    Teach(curve, size, size == 4 ? 78 * kUs : 48 * kUs, 1);
    ASSERT_FALSE(curve.Useless(4)) << run;
  }
  EXPECT_EQ(curve.largest(), 4u);
}

TEST(BatchCurveTest, WhatSeemedUselessLongAgoIsTriedAnew) {
  BatchCurve curve = Curve({10 * kUs, 12 * kUs});
  Teach(curve, 2, 60 * kUs, 2);  // held up
  EXPECT_EQ(curve.largest(), 1u);
  Teach(curve, 1, 10 * kUs, kAgain);
  Teach(curve, 2, 19 * kUs, kAgain);  // hardly
  EXPECT_EQ(curve.Of(2).busy, 19 * kUs);
  Teach(curve, 1, 9 * kUs, 20);
  EXPECT_GT(curve.Of(2).busy, 18 * kUs);
  Teach(curve, 1, 9 * kUs, 80);
  EXPECT_LT(curve.Of(2).busy, 12 * kUs) << "a guess";
}

TEST(BatchCurveTest, ALimitHoldsForGood) {
  BatchCurve curve = Curve({10 * kUs, 12 * kUs, 14 * kUs});
  curve.SetLimit(2);
  EXPECT_EQ(curve.largest(), 2u);
  curve.SetReady(4);
  EXPECT_EQ(curve.largest(), 2u);
  EXPECT_EQ(curve.Next(true), 0u);
}

TEST(BatchCurveTest, WhatIsGivenUpComesBackWithTryAgainAndIsLearnedAnew) {
  BatchCurve curve = Curve({10 * kUs, 20 * kUs});
  curve.GiveUp(2);
  EXPECT_EQ(curve.limit(), 1u);
  EXPECT_EQ(curve.largest(), 1u);
  EXPECT_EQ(curve.Next(true), 0u);
  curve.TryAgain();
  EXPECT_EQ(curve.Next(false), 2u);
  curve.SetReady(2);
  EXPECT_EQ(curve.Of(1).busy, 10 * kUs);
  EXPECT_EQ(curve.Of(2).busy, 12 * kUs) << "a guess again";
}

TEST(BatchCurveTest, WhatIsExpectedCountsUntilTheFirstRun) {
  BatchCurve curve(4);
  curve.Expect({10 * kUs, 5 * kUs});
  curve.SetReady(2);
  EXPECT_EQ(curve.Of(2).latency, 12 * kUs);
  curve.Learn(1, {20 * kUs, 20 * kUs});
  EXPECT_EQ(curve.Of(1).busy, 20 * kUs);
}

// --- Policies

TEST(BatchPolicyTest, UnknownNamesAndArgumentsAreRefusedWithTheNames) {
  for (const char* text : {"", "batch", "timeout(", "timeout()", "timeout(-1)", "timeout(x)",
                           "timeout(1.5)", "timeout(99999999999)", "none(3)", "timeouts"}) {
    const auto made = MakeBatchPolicy(text);
    ASSERT_FALSE(made.ok()) << text;
    EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument);
  }
  for (const std::string& name : BatchPolicyNames()) {
    EXPECT_EQ(MakeBatchPolicy(name).value()->name(), name);
  }
}

TEST(BatchPolicyTest, NoneTakesRowsOneByOne) {
  EXPECT_EQ((Case{Curve({kUs, kUs, kUs}), Rows(5)}.Ask("none").count), 0u);
}

TEST(BatchPolicyTest, AllButTimeoutAndDeferredPutRowsInLineAtOnce) {
  for (const char* policy : {"none", "immediate", "path-aware"}) {
    EXPECT_LE((Case{Curve({kUs, kUs}), Rows(1)}.When(policy)), kNow) << policy;
  }
}

TEST(BatchPolicyTest, ImmediateTakesAllThatThereIsRoomFor) {
  const BatchCurve curve = Curve({kUs, kUs, kUs});
  EXPECT_EQ((Case{curve, Rows(9)}.Ask("immediate")), (BatchChoice{1, 3}));
  EXPECT_EQ((Case{curve, Rows(2)}.Ask("immediate")), (BatchChoice{1, 1}));
  EXPECT_EQ((Case{curve, Rows(1)}.Ask("immediate").count), 0u);
}

TEST(BatchPolicyTest, TimeoutWaitsUntilFullOrTheFirstHasWaitedLongEnough) {
  Case c{Curve({kUs, kUs, kUs}), Rows(3)};
  EXPECT_EQ(c.When("timeout(50)"), kNow + 50 * kUs);
  EXPECT_EQ(c.Ask("timeout(50)").count, 2u);
  c.waiting = Rows(4);
  EXPECT_LE(c.When("timeout(50)"), kNow);
  EXPECT_LE((Case{Curve({kUs}), Rows(1)}.When("timeout")), kNow) << "one row is full";
}

TEST(BatchPolicyTest, DeferredWaitsForHalfOfTheTimeToSpare) {
  Case c{Curve({10 * kUs, 18 * kUs, 32 * kUs, 60 * kUs}), Rows(2, kNow + 100 * kUs)};
  c.waiting.push_back({kNow, kNow + 80 * kUs});
  EXPECT_EQ(c.When("deferred"), kNow + 24 * kUs) << "three take as long as four: 32 us";
  EXPECT_EQ(c.Ask("deferred").count, 2u);
  c.waiting = Rows(2);
  EXPECT_LE(c.When("deferred"), kNow) << "nothing says how long it may wait";
}

TEST(BatchPolicyTest, PathAwareTakesAllWhereItCostsNobodyAnything) {
  const Case c{Curve({10 * kUs, 10 * kUs, 10 * kUs}), Rows(4)};
  EXPECT_EQ(c.Ask("path-aware"), (BatchChoice{1, 3}));
}

TEST(BatchPolicyTest, PathAwareKeepsApartWhatGainsNothing) {
  EXPECT_EQ((Case{Curve({10 * kUs, 20 * kUs}), Rows(2), 100}.Ask("path-aware").count), 0u);
}

TEST(BatchPolicyTest, PathAwareTakesOthersForASmallGainOnlyIfManyWaitBehind) {
  Case c{Curve({10 * kUs, 16 * kUs}), Rows(2)};  // one waits 6 us longer, 4 us are saved
  EXPECT_EQ(c.Ask("path-aware").count, 0u);
  c.others = 1;
  EXPECT_EQ(c.Ask("path-aware").count, 1u);
}

TEST(BatchPolicyTest, PathAwareSkipsASizeThatGainsNothingForALargerThatDoes) {
  const Case c{Curve({10 * kUs, 20 * kUs, 20 * kUs}), Rows(4), 10};
  EXPECT_EQ(c.Ask("path-aware").count, 3u);
}

TEST(BatchPolicyTest, PathAwareMakesNobodyLateWhoNeedNotBe) {
  Case c{Curve({100 * kUs, 110 * kUs}), Rows(2)};
  c.waiting[0].due = kNow + 105 * kUs;
  EXPECT_EQ(c.Ask("path-aware").count, 0u);
  c.waiting[0].due = kNow + 110 * kUs;
  EXPECT_EQ(c.Ask("path-aware").count, 1u);
  c.waiting[0].due = kNow + 90 * kUs;
  EXPECT_EQ(c.Ask("path-aware").count, 1u) << "late anyway";
  c.waiting = Rows(2);
  c.waiting[1].due = kNow + 250 * kUs;
  EXPECT_EQ(c.Ask("path-aware").count, 1u);
}

TEST(BatchPolicyTest, PathAwareGivesUpOneWhereMoreWouldBeLateBehindIt) {
  Case c{Curve({100 * kUs, 110 * kUs, 120 * kUs, 130 * kUs}), Rows(8, kNow + 150 * kUs)};
  c.waiting[0].due = kNow + 105 * kUs;
  EXPECT_EQ(c.Ask("path-aware").count, 7u);
}

TEST(BatchPolicyTest, PathAwareLeavesOutWhoWouldBeLateInTheBatch) {
  Case c{Curve({100 * kUs, 110 * kUs, 120 * kUs}), Rows(5, kNow + 150 * kUs)};
  c.waiting[0].due = c.waiting[1].due = kNow + 50 * kUs;  // the first is late, and goes with
  c.waiting[1].due = kNow + 105 * kUs;
  EXPECT_EQ(c.Ask("path-aware"), (BatchChoice{2, 3}));
}

TEST(BatchPolicyTest, PathAwareTriesASizeThatHasNotRun) {
  BatchCurve curve = Curve({10 * kUs});
  curve.SetReady(2);
  EXPECT_EQ((Case{curve, Rows(2)}.Ask("path-aware").count), 1u);
}

}  // namespace
}  // namespace plexus
