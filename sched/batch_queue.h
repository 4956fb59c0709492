// BatchQueue: where rows of many requests for the same work meet and become batches.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "sched/batching.h"
#include "sched/job.h"

namespace plexus {

class Batch;

// One row of one request. Shared by the request and the queue: it may leave while its batch runs.
class BatchItem {
 public:
  virtual ~BatchItem() = default;
  RequestAttributes attributes;  // remaining_path: the least that comes after the batch

 private:
  friend class BatchQueue;
  enum class State : uint8_t { kNew, kWaiting, kInBatch, kDelivered, kLeft };
  State state_ = State::kNew;  // guarded by the queue's mutex
  TimePoint entered_{};
  std::weak_ptr<Batch> batch_;
};
using BatchItemPtr = std::shared_ptr<BatchItem>;

// Rows that run as one job. Between its submission and its end `items` does not change.
class Batch {
 public:
  virtual ~Batch() = default;
  std::vector<BatchItemPtr> items;
};
using BatchPtr = std::shared_ptr<Batch>;

// Attributes of the job that runs them: the earliest arrival and deadline, the least remaining path
// and service time, of one priority (a queue never mixes them); no timeout, as each row has its
// own. Request and tenant are the first's.
RequestAttributes JobAttributes(std::span<const BatchItemPtr> items);
// Who pays for the job, one row each.
std::vector<Payer> JobPayers(std::span<const BatchItemPtr> items);

// Collects rows by its policy and hands them over as batches. A batch that has been handed over and
// has not begun is open: it is taken back, grown, and handed over again. A passive state machine:
// no thread, no clock. Thread-safe; calls its host without a lock held, from whichever thread came.
class BatchQueue {
 public:
  // What runs the batches.
  class Host {
   public:
    virtual ~Host() = default;
    virtual BatchPtr NewBatch() = 0;
    // Hands the batch over for the first time, or again after a Withdraw. What it was given ends
    // with Ended, maybe before this returns; unless it fails: then Failed is next.
    virtual Status Submit(const BatchPtr& batch) = 0;
    // Takes the batch back if it has not begun. Between Submit and Ended, one call at a time.
    virtual bool Withdraw(Batch& batch) = 0;
    // Nobody waits for the batch any more, which has been handed over and maybe has ended.
    virtual void Cancel(Batch& batch) = 0;
    // It could not be handed over; the items are not in the queue any more.
    virtual void Failed(std::vector<BatchItemPtr> items, const Status& why) = 0;
    // A program for batches of this size would help: SetReady or SetLimit are to follow, in time.
    virtual void Prepare(uint32_t size) = 0;
    // Wake(now) is to be called then, or somewhat later.
    virtual void WakeAt(TimePoint at) = 0;
    virtual TimePoint Now() = 0;
    // Jobs under way in the system, rows of this queue included.
    virtual uint32_t JobsUnderWay() = 0;
  };

  // Borrows both.
  BatchQueue(Host& host, const BatchPolicy& policy, uint32_t max_rows)
      : host_(host), policy_(policy), curve_(max_rows) {}

  // May hand over a batch, or run what follows others, on this thread.
  void Add(BatchItemPtr item);
  // Whether the item was still to be delivered; it is not any more.
  bool Leave(BatchItem& item);
  void Wake();

  // The host's reports. `took`: of a batch that ran well at this size.
  void Ended(const BatchPtr& batch, uint32_t size, BatchCurve::Cost took);
  void Ended(const BatchPtr& batch);
  // True once, and never after a Leave: then the item's answer may be given.
  bool Claim(BatchItem& item);
  void SetReady(uint32_t size);
  void SetLimit(uint32_t size);

  // Where the item is, if it waits for the end of a batch.
  BatchPtr BatchOf(const BatchItem& item) const;
  // What a row by itself is expected to take, until one has run.
  void Expect(BatchCurve::Cost alone);
  // The smallest size that holds so many rows and runs; 0: none.
  uint32_t Fit(uint32_t rows) const;
  BatchCurve::Cost CostOf(uint32_t size) const;
  // False when no size but 1 will ever run.
  bool useful() const;

 private:
  bool Step();
  BatchChoice Choose();
  uint32_t SizeToPrepare();
  std::vector<BatchItemPtr> Take(uint32_t rows, const BatchPtr& batch);
  void GiveBack(std::vector<BatchItemPtr> items);
  void Learn(uint32_t size, BatchCurve::Cost took);
  static bool AllLeft(const Batch& batch);

  Host& host_;
  const BatchPolicy& policy_;
  mutable std::mutex mutex_;  // guards everything below, and the items' states
  BatchCurve curve_;
  uint32_t preparing_ = 0;  // a size that the host was asked for, 0: none
  bool busy_ = false;       // a thread is at it; others leave their items to it
  std::vector<BatchItemPtr> waiting_;
  std::vector<WaitingRow> view_;
  BatchPtr open_;
  BatchPtr handing_;  // between Take and the host's answer: rows may be about to join it
  TimePoint wake_at_ = TimePoint::max();
};

}  // namespace plexus
