#include "pipeline/batch_gain.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

constexpr Duration Us(int64_t us) { return std::chrono::microseconds(us); }

TEST(BatchGainTest, TheTimesOfAllShapesAreAddedUp) {
  BatchGain gain;
  EXPECT_FALSE(gain.part().has_value());
  gain.Note(Us(200), Us(100));  // a narrow row gains half,
  EXPECT_NEAR(*gain.part(), 0.5, 1e-6);
  gain.Note(Us(20'000), Us(24'000));  // a wide one loses, and takes a hundred times as long
  EXPECT_LT(*gain.part(), -0.15);
  for (int i = 0; i < 100; ++i) gain.Note(Us(200), Us(100));
  EXPECT_GT(*gain.part(), 0.4) << "what was long ago is forgotten";
}

TEST(BatchGainTest, WhatIsNotKnownIsTriedButNotForEver) {
  BatchGain gain;
  int trials = 0;
  while (gain.TakeTrial()) ASSERT_LT(++trials, 1000);
  EXPECT_GT(trials, 16);
  EXPECT_FALSE(gain.part().has_value());
  gain.Forget();
  EXPECT_TRUE(gain.TakeTrial());
  gain.Note(Us(10), Us(9));
  EXPECT_FALSE(gain.TakeTrial()) << "it is known";
  gain.Forget();
  EXPECT_TRUE(gain.TakeTrial()) << "anew";
  gain.None();
  EXPECT_EQ(gain.part(), 0.0);
  EXPECT_FALSE(gain.TakeTrial());
}

}  // namespace
}  // namespace plexus
