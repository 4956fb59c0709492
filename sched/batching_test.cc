#include "sched/batching.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

using What = BatchChoice::What;

constexpr Duration kUs = std::chrono::microseconds(1);
constexpr TimePoint kNow{std::chrono::seconds(1)};

// Sizes 1, 2, 4, ... take these times, latency and device alike.
BatchCurve Curve(const std::vector<Duration>& times) {
  BatchCurve curve(64);
  uint32_t size = 1;
  for (const Duration time : times) {
    curve.SetReady(size);
    for (int run = 0; run < 3; ++run) curve.Learn(size, {time, time});
    size *= 2;
  }
  return curve;
}

struct Case {
  BatchCurve curve;
  std::vector<WaitingRow> waiting;
  uint32_t open_rows = 0;
  TimePoint open_due = TimePoint::max();
  uint32_t others = 0;
  TimePoint now = kNow;

  BatchChoice Ask(const std::string& policy) const {
    BatchView view{now, curve, waiting, open_rows, open_due, others};
    return MakeBatchPolicy(policy).value()->Choose(view);
  }
};

std::vector<WaitingRow> Rows(size_t count, TimePoint due = TimePoint::max()) {
  return std::vector<WaitingRow>(count, WaitingRow{kNow, due});
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

TEST(BatchCurveTest, ALimitHoldsForGood) {
  BatchCurve curve = Curve({10 * kUs, 12 * kUs, 14 * kUs});
  curve.SetLimit(2);
  EXPECT_EQ(curve.largest(), 2u);
  curve.SetReady(4);
  EXPECT_EQ(curve.largest(), 2u);
  EXPECT_EQ(curve.Next(true), 0u);
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
  const BatchChoice choice = Case{Curve({kUs, kUs, kUs}), Rows(5), 1}.Ask("none");
  EXPECT_EQ(choice.what, What::kNew);
  EXPECT_EQ(choice.rows, 1u);
}

TEST(BatchPolicyTest, ImmediateTakesAllThatThereIsRoomFor) {
  const BatchCurve curve = Curve({kUs, kUs, kUs});
  BatchChoice choice = Case{curve, Rows(9)}.Ask("immediate");
  EXPECT_EQ(choice.what, What::kNew);
  EXPECT_EQ(choice.rows, 4u);
  choice = Case{curve, Rows(9), 3}.Ask("immediate");
  EXPECT_EQ(choice.what, What::kJoin);
  EXPECT_EQ(choice.rows, 1u);
  EXPECT_EQ((Case{curve, Rows(9), 4}.Ask("immediate").what), What::kNew) << "the open one is full";
}

TEST(BatchPolicyTest, TimeoutWaitsUntilFullOrTheFirstHasWaitedLongEnough) {
  Case c{Curve({kUs, kUs, kUs}), Rows(3)};
  BatchChoice choice = c.Ask("timeout(50)");
  EXPECT_EQ(choice.what, What::kWait);
  EXPECT_EQ(choice.until, kNow + 50 * kUs);
  c.now = kNow + 50 * kUs;
  EXPECT_EQ(c.Ask("timeout(50)").rows, 3u);
  c.now = kNow;
  c.waiting = Rows(4);
  EXPECT_EQ(c.Ask("timeout(50)").rows, 4u);
  EXPECT_EQ((Case{Curve({kUs}), Rows(1)}.Ask("timeout").what), What::kNew) << "one row is full";
}

TEST(BatchPolicyTest, DeferredWaitsForHalfOfTheTimeToSpare) {
  Case c{Curve({10 * kUs, 20 * kUs, 40 * kUs, 80 * kUs}), Rows(2, kNow + 100 * kUs)};
  c.waiting.push_back({kNow, kNow + 80 * kUs});
  BatchChoice choice = c.Ask("deferred");
  EXPECT_EQ(choice.what, What::kWait);
  EXPECT_EQ(choice.until, kNow + 20 * kUs) << "three take as long as four: 40 us";
  c.now = choice.until;
  EXPECT_EQ(c.Ask("deferred").rows, 3u);
  c.now = kNow;
  c.waiting = Rows(2);
  EXPECT_EQ(c.Ask("deferred").what, What::kNew) << "nothing says how long it may wait";
}

TEST(BatchPolicyTest, PathAwareJoinsWhereItCostsNobodyAnything) {
  const BatchChoice choice =
      Case{Curve({10 * kUs, 10 * kUs, 10 * kUs}), Rows(3), 1}.Ask("path-aware");
  EXPECT_EQ(choice.what, What::kJoin);
  EXPECT_EQ(choice.rows, 3u);
}

TEST(BatchPolicyTest, PathAwareKeepsApartWhatGainsNothing) {
  Case c{Curve({10 * kUs, 20 * kUs}), Rows(1), 1};
  c.others = 100;
  EXPECT_EQ(c.Ask("path-aware").what, What::kNew);
}

TEST(BatchPolicyTest, PathAwareJoinsForASmallGainOnlyIfManyWaitBehind) {
  Case c{Curve({10 * kUs, 16 * kUs}), Rows(1), 1};  // one waits 6 us longer, 4 us are saved
  c.others = 0;
  EXPECT_EQ(c.Ask("path-aware").what, What::kNew);
  c.others = 1;
  EXPECT_EQ(c.Ask("path-aware").what, What::kJoin);
}

TEST(BatchPolicyTest, PathAwareMakesNobodyLateWhoWouldNotBe) {
  Case c{Curve({100 * kUs, 110 * kUs}), Rows(1), 1};
  c.open_due = kNow + 105 * kUs;
  EXPECT_EQ(c.Ask("path-aware").what, What::kNew);
  c.open_due = kNow + 110 * kUs;
  EXPECT_EQ(c.Ask("path-aware").what, What::kJoin);
  c.open_due = kNow + 90 * kUs;
  EXPECT_EQ(c.Ask("path-aware").what, What::kJoin) << "late anyway";
  c.open_due = TimePoint::max();
  c.waiting = Rows(1, kNow + 105 * kUs);
  EXPECT_EQ(c.Ask("path-aware").what, What::kNew) << "nor the one that comes";
}

TEST(BatchPolicyTest, PathAwareTriesASizeThatHasNotRun) {
  BatchCurve curve = Curve({10 * kUs});
  curve.SetReady(2);
  EXPECT_EQ((Case{curve, Rows(1), 1}.Ask("path-aware").what), What::kJoin);
}

}  // namespace
}  // namespace plexus
