#include "base/page_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

namespace plexus {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(PagePoolTest, WhatCameBackIsHandedOutAgain) {
  PagePool pool(8 * kMiB);
  void* const first = pool.Allocate(kMiB);
  ASSERT_NE(first, nullptr);
  std::memset(first, 1, kMiB);
  pool.Free(first, kMiB);
  EXPECT_EQ(pool.kept_bytes(), kMiB);
  EXPECT_EQ(pool.Allocate(kMiB - 5000), first) << "nearly as large";
  EXPECT_EQ(pool.kept_bytes(), 0u);
  void* const other = pool.Allocate(kMiB);
  EXPECT_NE(other, first);
  pool.Free(other, kMiB);
  void* const half = pool.Allocate(kMiB / 2);
  EXPECT_NE(half, other) << "it would waste half of it";
  pool.Free(half, kMiB / 2);
  pool.Free(first, kMiB - 5000);
  EXPECT_EQ(pool.kept_bytes(), 2 * kMiB + kMiB / 2);
}

TEST(PagePoolTest, NoMoreIsKeptThanItMay) {
  PagePool pool(2 * kMiB);
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(pool.Allocate(kMiB));
  for (void* block : blocks) pool.Free(block, kMiB);
  EXPECT_EQ(pool.kept_bytes(), 2 * kMiB);
  void* const large = pool.Allocate(3 * kMiB);
  pool.Free(large, 3 * kMiB);
  EXPECT_EQ(pool.kept_bytes(), 2 * kMiB);
  PagePool none(0);
  none.Free(none.Allocate(kMiB), kMiB);
  EXPECT_EQ(none.kept_bytes(), 0u);
  pool.Tidy();
  pool.Tidy();
  pool.Free(pool.Allocate(kMiB), kMiB, /*keep=*/false);
  EXPECT_EQ(pool.kept_bytes(), 0u);
  pool.Free(pool.Allocate(kMiB), kMiB);
  pool.Free(pool.Allocate(kMiB, /*kept_will_do=*/false), kMiB, /*keep=*/false);
  EXPECT_EQ(pool.kept_bytes(), kMiB) << "it was left to others";
}

TEST(PagePoolTest, WhatNobodyTakesGoesBackToTheSystem) {
  PagePool pool(8 * kMiB);
  void* const a = pool.Allocate(kMiB);
  void* const b = pool.Allocate(kMiB);
  pool.Free(a, kMiB);
  pool.Free(b, kMiB);
  pool.Tidy();
  EXPECT_EQ(pool.kept_bytes(), 2 * kMiB) << "they came since";
  pool.Free(pool.Allocate(kMiB), kMiB);
  pool.Tidy();
  EXPECT_EQ(pool.kept_bytes(), kMiB) << "one of them was used";
  pool.Tidy();
  EXPECT_EQ(pool.kept_bytes(), 0u);
}

TEST(PagePoolTest, ThreadsNeverGetTheSamePages) {
  PagePool pool(4 * kMiB);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, &wrong, t] {
      for (int i = 0; i < 200; ++i) {
        const size_t bytes = kMiB + static_cast<size_t>(i % 3) * 200'000;
        auto* const data = static_cast<unsigned char*>(pool.Allocate(bytes));
        std::memset(data, t, 64);
        data[bytes - 1] = static_cast<unsigned char>(t);
        if (i % 50 == 0) pool.Tidy();
        for (int k = 0; k < 64; ++k) wrong[static_cast<size_t>(t)] += data[k] != t;
        wrong[static_cast<size_t>(t)] += data[bytes - 1] != t;
        pool.Free(data, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int each : wrong) EXPECT_EQ(each, 0);
}

}  // namespace
}  // namespace plexus
