#include "sched/indexed_heap.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>

namespace plexus {
namespace {

TEST(IndexedHeapTest, TiesGoToTheSmallerSequence) {
  IndexedHeap heap;
  heap.Reserve(3);
  heap.Set(0, 1.0, 7);
  heap.Set(1, 1.0, 3);
  heap.Set(2, 1.0, 5);
  EXPECT_EQ(heap.top(), 1u);
}

TEST(IndexedHeapTest, RemovingWhatIsNotThereChangesNothing) {
  IndexedHeap heap;
  heap.Reserve(2);
  heap.Set(0, 1.0, 0);
  heap.Remove(1);
  EXPECT_EQ(heap.size(), 1u);
}

TEST(IndexedHeapTest, AgreesWithASortedMapOnRandomOperations) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    IndexedHeap heap;
    constexpr uint32_t kItems = 200;
    heap.Reserve(kItems);
    std::map<std::pair<double, uint64_t>, uint32_t> order;
    std::map<uint32_t, std::pair<double, uint64_t>> keys;
    for (int step = 0; step < 3000; ++step) {
      const uint32_t item = random() % kItems;
      if (keys.count(item) > 0) order.erase(keys[item]);
      if (random() % 3 == 0) {
        heap.Remove(item);
        keys.erase(item);
      } else {
        const std::pair<double, uint64_t> key(random() % 50, item);
        heap.Set(item, key.first, key.second);
        order[key] = item;
        keys[item] = key;
      }
      ASSERT_EQ(heap.size(), order.size()) << "seed " << seed;
      ASSERT_EQ(heap.Contains(item), keys.count(item) > 0);
      if (!order.empty()) {
        ASSERT_EQ(heap.top(), order.begin()->second) << "seed " << seed;
        ASSERT_EQ(heap.top_key(), order.begin()->first.first);
      }
    }
  }
}

}  // namespace
}  // namespace plexus
