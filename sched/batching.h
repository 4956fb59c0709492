// Batching: what a batch takes by its size, as learned, and when requests become one.
#pragma once

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
  // It cannot run in this size, or does not gain by it: neither in any larger.
  void SetLimit(uint32_t size);
  void Learn(uint32_t size, Cost measured);
  // What one row takes, as long as none has run.
  void Expect(Cost alone) { expected_ = alone; }

  // The largest size that is ready; 1 is from the beginning.
  uint32_t largest() const { return largest_; }
  uint32_t limit() const { return limit_; }
  // The next size worth a program: 0 when there is none, or when the largest has to show first that
  // it gains anything. `whatever_it_gains`: without waiting for that.
  uint32_t Next(bool whatever_it_gains) const;
  // The smallest ready size that holds so many rows; 0: none.
  uint32_t Fit(uint32_t rows) const;
  // As measured; of a size that has not run often enough a guess that makes it worth trying.
  Cost Of(uint32_t size) const;
  // Whether it has run often enough to be judged, and takes no less per row than half its size.
  bool Useless(uint32_t size) const;

 private:
  static constexpr uint32_t kTrials = 3;
  struct Entry {
    uint32_t runs = 0;
    double latency_ns = 0, busy_ns = 0;
  };
  static uint32_t Index(uint32_t size);
  std::vector<Entry> entries_;  // by the size's logarithm
  Cost expected_;               // of size 1, before its first run
  uint32_t largest_ = 1;
  uint32_t limit_;  // the largest size that may be
};

// One row that waits.
struct WaitingRow {
  TimePoint entered{};               // the queue
  TimePoint due = TimePoint::max();  // its deadline, less the least that comes after this batch
};

struct BatchView {
  TimePoint now{};
  const BatchCurve& curve;
  std::span<const WaitingRow> waiting;  // in the order in which they came; at least one
  // Of the batch that was handed over and has not begun, 0: there is none. It can still grow.
  uint32_t open_rows = 0;
  TimePoint open_due = TimePoint::max();  // of its rows the earliest
  uint32_t others = 0;                    // jobs under way besides all these
};

struct BatchChoice {
  enum class What : uint8_t {
    kWait,  // all of them, until `until`
    kJoin,  // the first `rows` join the open batch
    kNew,   // the first `rows` become a batch, which is the open one from now on
  };
  What what = What::kNew;
  uint32_t rows = 1;
  TimePoint until{};
};

// Pure. A batch that is handed over waits for its turn like any job and can grow until that comes,
// so that nobody waits for company while the device is busy. Thread-safe.
class BatchPolicy {
 public:
  virtual ~BatchPolicy() = default;
  virtual std::string_view name() const = 0;
  // rows >= 1 and within the curve's largest, of which open_rows are taken already.
  virtual BatchChoice Choose(const BatchView& view) const = 0;
  // Whether rows ever become batches; and whether sizes are prepared without asking what they gain.
  virtual bool batches() const { return true; }
  virtual bool takes_any_gain() const { return true; }
};

inline constexpr std::string_view kDefaultBatchPolicy = "path-aware";

// none        every row by itself
// immediate   all that wait, at once
// timeout(US) full, or when the first has waited so many microseconds (1000)
// deferred    full, or when half of the time that the first can spare has passed; at once without
//             deadlines
// path-aware  at once, as long as it makes the mean latency less, going by the curve and by how
//             many wait behind, and makes nobody late who would not be
// kInvalidArgument says what is wrong and lists the names.
Result<std::unique_ptr<BatchPolicy>> MakeBatchPolicy(std::string_view text);
std::vector<std::string> BatchPolicyNames();

}  // namespace plexus
