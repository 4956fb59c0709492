#include "sched/report_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace plexus {
namespace {

TEST(ReportWindowTest, TakesEachNumberOnce) {
  ReportWindow window;
  for (uint32_t number = 0; number < 1000; ++number) {
    EXPECT_TRUE(window.Take(number));
    EXPECT_FALSE(window.Take(number));
    EXPECT_FALSE(window.Take(number / 2));
  }
}

TEST(ReportWindowTest, NumbersMayOvertakeEachOther) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    std::vector<uint32_t> numbers(500);
    for (uint32_t i = 0; i < numbers.size(); ++i) numbers[i] = i;
    // Within blocks of 32 in any order, so nothing is more than 63 behind.
    for (size_t i = 0; i < numbers.size(); i += 32) {
      std::shuffle(numbers.begin() + static_cast<std::ptrdiff_t>(i),
                   numbers.begin() + static_cast<std::ptrdiff_t>(std::min(i + 32, numbers.size())),
                   random);
    }
    ReportWindow window;
    std::set<uint32_t> taken;
    for (const uint32_t number : numbers) {
      EXPECT_TRUE(window.Take(number)) << "seed " << seed;
      taken.insert(number);
      const uint32_t again = *std::next(taken.begin(), random() % taken.size());
      EXPECT_FALSE(window.Take(again)) << "seed " << seed << " number " << again;
    }
  }
}

TEST(ReportWindowTest, WhatIsTooLateToTellIsNotTaken) {
  ReportWindow window;
  EXPECT_TRUE(window.Take(0));
  EXPECT_TRUE(window.Take(64));  // 1 is the first that it still remembers
  EXPECT_TRUE(window.Take(1));
  EXPECT_FALSE(window.Take(0));
  EXPECT_TRUE(window.Take(~0u));
  EXPECT_FALSE(window.Take(65));
  EXPECT_TRUE(window.Take(~0u - 63));
  EXPECT_FALSE(window.Take(~0u - 64));
  EXPECT_FALSE(window.Take(~0u));
}

}  // namespace
}  // namespace plexus
