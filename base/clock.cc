#include "base/clock.h"

#include <time.h>

namespace plexus {

TimePoint RealClock::Now() const {
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return TimePoint(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

const RealClock& RealClock::Get() {
  static const RealClock* const clock = new RealClock();
  return *clock;
}

// Relaxed: a manual clock orders nothing; tests that share one synchronise by other means.
TimePoint ManualClock::Now() const {
  return TimePoint(Duration(now_ns_.load(std::memory_order_relaxed)));
}

void ManualClock::Advance(Duration by) { now_ns_.fetch_add(by.count(), std::memory_order_relaxed); }

void ManualClock::AdvanceTo(TimePoint at) {
  const Duration::rep target = at.time_since_epoch().count();
  Duration::rep now = now_ns_.load(std::memory_order_relaxed);
  while (now < target && !now_ns_.compare_exchange_weak(now, target, std::memory_order_relaxed)) {
  }
}

}  // namespace plexus
