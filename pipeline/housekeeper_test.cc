#include "pipeline/housekeeper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace plexus {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

class HousekeeperTest : public ::testing::Test {
 protected:
  Housekeeper::Duties Duties(Duration save_every = hours(1)) {
    Housekeeper::Duties duties;
    duties.pump = [this](TimePoint) {
      ++pumps_;
      return pump_next_.load();
    };
    duties.tidy = [] {};
    duties.save = [this] {
      if (++saves_ == 3) saved_.set_value();
    };
    duties.save_every = save_every;
    return duties;
  }
  static TimePoint In(Duration time) { return RealClock::Get().Now() + time; }

  std::atomic<TimePoint> pump_next_{TimePoint::max()};
  std::atomic<int> pumps_{0}, saves_{0};
  std::promise<void> saved_;
};

// A client may ask for a timeout of an hour, and often.
TEST_F(HousekeeperTest, WhatIsExpectedForWhoHasGoneIsForgottenLongBeforeItsTime) {
  Housekeeper keeper(Duties(), RealClock::Get());
  std::vector<std::shared_ptr<int>> here;
  for (int i = 0; i < 100'000; ++i) {
    auto whose = std::make_shared<int>(i);
    keeper.Expect(In(hours(1)), whose, [] { FAIL() << "an hour early"; });
    if (i % 100 == 0) here.push_back(std::move(whose));
    EXPECT_LE(keeper.num_expected(), 1024 + 2 * here.size());
  }
  EXPECT_GE(keeper.num_expected(), here.size());
}

TEST_F(HousekeeperTest, WhatIsExpectedForWhoIsThereSurvivesAllOthersAndIsDone) {
  Housekeeper keeper(Duties(), RealClock::Get());
  const auto here = std::make_shared<int>(0);
  std::promise<void> done;
  std::atomic<int> calls{0};
  const TimePoint soon = In(milliseconds(20));
  for (int i = 0; i < 5; ++i) {
    keeper.Expect(soon, here, [&] {
      if (++calls == 5) done.set_value();
    });
  }
  for (int i = 0; i < 10'000; ++i) {
    const std::weak_ptr<int> gone = std::make_shared<int>(i);
    keeper.Expect(soon, gone, [] { FAIL() << "nobody waits for it"; });
  }
  done.get_future().wait();
  EXPECT_GE(RealClock::Get().Now(), soon);
  EXPECT_GE(pumps_.load(), 1) << "before";
}

TEST_F(HousekeeperTest, WhomItCallsIsKeptUntilTheCallReturns) {
  Housekeeper keeper(Duties(), RealClock::Get());
  std::promise<void> begun, dropped, looked;
  auto whose = std::make_shared<int>(7);
  std::weak_ptr<int> weak = whose;
  bool there = false;
  keeper.Expect(In({}), whose, [&] {
    begun.set_value();
    dropped.get_future().wait();
    there = !weak.expired();
    looked.set_value();
  });
  begun.get_future().wait();
  whose = nullptr;
  dropped.set_value();
  looked.get_future().wait();
  EXPECT_TRUE(there);
}

TEST_F(HousekeeperTest, ItPumpsWhenItWasToldTo) {
  pump_next_ = In({});  // again and again
  Housekeeper keeper(Duties(), RealClock::Get());
  while (pumps_.load() < 10) std::this_thread::yield();
  EXPECT_EQ(keeper.num_expected(), 0u) << "its own times are no entries";
}

TEST_F(HousekeeperTest, ItSavesEverySoOften) {
  Housekeeper keeper(Duties(milliseconds(1)), RealClock::Get());
  saved_.get_future().wait();
}

}  // namespace
}  // namespace plexus
