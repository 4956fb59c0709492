#include "device/packing.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace plexus {
namespace {

UnitLimits Sm() {
  UnitLimits l;
  l.blocks = 16;
  l.threads = 1024;
  l.registers = 65536;
  l.shared_bytes = 65536;
  l.register_granularity = 256;
  l.shared_granularity = 256;
  l.warp_size = 32;
  return l;
}

BlockFootprint Foot(int32_t threads, int32_t registers = 0, int32_t shared_bytes = 0) {
  BlockResources r;
  r.threads = threads;
  r.registers_per_thread = registers;
  r.shared_bytes = shared_bytes;
  return FootprintOf(Sm(), r);
}

std::map<uint32_t, uint32_t> Place(UnitPacking& p, const BlockFootprint& block, uint32_t blocks) {
  std::vector<UnitPacking::Share> shares;
  const uint32_t placed = p.Place(block, blocks, &shares);
  std::map<uint32_t, uint32_t> on;
  uint32_t sum = 0;
  for (const auto& s : shares) {
    EXPECT_TRUE(on.emplace(s.unit, s.blocks).second) << "a unit named twice";
    sum += s.blocks;
  }
  EXPECT_EQ(sum, placed);
  return on;
}

using On = std::map<uint32_t, uint32_t>;

TEST(UnitPackingTest, FootprintsRoundUpToTheGranularity) {
  EXPECT_EQ(Foot(33, 33, 257), (BlockFootprint{64, 2 * 1280, 512}));
  EXPECT_EQ(Foot(0, -1, -1), (BlockFootprint{32, 0, 0}));
  EXPECT_GT(Foot(1 << 30, 1 << 30).registers, 1 << 29);  // saturates instead of wrapping around
}

TEST(UnitPackingTest, BlocksSpreadEvenlyAndTheRestGoesToTheFirstUnits) {
  UnitPacking p(3, Sm());
  EXPECT_EQ(Place(p, Foot(64), 7), (On{{0, 3}, {1, 2}, {2, 2}}));
  EXPECT_EQ(Place(p, Foot(64), 1), (On{{1, 1}}));
  EXPECT_EQ(Place(p, Foot(64), 100), (On{{0, 13}, {1, 13}, {2, 14}}));
  EXPECT_EQ(Place(p, Foot(64), 1), On{});
  EXPECT_EQ(p.blocks_on(2), 16u);
}

TEST(UnitPackingTest, ABlockGoesToTheUnitWithMostRoomForItsOwnKind) {
  UnitPacking p(2, Sm());
  EXPECT_EQ(Place(p, Foot(32, 0, 40 * 1024), 1), (On{{0, 1}}));
  EXPECT_EQ(Place(p, Foot(32, 0, 16 * 1024), 2), (On{{1, 2}}));
  EXPECT_EQ(Place(p, Foot(32), 1), (On{{0, 1}}));
}

TEST(UnitPackingTest, SaysWhyABlockNeverFits) {
  EXPECT_EQ(WhyNeverFits(Sm(), Foot(1024, 64, 65536)), "");
  EXPECT_EQ(WhyNeverFits(Sm(), Foot(1025)), "needs 1056 threads, a unit has 1024");
  EXPECT_EQ(WhyNeverFits(Sm(), Foot(1024, 65)), "needs 73728 registers, a unit has 65536");
  EXPECT_EQ(WhyNeverFits(Sm(), Foot(32, 0, 65537)),
            "needs 65792 bytes of shared memory, a unit has 65536");
  EXPECT_EQ(UnitPacking(4, Sm()).Room(Foot(1025), 9), 0u);
}

// One block after the other, each on the unit with most room, by division.
struct Naive {
  struct Unit {
    int32_t blocks = 0, threads = 0, registers = 0, shared = 0;
  };
  std::vector<Unit> units;
  int32_t Fits(const Unit& u, const BlockFootprint& f) const {
    const UnitLimits l = Sm();
    int32_t fits = std::min(l.blocks - u.blocks, (l.threads - u.threads) / f.threads);
    if (f.registers > 0) fits = std::min(fits, (l.registers - u.registers) / f.registers);
    if (f.shared_bytes > 0) fits = std::min(fits, (l.shared_bytes - u.shared) / f.shared_bytes);
    return fits;
  }
  void Take(uint32_t u, const BlockFootprint& f, int32_t n) {
    units[u].blocks += n;
    units[u].threads += n * f.threads;
    units[u].registers += n * f.registers;
    units[u].shared += n * f.shared_bytes;
  }
  On Place(const BlockFootprint& f, uint32_t blocks, const std::vector<uint32_t>& among) {
    On on;
    for (; blocks > 0; --blocks) {
      uint32_t best = among[0];
      for (uint32_t u : among) best = Fits(units[u], f) > Fits(units[best], f) ? u : best;
      if (Fits(units[best], f) <= 0) break;
      Take(best, f, 1);
      ++on[best];
    }
    return on;
  }
};

TEST(UnitPackingTest, AgreesWithOneBlockAfterTheOtherOnRandomTraffic) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const uint32_t units = 1 + random() % 20;
    UnitPacking p(units, Sm());
    Naive naive{std::vector<Naive::Unit>(units)};
    std::vector<std::pair<BlockFootprint, UnitPacking::Share>> held;
    std::vector<uint32_t> all(units);
    for (uint32_t u = 0; u < units; ++u) all[u] = u;
    for (int step = 0; step < 60; ++step) {
      if (random() % 3 == 0 && !held.empty()) {
        const size_t i = random() % held.size();
        p.Free(held[i].first, held[i].second.unit, held[i].second.blocks);
        naive.Take(held[i].second.unit, held[i].first,
                   -static_cast<int32_t>(held[i].second.blocks));
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
        continue;
      }
      const BlockFootprint f = Foot(32 << random() % 5, random() % 128, (random() % 20) * 1000);
      const uint32_t blocks = 1 + random() % 60;
      int32_t room = 0;
      for (const auto& u : naive.units) room += std::max(0, naive.Fits(u, f));
      ASSERT_EQ(p.Room(f, 1000), static_cast<uint32_t>(room));
      std::vector<uint32_t> among;
      for (uint32_t u : all) {
        if (random() % 2 == 0) among.push_back(u);
      }
      const bool some = random() % 2 == 0 && !among.empty();
      std::vector<UnitPacking::Share> shares;
      if (some) {
        p.PlaceAmong(among, f, blocks, &shares);
      } else {
        p.Place(f, blocks, &shares);
      }
      On on;
      for (const auto& s : shares) {
        on[s.unit] = s.blocks;
        held.emplace_back(f, s);
      }
      ASSERT_EQ(on, naive.Place(f, blocks, some ? among : all));
    }
  }
}

}  // namespace
}  // namespace plexus
