#include "base/memory_budget.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace plexus {
namespace {

TEST(MemoryBudget, RefusesWhatDoesNotFitAndSaysWhoseLimitItIs) {
  const auto process = std::make_shared<MemoryBudget>("the process", 100);
  MemoryBudget a("the request", 80, process), b("the request", 80, process);
  EXPECT_TRUE(a.Charge(60).ok());
  const Status own = a.Charge(30);
  EXPECT_EQ(own.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(own.message(), "30 bytes are needed, the request holds 60 of at most 80");
  EXPECT_EQ(b.Charge(50).message(), "50 bytes are needed, the process holds 60 of at most 100");
  EXPECT_EQ(b.used_bytes(), 0u) << "a refused charge leaves nothing behind";
  EXPECT_FALSE(a.Charge(~size_t{0}).ok());
  a.Release(60);
  EXPECT_TRUE(b.Charge(80).ok());
  EXPECT_EQ(process->used_bytes(), 80u);
}

TEST(MemoryBudget, ThreadsNeverExceedItTogether) {
  MemoryBudget budget("all", 1000);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 1000; ++turn) {
        if (!budget.Charge(300).ok()) continue;
        EXPECT_LE(budget.used_bytes(), 1000u);
        budget.Release(300);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used_bytes(), 0u);
}

TEST(MemoryCharge, GivesBackWhatItTookHoweverItMoves) {
  const auto budget = std::make_shared<MemoryBudget>("all", 100);
  {
    MemoryCharge charge(budget);
    EXPECT_TRUE(charge.Grow(60).ok());
    EXPECT_FALSE(charge.Grow(60).ok());
    MemoryCharge moved = std::move(charge);
    MemoryCharge other(budget);
    EXPECT_TRUE(other.Grow(40).ok());
    moved = std::move(other);
    EXPECT_EQ(budget->used_bytes(), 100u);
  }
  EXPECT_EQ(budget->used_bytes(), 0u);
}

TEST(HostScope, TheInnermostOneCounts) {
  EXPECT_EQ(HostScope::Memory(), nullptr);
  EXPECT_TRUE(HostScope::CheckAlive().ok());
  const auto budget = std::make_shared<MemoryBudget>("all", 100);
  const HostScope::Alive dead = [] { return CancelledError("gone"); };
  HostScope outer(budget, &dead);
  EXPECT_EQ(HostScope::Memory(), budget);
  EXPECT_EQ(HostScope::CheckAlive().code(), StatusCode::kCancelled);
  {
    HostScope inner(nullptr);
    EXPECT_EQ(HostScope::Memory(), nullptr);
    EXPECT_TRUE(HostScope::CheckAlive().ok());
  }
  std::thread([] { EXPECT_EQ(HostScope::Memory(), nullptr); }).join();
  HostScope::Fail(InternalError("first"));
  HostScope::Fail(InternalError("second"));
  EXPECT_EQ(HostScope::TakeFailure().message(), "first");
  EXPECT_TRUE(HostScope::TakeFailure().ok());
}

TEST(PhysicalMemory, IsSomething) { EXPECT_GT(PhysicalMemoryBytes(), size_t{1} << 20); }

}  // namespace
}  // namespace plexus
