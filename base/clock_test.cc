#include "base/clock.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

using std::chrono::microseconds;

TEST(ManualClockTest, MovesOnlyWhenToldAndNeverBack) {
  ManualClock clock;
  const TimePoint start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(microseconds(5));
  EXPECT_EQ(clock.Now() - start, microseconds(5));
  clock.AdvanceTo(start);
  EXPECT_EQ(clock.Now() - start, microseconds(5));
  clock.AdvanceTo(start + microseconds(9));
  EXPECT_EQ(clock.Now() - start, microseconds(9));
}

TEST(RealClockTest, IsMonotonic) {
  TimePoint last = RealClock::Get().Now();
  for (int i = 0; i < 1000; ++i) {
    const TimePoint now = RealClock::Get().Now();
    EXPECT_GE(now, last);
    last = now;
  }
}

}  // namespace
}  // namespace plexus
