// BatchGain: what running rows of a graph at once saves.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

#include "base/clock.h"

namespace plexus {

// Of all shapes of one graph, as they come: what one width gains another may lose, and what counts
// is what the batches that really ran have saved, rows that were filled up and trials included.
// Thread-safe.
class BatchGain {
 public:
  // A batch ran: the device time of its rows one by one, and of the batch.
  void Note(Duration alone, Duration together);
  // It cannot run in batches.
  void None();
  // It may gain something by now: to be tried again.
  void Forget();
  // Of the device time of rows that ran in batches of late, the part that was saved; below 0: the
  // batches took longer. Null: not known.
  std::optional<double> part() const;
  // Known, and not worth the trouble.
  bool in_vain() const;
  // Whether who asks should find out: as long as it is not known, but for no more than some
  // requests and some time. `takes`: what its request takes.
  bool TakeTrial(Duration takes);

 private:
  static constexpr int32_t kTrials = 64;
  static constexpr Duration kTrialTime = std::chrono::seconds(2);
  std::mutex mutex_;  // guards the sums
  double alone_ns_ = 0, together_ns_ = 0;
  static constexpr float kUnknown = -1e9f;
  std::atomic<float> part_{kUnknown};
  std::atomic<int32_t> trials_left_{kTrials};
  std::atomic<Duration::rep> time_left_{kTrialTime.count()};
};

}  // namespace plexus
