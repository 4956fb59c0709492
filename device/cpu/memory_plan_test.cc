#include "device/cpu/memory_plan.h"

#include <gtest/gtest.h>

namespace plexus::cpu {
namespace {

StorageAccess Reads(uint32_t storage, uint32_t part = 0) { return {storage, part, false}; }
StorageAccess Writes(uint32_t storage, uint32_t part = 0) { return {storage, part, true}; }

using Lists = std::vector<std::vector<uint32_t>>;

TEST(MemoryPlanTest, AChainReusesTheFirstBufferForTheThird) {
  PlanInput input;
  input.storage_bytes = {1000, 1000, 1000};
  input.kernels = {{Writes(0)}, {Reads(0), Writes(1)}, {Reads(1), Writes(2)}};
  const MemoryPlan plan = PlanMemory(input);
  EXPECT_EQ(plan.offsets[0], plan.offsets[2]);
  EXPECT_NE(plan.offsets[0], plan.offsets[1]);
  EXPECT_EQ(plan.arena_bytes, 2048u);
  EXPECT_EQ(plan.predecessors, (Lists{{}, {0}, {1}}));
}

TEST(MemoryPlanTest, ReusedMemoryMakesAnIndependentKernelWait) {
  // Kernel 2 starts an independent branch but lies where storage 0 was, which kernel 1 reads.
  PlanInput input;
  input.storage_bytes = {4096, 64, 4096};
  input.kernels = {{Writes(0)}, {Reads(0), Writes(1)}, {Writes(2)}, {Reads(1), Reads(2)}};
  const MemoryPlan plan = PlanMemory(input);
  EXPECT_EQ(plan.offsets[0], plan.offsets[2]);
  EXPECT_EQ(plan.predecessors, (Lists{{}, {0}, {1}, {2}}));
}

TEST(MemoryPlanTest, AnOverwriteWaitsForAllReaders) {
  PlanInput input;
  input.storage_bytes = {64, 64, 64};
  // Kernel 3 works in place on storage 0 while 1 and 2 read it.
  input.kernels = {{Writes(0)},
                   {Reads(0), Writes(1)},
                   {Reads(0), Writes(2)},
                   {Reads(1), Reads(2), Reads(0), Writes(0)}};
  const MemoryPlan plan = PlanMemory(input);
  EXPECT_EQ(plan.predecessors, (Lists{{}, {0}, {0}, {2, 1}}));
}

TEST(MemoryPlanTest, PartsOfOneStorageAreWrittenAtTheSameTime) {
  PlanInput input;
  input.storage_bytes = {64};
  input.kernels = {{Writes(0, 1)}, {Writes(0, 2)}, {Reads(0)}};
  EXPECT_EQ(PlanMemory(input).predecessors, (Lists{{}, {}, {1, 0}}));
}

TEST(MemoryPlanTest, StoragesAliveTogetherNeverOverlap) {
  PlanInput input;
  for (uint32_t k = 0; k < 40; ++k) {
    input.storage_bytes.push_back(64 + 100 * (k * 7 % 13));
    std::vector<StorageAccess> accesses = {Writes(k)};
    for (uint32_t back : {1u, 2u, 5u}) {
      if (k >= back) accesses.push_back(Reads(k - back));
    }
    input.kernels.push_back(accesses);
  }
  const MemoryPlan plan = PlanMemory(input);
  for (uint32_t a = 0; a < 35; ++a) {
    for (uint32_t b = a + 1; b < a + 6; ++b) {
      const bool apart = plan.offsets[a] + input.storage_bytes[a] <= plan.offsets[b] ||
                         plan.offsets[b] + input.storage_bytes[b] <= plan.offsets[a];
      EXPECT_TRUE(apart) << a << " and " << b;
      EXPECT_EQ(plan.offsets[a] % 64, 0u);
    }
  }
}

}  // namespace
}  // namespace plexus::cpu
