#include "device/cpu/arena_pool.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

std::byte* DataOf(const std::unique_ptr<Arena>& arena) {
  return static_cast<CpuArena*>(arena.get())->data();
}

TEST(ArenaPoolTest, TheLastArenaReturnedIsTheFirstHandedOut) {
  ManualClock clock;
  ArenaPool pool(1 << 20, clock);
  auto a = pool.Allocate(1000).value();
  auto b = pool.Allocate(1000).value();
  std::byte* warm = DataOf(a);
  b.reset();
  a.reset();
  EXPECT_EQ(DataOf(pool.Allocate(900).value()), warm);
}

TEST(ArenaPoolTest, ArenasAreAligned) {
  ManualClock clock;
  ArenaPool pool(size_t{64} << 20, clock);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(DataOf(pool.Allocate(100).value())) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(DataOf(pool.Allocate(size_t{3} << 20).value())) %
                (size_t{2} << 20),
            0u);
}

TEST(ArenaPoolTest, TheBudgetCountsWhatIsInUseAndPooledMemoryMakesWay) {
  ManualClock clock;
  ArenaPool pool(10'000, clock);
  auto a = pool.Allocate(6000).value();
  EXPECT_EQ(pool.Allocate(6000).status().code(), StatusCode::kResourceExhausted);
  a.reset();
  EXPECT_GE(pool.pooled_bytes(), 6000u);
  auto b = pool.Allocate(9000);
  ASSERT_TRUE(b.ok());
  EXPECT_EQ(pool.pooled_bytes(), 0u);
  EXPECT_EQ(pool.Allocate(~size_t{0}).status().code(), StatusCode::kResourceExhausted);
}

TEST(ArenaPoolTest, TheWholeBudgetCanBeOneArena) {
  ManualClock clock;
  ArenaPool pool(1001, clock);
  EXPECT_TRUE(pool.Allocate(1001).ok());
  EXPECT_FALSE(pool.Allocate(1002).ok());
}

TEST(ArenaPoolTest, AMuchLargerBlockIsNotWastedOnASmallArena) {
  ManualClock clock;
  ArenaPool pool(1 << 20, clock);
  std::byte* large = DataOf(pool.Allocate(100'000).value());
  EXPECT_NE(DataOf(pool.Allocate(1000).value()), large);
}

TEST(ArenaPoolTest, TrimFreesOnlyWhatWasUnusedForLong) {
  ManualClock clock;
  ArenaPool pool(1 << 20, clock);
  pool.Allocate(1024).value().reset();
  clock.Advance(std::chrono::seconds(10));
  pool.Allocate(4096).value().reset();
  EXPECT_EQ(pool.Trim(std::chrono::seconds(5)), 1024u);
  EXPECT_EQ(pool.pooled_bytes(), 4096u);
}

TEST(ArenaPoolTest, AnEmptyArenaCostsNothing) {
  ManualClock clock;
  ArenaPool pool(0, clock);
  const auto arena = pool.Allocate(0).value();
  EXPECT_EQ(arena->size_bytes(), 0u);
}

}  // namespace
}  // namespace plexus
