// What lets many device threads report to one state machine without waiting for each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "device/device.h"

namespace plexus {

inline void SpinPause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A mutex whose TryLock and Unlock are sequentially consistent, so that it can be combined with
// EventQueue: a thread that pushed and then failed to lock is seen by the holder, which looks at
// the queue after it unlocked. (std::mutex promises acquire and release only, which does not order
// the holder's unlock before its look.) Critical sections are about a microsecond, so Lock spins
// before it parks.
class CoreLock {
 public:
  bool TryLock() {
    uint32_t expected = kFree;
    return state_.compare_exchange_strong(expected, kHeld);
  }
  void Lock() {
    for (int i = 0; i < kSpins; ++i) {
      // Relaxed: only a look before the exchange that decides.
      if (state_.load(std::memory_order_relaxed) == kFree && TryLock()) return;
      SpinPause();
    }
    while (state_.exchange(kContended) != kFree) state_.wait(kContended);
  }
  void Unlock() {
    if (state_.exchange(kFree) == kContended) state_.notify_one();
  }

 private:
  static constexpr uint32_t kFree = 0, kHeld = 1, kContended = 2;
  static constexpr int kSpins = 200;
  std::atomic<uint32_t> state_{kFree};
};

// A bounded queue: any number of threads push, the holder of the lock pops. No allocation after the
// constructor. Each cell carries a ticket: `position` when free for that push, `position + 1` when
// filled.
class EventQueue {
 public:
  explicit EventQueue(uint32_t capacity_log2)
      : mask_((uint64_t{1} << capacity_log2) - 1), cells_(new Cell[mask_ + 1]) {
    // Relaxed: nobody else knows the queue yet.
    for (uint64_t i = 0; i <= mask_; ++i) cells_[i].ticket.store(i, std::memory_order_relaxed);
  }

  // False when full.
  bool Push(const DeviceEvent& event) {
    // Relaxed: the ticket decides whether the position is ours to fill.
    uint64_t position = tail_.load(std::memory_order_relaxed);
    for (;;) {
      Cell& cell = cells_[position & mask_];
      // Acquire: the popper's move out of the cell happens before we fill it again.
      const uint64_t ticket = cell.ticket.load(std::memory_order_acquire);
      if (ticket == position) {
        // Relaxed: the ticket publishes, the tail only hands out positions.
        if (tail_.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
          cell.event = event;
          // Sequentially consistent: ordered before the pusher's TryLock (see CoreLock).
          cell.ticket.store(position + 1);
          return true;
        }
      } else if (ticket < position) {
        return false;
      } else {
        position = tail_.load(std::memory_order_relaxed);  // another pusher took it
      }
    }
  }

  // Under the lock.
  bool Pop(DeviceEvent& event) {
    // Relaxed: head_ is only written under the lock.
    const uint64_t head = head_.load(std::memory_order_relaxed);
    Cell& cell = cells_[head & mask_];
    // Acquire: pairs with the pusher's store.
    if (cell.ticket.load(std::memory_order_acquire) != head + 1) return false;
    event = std::move(cell.event);
    // Release: see Push.
    cell.ticket.store(head + mask_ + 1, std::memory_order_release);
    head_.store(head + 1, std::memory_order_relaxed);
    return true;
  }

  // Whether every push so far was popped. Under the lock; sees the calling thread's own pushes, so
  // that it knows whether an event of its own is still ahead of the next one.
  bool Drained() const {
    return tail_.load(std::memory_order_relaxed) == head_.load(std::memory_order_relaxed);
  }

  // Whether something waits; callable without the lock. Right after an Unlock it sees every push
  // whose pusher found the lock held; it may also see a push that another holder takes meanwhile.
  bool MayHaveEvents() const {
    const uint64_t head = head_.load(std::memory_order_relaxed);
    return cells_[head & mask_].ticket.load() == head + 1;
  }

 private:
  struct alignas(64) Cell {
    std::atomic<uint64_t> ticket{0};
    DeviceEvent event;
  };
  const uint64_t mask_;
  std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<uint64_t> tail_{0};
  alignas(64) std::atomic<uint64_t> head_{0};
};

}  // namespace plexus
