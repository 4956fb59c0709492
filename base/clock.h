// Time is read through an injected Clock, so that every scheduling test runs on a manual one.
#pragma once

#include <atomic>
#include <chrono>

namespace plexus {

using Duration = std::chrono::nanoseconds;
// A point on the owning Clock's monotonic time line; comparable only with the same Clock's.
struct MonotonicTag {
  using rep = Duration::rep;
  using period = Duration::period;
  using duration = Duration;
  using time_point = std::chrono::time_point<MonotonicTag>;
  static constexpr bool is_steady = true;
};
using TimePoint = std::chrono::time_point<MonotonicTag, Duration>;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

// CLOCK_MONOTONIC.
class RealClock : public Clock {
 public:
  TimePoint Now() const override;
  static const RealClock& Get();  // process-wide, never destroyed
};

// Stands still until told otherwise; never goes back.
class ManualClock : public Clock {
 public:
  TimePoint Now() const override;
  void Advance(Duration by);
  void AdvanceTo(TimePoint at);  // no effect when `at` is past

 private:
  std::atomic<Duration::rep> now_ns_{0};
};

}  // namespace plexus
