#include "device/cpu/heap_trimmer.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

HeapTrimmer::Use Use(size_t resident_mib, size_t used_mib) {
  return {resident_mib * kMiB, used_mib * kMiB};
}

TEST(HeapTrimmerTest, MuchFreeMemoryIsReasonToTrimAndMemoryInUseIsNone) {
  HeapTrimmer heap;
  EXPECT_FALSE(heap.IsDue(Use(500, 490)));
  EXPECT_TRUE(heap.IsDue(Use(500, 460)));
}

TEST(HeapTrimmerTest, WhatATrimCouldNotGiveBackIsNoReasonForTheNext) {
  HeapTrimmer heap;
  ASSERT_TRUE(heap.IsDue(Use(500, 400)));
  heap.Trimmed(Use(460, 400));
  EXPECT_FALSE(heap.IsDue(Use(480, 400)));
  EXPECT_TRUE(heap.IsDue(Use(500, 400)));
}

// In use at the time of a trim, and freed later.
TEST(HeapTrimmerTest, WhatIsFreedAfterATrimIsTrimmedInItsTurn) {
  HeapTrimmer heap;
  heap.Trimmed(Use(500, 480));
  EXPECT_FALSE(heap.IsDue(Use(500, 460)));
  EXPECT_TRUE(heap.IsDue(Use(500, 400)));
}

TEST(HeapTrimmerTest, TheLeastThatWasUnusedCounts) {
  HeapTrimmer heap;
  heap.Trimmed(Use(500, 400));
  EXPECT_FALSE(heap.IsDue(Use(500, 490)));
  EXPECT_TRUE(heap.IsDue(Use(500, 450)));
}

TEST(HeapTrimmerTest, MemoryThatWasNeverTouchedIsNotFree) {
  HeapTrimmer heap;
  EXPECT_FALSE(heap.IsDue(Use(100, 800)));
}

TEST(HeapTrimmerTest, TheSystemSaysWhatThisProcessHas) {
  EXPECT_GT(HeapTrimmer::Read().resident_bytes, 0u);
}

}  // namespace
}  // namespace plexus
