#include "sched/event_queue.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace plexus {
namespace {

DeviceEvent Event(uint64_t n) {
  DeviceEvent e;
  e.launch = LaunchId(n);
  return e;
}

TEST(EventQueueTest, PopsInOrderAndSaysWhenFull) {
  EventQueue queue(2);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(queue.Push(Event(i)));
  EXPECT_FALSE(queue.Push(Event(4)));
  EXPECT_TRUE(queue.MayHaveEvents());
  DeviceEvent e;
  for (uint64_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(queue.Pop(e));
    EXPECT_EQ(e.launch.value(), i);
  }
  EXPECT_FALSE(queue.Pop(e));
  EXPECT_TRUE(queue.Drained());
  EXPECT_FALSE(queue.MayHaveEvents());
  EXPECT_TRUE(queue.Push(Event(5)));
}

// The pattern of the dispatcher: try the lock, else leave the event and look again.
TEST(EventQueueTest, NoEventIsLeftBehindAndEachThreadsOrderIsKept) {
  constexpr uint64_t kThreads = 4, kEvents = 20'000;
  EventQueue queue(6);
  CoreLock lock;
  std::vector<uint64_t> last(kThreads, 0);
  uint64_t handled = 0;
  bool in_order = true;
  const auto drain = [&] {
    DeviceEvent e;
    while (queue.Pop(e)) {
      const uint64_t thread = e.launch.value() / kEvents, n = e.launch.value() % kEvents;
      in_order = in_order && last[thread] == n;
      last[thread] = n + 1;
      ++handled;
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEvents; ++i) {
        while (!queue.Push(Event(t * kEvents + i))) {
          if (lock.TryLock()) {
            drain();
            lock.Unlock();
          } else {
            std::this_thread::yield();
          }
        }
        while (queue.MayHaveEvents() && lock.TryLock()) {
          drain();
          lock.Unlock();
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(handled, kThreads * kEvents);
  EXPECT_TRUE(in_order);
}

TEST(CoreLockTest, ExcludesAndWakesWaiters) {
  CoreLock lock;
  int64_t counter = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        lock.Lock();
        ++counter;
        lock.Unlock();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(counter, 80'000);
}

}  // namespace
}  // namespace plexus
