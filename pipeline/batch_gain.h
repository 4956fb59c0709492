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
// Thread-safe; the hints of many threads may be a few off.
class BatchGain {
 public:
  // A batch of several requests ran: the device time of its rows one by one, and of the batch.
  void Note(Duration alone, Duration together);
  // Some shape of it cannot run in batches: that alone is no reason to try.
  void None();
  // It may gain something by now: to be tried again. This happens by itself when a trial was
  // refused often enough, each time after twice as many.
  void Forget();
  // Of the device time of rows that ran in batches of late, the part that was saved; below 0: the
  // batches took longer. Null: not known, for want of some batches.
  std::optional<double> part() const;
  // Known, and not worth the trouble.
  bool in_vain() const;
  // Whether a request that takes so long should find out: as long as it is not known, but no more
  // than some requests, and some of their time.
  bool TakeTrial(Duration takes);
  // in_vain(), of somebody who would try otherwise.
  bool RefuseTrial();

 private:
  static constexpr int32_t kTrials = 64, kLeastTrials = 16;  // the latter whatever they take
  static constexpr Duration kTrialTime = std::chrono::seconds(2);
  static constexpr uint32_t kFirstRefusals = 4096, kMostRefusals = 1u << 20;
  static constexpr float kUnknown = -1e9f;
  void NoteRefusal();

  std::mutex mutex_;  // guards the next three
  double alone_ns_ = 0, together_ns_ = 0;
  uint32_t noted_ = 0;
  std::atomic<float> part_{kUnknown};
  std::atomic<int32_t> trials_left_{kTrials};
  std::atomic<Duration::rep> time_left_{kTrialTime.count()};
  std::atomic<uint32_t> refusals_{0}, most_refusals_{kFirstRefusals};
};

}  // namespace plexus
