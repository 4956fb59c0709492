// Records spans and instants for Chrome/Perfetto. Always compiled in, switched at run time; when
// off, recording costs one relaxed load.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace plexus {

// One complete span (end > begin) or instant (end == begin) on a track.
struct TraceEvent {
  const char* category = "";  // static string: "block", "launch", "job", "request", "decision"
  std::string name;
  uint32_t track = 0;  // worker, SM or queue
  TimePoint begin{};
  TimePoint end{};
  uint64_t id = 0;  // job, launch or request
};

// Bounded ring of the last `capacity` events. Thread-safe.
class TraceRecorder {
 public:
  explicit TraceRecorder(size_t capacity = 1 << 16);

  void Enable(bool on) { enabled_.store(on, std::memory_order_relaxed); }  // a hint, no ordering
  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  void Record(TraceEvent event);  // dropped when not enabled
  uint64_t dropped() const;       // events overwritten so far

  // Chrome trace JSON of what the ring holds, oldest first; timestamps in µs.
  std::string ToJson() const;
  void Clear();

 private:
  std::atomic<bool> enabled_{false};
  mutable std::mutex mutex_;  // guards everything below
  std::vector<TraceEvent> ring_;
  size_t capacity_;
  uint64_t written_ = 0;
};

}  // namespace plexus
