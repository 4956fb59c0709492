// Batching: what a batch takes by its size, as learned, and when requests become one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace plexus {

// What one kind of work takes by the number of rows that run at once. Sizes are powers of two from
// 1; fewer rows than a size are filled up. Thread-compatible.
class BatchCurve {
 public:
  struct Cost {
    Duration latency{0};  // one batch, as Dispatcher::ExpectedTime counts
    Duration busy{0};     // device time of one batch over the device's units: what others wait
  };
  static constexpr uint32_t kMostRows = 64;

  // At most `max_rows` in a batch, rounded down to a size; at least 1 and at most kMostRows.
  explicit BatchCurve(uint32_t max_rows);

  // There is a program for this size now.
  void SetReady(uint32_t size);
  // It cannot run in a larger one.
  void SetLimit(uint32_t size);
  // This size gains nothing: neither it nor a larger one until TryAgain, which forgets what those
  // took.
  void GiveUp(uint32_t size);
  void TryAgain();
  void Learn(uint32_t size, Cost measured);
  // What one row takes, as long as none has run.
  void Expect(Cost alone) { expected_ = alone; }

  // The largest size to use: that is ready, unless a smaller one is to be measured anew; 1 is from
  // the beginning.
  uint32_t largest() const { return remeasured_ > 0 ? std::min(largest_, remeasured_) : largest_; }
  uint32_t limit() const { return std::min(limit_, worth_); }
  // The next size worth a program: 0 when there is none, or when the largest has to show first that
  // it gains anything. `whatever_it_gains`: without waiting for that.
  uint32_t Next(bool whatever_it_gains) const;
  // The smallest ready size that holds so many rows; 0: none.
  uint32_t Fit(uint32_t rows) const;
  // As measured; of a size that has not run often enough, or seemed to gain nothing long ago, a
  // guess that makes it worth trying.
  Cost Of(uint32_t size) const;
  // Whether it takes no less per row than half its size: both were measured for that once more, one
  // after the other, and longer, as the machine may have been busy with something else.
  bool Useless(uint32_t size) const { return entries_[Index(size)].useless; }
  // It seemed so in its first runs: both are being measured once more.
  bool Doubted(uint32_t size) const { return entries_[Index(size)].doubted; }
  // Of the time of two rows, what running them at once saves; negative: not known.
  double Gain() const;

 private:
  static constexpr uint32_t kTrials = 3;
  struct Entry {
    uint32_t runs = 0;
    uint64_t last = 0;  // run, as learned_ counts
    bool doubted = false, useless = false;
    double latency_ns = 0, busy_ns = 0;
  };
  static uint32_t Index(uint32_t size);
  bool SeemsUseless(uint32_t size) const;
  void Judge(uint32_t size);
  std::vector<Entry> entries_;  // by the size's logarithm
  Cost expected_;               // of size 1, before its first run
  uint32_t largest_ = 1;
  uint32_t remeasured_ = 0;  // a size; 0: none
  uint64_t learned_ = 0;     // batches
  uint32_t limit_;           // the largest size that may be
  uint32_t worth_;           // and that is worth it, as far as was tried
};

// Who waits with one row, or with several that stay together.
struct Waiting {
  TimePoint entered{};               // the queue
  TimePoint due = TimePoint::max();  // its deadline, less the least that comes after this batch
  uint32_t rows = 1;
};

struct BatchView {
  TimePoint now{};
  const BatchCurve& curve;
  std::span<const Waiting> waiting;  // at least one
  uint32_t others = 0;               // jobs under way besides these
};

// waiting[0] and those of [from, from + count), from >= 1.
struct BatchChoice {
  size_t from = 1, count = 0;
  bool operator==(const BatchChoice&) const = default;
};

// Pure. Rows are put in line for the device, each at its own place; when the turn of one comes,
// others go with it. So nobody waits for company while the device is idle, and nobody who waits for
// the device is bound to a batch before he must. Thread-safe.
class BatchPolicy {
 public:
  virtual ~BatchPolicy() = default;
  virtual std::string_view name() const = 0;
  // When all of the view, in the order in which they came, are to be put in line: at once
  // if that is not after view.now.
  virtual TimePoint InLineAt(const BatchView& view) const { return view.now; }
  // Who goes with the first of the view, whose turn it is: no more rows together than the curve's
  // largest, which that has room for. The others are in the order of `due`, then as they came.
  virtual BatchChoice Choose(const BatchView& view) const = 0;
  // Whether those that will be late anyway stand at the end of that order.
  virtual bool timely_first() const { return false; }
  // Whether rows ever become batches; and whether sizes are prepared without asking what they gain.
  virtual bool batches() const { return true; }
  virtual bool takes_any_gain() const { return true; }
};

inline constexpr std::string_view kDefaultBatchPolicy = "path-aware";

// none        every row by itself
// immediate   in line at once; with all that wait
// timeout(US) in line when they fill a batch, or the first has waited so many microseconds (1000)
// deferred    in line when they fill a batch, or half of the time that the first can spare has
//             passed; at once without deadlines
// path-aware  in line at once; together as far as that makes the mean latency less, going by the
//             curve and by how many wait behind, and more are in time
// kInvalidArgument says what is wrong and lists the names.
Result<std::unique_ptr<BatchPolicy>> MakeBatchPolicy(std::string_view text);
std::vector<std::string> BatchPolicyNames();

}  // namespace plexus
