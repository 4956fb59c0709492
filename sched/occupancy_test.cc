#include "sched/occupancy.h"

#include <gtest/gtest.h>

#include <random>

namespace plexus {
namespace {

constexpr Duration kUs = std::chrono::microseconds(1);

// An SM of compute capability 9.0: 32 blocks, 2048 threads, 64 K registers in units of 256 per
// warp, 228 KiB shared memory in units of 128 bytes.
UnitLimits HopperSm() {
  UnitLimits l;
  l.blocks = 32;
  l.threads = 2048;
  l.registers = 65536;
  l.shared_bytes = 233472;
  l.register_granularity = 256;
  l.shared_granularity = 128;
  l.warp_size = 32;
  return l;
}

BlockResources Block(int32_t threads, int32_t registers = 0, int32_t shared_bytes = 0) {
  BlockResources r;
  r.threads = threads;
  r.registers_per_thread = registers;
  r.shared_bytes = shared_bytes;
  return r;
}

TEST(UnitOccupancyTest, AUnitRunsOneLaunchAndQueuesAsManyAsItsDepth) {
  UnitOccupancy o(2, 1);
  EXPECT_EQ(o.num_idle(), 2u);
  EXPECT_FALSE(o.queueable().Any());
  o.Add(UnitId(1), 10, kUs, TimePoint{});
  EXPECT_FALSE(o.idle().Test(1));
  EXPECT_TRUE(o.queueable().Test(1));
  o.Add(UnitId(1), 11, 2 * kUs, TimePoint{});
  EXPECT_FALSE(o.queueable().Test(1));
  EXPECT_EQ(o.busy_until(UnitId(1)), TimePoint(3 * kUs));
  EXPECT_EQ(o.oldest(UnitId(1)), 10u);
  EXPECT_TRUE(o.Remove(UnitId(1), 10, TimePoint(5 * kUs)));
  EXPECT_EQ(o.oldest(UnitId(1)), 11u);
  EXPECT_EQ(o.busy_until(UnitId(1)), TimePoint(7 * kUs));
  EXPECT_TRUE(o.Remove(UnitId(1), 11, TimePoint(7 * kUs)));
  EXPECT_EQ(o.num_idle(), 2u);
  EXPECT_EQ(o.in_flight(), 0u);
}

TEST(UnitOccupancyTest, RemovingALaunchTheUnitDoesNotHoldChangesNothing) {
  UnitOccupancy o(1, 1);
  o.Add(UnitId(0), 4, kUs, TimePoint{});
  EXPECT_FALSE(o.Remove(UnitId(0), 5, TimePoint{}));
  EXPECT_EQ(o.in_flight(), 1u);
}

TEST(BitSetTest, FindIfVisitsInOrderAcrossWords) {
  BitSet s;
  s.Resize(130);
  for (uint32_t b : {0u, 63u, 64u, 129u}) s.Set(b, true);
  std::vector<uint32_t> seen;
  EXPECT_FALSE(s.FindIf([&](uint32_t b) {
    seen.push_back(b);
    return false;
  }));
  EXPECT_EQ(seen, (std::vector<uint32_t>{0, 63, 64, 129}));
}

// Blocks per SM as NVIDIA's occupancy calculator gives them for compute capability 9.0.
TEST(PackedOccupancyTest, CapacityIsTheTightestLimitInTheHardwaresGranularity) {
  const PackedOccupancy o(1, HopperSm(), 4);
  EXPECT_EQ(o.Capacity(Block(32)), 32u);                // block slots
  EXPECT_EQ(o.Capacity(Block(1024)), 2u);               // threads
  EXPECT_EQ(o.Capacity(Block(33)), 32u);                // two warps each, still block slots
  EXPECT_EQ(o.Capacity(Block(256, 32)), 8u);            // threads again: 8192 registers each
  EXPECT_EQ(o.Capacity(Block(256, 64)), 4u);            // registers: 16384 each
  EXPECT_EQ(o.Capacity(Block(256, 65)), 3u);            // 65 rounds to 72 per thread
  EXPECT_EQ(o.Capacity(Block(128, 0, 48 * 1024)), 4u);  // shared memory
  EXPECT_EQ(o.Capacity(Block(128, 0, 48 * 1024 + 1)), 4u);
  EXPECT_EQ(o.Capacity(Block(128, 0, 228 * 1024)), 1u);
  EXPECT_EQ(o.Capacity(Block(128, 0, 228 * 1024 + 1)), 0u);
  EXPECT_EQ(o.Capacity(Block(4096)), 0u);
}

TEST(PackedOccupancyTest, RoomShrinksAsBlocksArePlacedAndComesBack) {
  PackedOccupancy o(2, HopperSm(), 4);
  EXPECT_EQ(o.Room(Block(1024), 100), 4u);
  o.Add(0, Block(1024), 3);
  EXPECT_EQ(o.Room(Block(1024), 100), 1u);
  EXPECT_EQ(o.Room(Block(512), 100), 2u);
  EXPECT_EQ(o.Remove(0, 3), 3u);
  EXPECT_TRUE(o.empty());
  EXPECT_EQ(o.Room(Block(1024), 100), 4u);
}

TEST(PackedOccupancyTest, WhatDoesNotFitWaitsInOrderAndMovesUp) {
  PackedOccupancy o(1, HopperSm(), 4);
  o.Add(0, Block(1024), 3);
  EXPECT_EQ(o.resident(), 2u);
  EXPECT_EQ(o.waiting(), 1u);
  o.Add(1, Block(32), 1);  // would fit nowhere anyway, and may not overtake
  EXPECT_EQ(o.waiting(), 2u);
  EXPECT_EQ(o.Room(Block(32), 1), 0u);
  o.Remove(0, 1);
  EXPECT_EQ(o.resident(), 2u);
  EXPECT_EQ(o.waiting(), 1u);
  o.Remove(0, 2);
  EXPECT_EQ(o.resident(), 1u);
  EXPECT_EQ(o.waiting(), 0u);
}

TEST(PackedOccupancyTest, ALaunchThatPassesIsPlacedBesideThoseThatWaitIfAllOfItFits) {
  PackedOccupancy o(1, HopperSm(), 4);
  o.Add(0, Block(1536), 2);
  EXPECT_EQ(o.resident(), 1u);
  EXPECT_EQ(o.waiting(), 1u);
  EXPECT_EQ(o.Room(Block(256), 9), 2u);
  o.Add(1, Block(256), 3, true);  // one of them would not fit
  EXPECT_EQ(o.waiting(), 4u);
  o.Add(2, Block(256), 1, false);
  EXPECT_EQ(o.waiting(), 5u);
  o.Add(3, Block(256), 2, true);
  EXPECT_EQ(o.waiting(), 5u);
  EXPECT_EQ(o.resident(), 3u);
  EXPECT_EQ(o.Room(Block(32), 1), 0u);
  EXPECT_EQ(o.Remove(3, 2), 2u);
  EXPECT_EQ(o.waiting(), 5u);
  EXPECT_EQ(o.Remove(0, 1), 1u);  // those that wait come in their order
  EXPECT_EQ(o.waiting(), 2u);
}

TEST(PackedOccupancyTest, BlocksReportedStartedNoLongerWait) {
  PackedOccupancy o(1, HopperSm(), 4);
  o.Add(0, Block(1024), 2);
  o.Add(1, Block(1024), 3);
  EXPECT_EQ(o.waiting(), 3u);
  // Launch 0 is over, but that has not been reported.
  o.Start(0, 2);
  o.Start(1, 2);
  EXPECT_EQ(o.waiting(), 1u);
  EXPECT_EQ(o.resident(), 4u);
  EXPECT_EQ(o.Room(Block(1024), 1), 0u);
  EXPECT_EQ(o.Remove(0, 2), 2u);  // the room that launch 1 has had for a while
  EXPECT_EQ(o.waiting(), 1u);
  EXPECT_EQ(o.resident(UnitId(0)), 2u);
  EXPECT_EQ(o.Remove(1, 1), 1u);
  EXPECT_EQ(o.waiting(), 0u);
  o.Start(1, 1);  // nothing new
  EXPECT_EQ(o.resident(), 2u);
  o.Start(1, 7);  // more than there are
  EXPECT_EQ(o.resident(), 2u);
  EXPECT_EQ(o.Remove(1, 2), 2u);
  EXPECT_TRUE(o.empty());
  EXPECT_EQ(o.Room(Block(1024), 9), 2u);
  o.Add(1, Block(1024), 1);  // a slot's next launch starts anew
  o.Start(1, 1);
  EXPECT_EQ(o.resident(), 1u);
}

TEST(PackedOccupancyTest, ADeviceFasterThanItsMirrorIsReconciled) {
  PackedOccupancy o(1, HopperSm(), 4);
  o.Add(0, Block(1024), 2);
  o.Add(1, Block(1024), 2);
  EXPECT_EQ(o.Remove(1, 2), 2u);  // the mirror thought they wait
  EXPECT_EQ(o.Remove(1, 1), 0u);  // more than there ever were
  EXPECT_EQ(o.Remove(0, 2), 2u);
  EXPECT_TRUE(o.empty());
  o.Add(1, Block(1024), 1);
  EXPECT_EQ(o.resident(), 1u);
}

TEST(PackedOccupancyTest, NeverNegativeNorOverCapacityOnRandomTraffic) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    const uint32_t units = 1 + random() % 6;
    const bool reports_starts = seed % 2 == 1;
    PackedOccupancy o(units, HopperSm(), 16);
    std::vector<uint32_t> left(16, 0);
    for (int step = 0; step < 400; ++step) {
      const uint32_t slot = random() % 16;
      if (left[slot] == 0) {
        left[slot] = 1 + random() % 100;
        o.Add(slot, Block(32 << random() % 6, random() % 128, (random() % 64) * 1000), left[slot]);
      } else if (reports_starts && random() % 2 == 0) {
        o.Start(slot, random() % 20);
      } else {
        const uint32_t n = 1 + random() % left[slot];
        ASSERT_EQ(o.Remove(slot, n), n) << "seed " << seed;
        left[slot] -= n;
      }
      uint32_t total = 0, resident = 0;
      for (uint32_t n : left) total += n;
      for (uint32_t u = 0; u < units; ++u) {
        ASSERT_LE(o.resident(UnitId(u)), 32u) << "seed " << seed;
        resident += o.resident(UnitId(u));
      }
      // What started where the mirror saw no room is on no unit.
      if (reports_starts) {
        ASSERT_GE(o.resident(), resident);
      } else {
        ASSERT_EQ(o.resident(), resident);
      }
      ASSERT_EQ(o.resident() + o.waiting(), total) << "seed " << seed;
    }
    for (uint32_t slot = 0; slot < 16; ++slot) o.Remove(slot, left[slot]);
    ASSERT_TRUE(o.empty()) << "seed " << seed;
    ASSERT_EQ(o.Room(Block(1024), 1000), 2 * units);
  }
}

}  // namespace
}  // namespace plexus
