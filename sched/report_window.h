// ReportWindow: tells a repeated report of a launch from a new one.
#pragma once

#include <cstdint>

namespace plexus {

// A device numbers the reports of a launch from 0, and on the way they may overtake each other. The
// window remembers the last 64 numbers; one that is further behind the highest counts as repeated,
// so a report that late is lost. Thread-compatible.
class ReportWindow {
 public:
  // Whether this number comes for the first time.
  bool Take(uint32_t number) {
    if (number < first_) return false;
    if (number - first_ >= kNumbers) {
      const uint32_t by = number - first_ - (kNumbers - 1);
      seen_ = by < kNumbers ? seen_ >> by : 0;
      first_ += by;
    }
    const uint64_t bit = uint64_t{1} << (number - first_);
    if ((seen_ & bit) != 0) return false;
    seen_ |= bit;
    return true;
  }

 private:
  static constexpr uint32_t kNumbers = 64;
  uint64_t seen_ = 0;  // bit i: number first_ + i
  uint32_t first_ = 0;
};

}  // namespace plexus
