// BatchQueue: where rows of many requests for the same work meet and become batches.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <tuple>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "sched/batching.h"
#include "sched/dispatcher.h"
#include "sched/job.h"

namespace plexus {

class Batch;
class BatchQueue;

// One row of one request, or several that stay together. Shared by the request, the queue and the
// dispatcher: it may leave while its batch runs. Whatever derives from it keeps the queue alive for
// as long as it lives.
class BatchItem : public PlaceHolder {
 public:
  RequestAttributes attributes;  // remaining_path: the least that comes after the batch
  // Of several no more than the queue had room for when it was added (Fit); without a program for
  // that many by now, its batch fails.
  uint32_t rows = 1;

 private:
  friend class BatchQueue;
  enum class State : uint8_t { kNew, kWaiting, kInBatch, kDelivered, kLeft };
  using Key = std::tuple<uint32_t, TimePoint, uint64_t>;  // priority, due, sequence

  // --- PlaceHolder
  void OnTurn(JobId place) override;
  void OnJobDone(JobId place, Status status, JobBuffers) override;

  BatchQueue* queue_ = nullptr;  // set when it is added; the rest is guarded by the queue's mutex
  State state_ = State::kNew;
  TimePoint entered_{};
  Key key_;
  JobId place_;  // in line; invalid: not yet, as far as the queue has heard
  std::weak_ptr<Batch> batch_;
};
using BatchItemPtr = std::shared_ptr<BatchItem>;

// Rows that run as one job, each item's one after the other. `items` does not change.
class Batch {
 public:
  virtual ~Batch() = default;
  std::vector<BatchItemPtr> items;
  uint32_t rows = 0;

 private:
  friend class BatchQueue;
  bool submitted_ = false;  // guarded by the queue's mutex
};
using BatchPtr = std::shared_ptr<Batch>;

// Attributes of the job that runs them: the earliest arrival and deadline, the least remaining path
// and service time, of one priority (a queue never mixes them); no timeout, as each row has its
// own. Request and tenant are the first's: it is the one whose turn it is.
RequestAttributes JobAttributes(std::span<const BatchItemPtr> items);
// Who pays for the job, each for its rows.
std::vector<Payer> JobPayers(std::span<const BatchItemPtr> items);

// Every item takes a place of its own in the dispatcher's line (JobSpec::place), so that whatever
// orders jobs there orders rows. When the turn of one comes, the policy says which of all that wait
// go with it; the batch stands in for their places. A passive state machine: no thread, no clock.
// Thread-safe; calls its host and the dispatcher without a lock held (except for NewBatch, InVain
// and JobsUnderWay), from whichever thread came.
class BatchQueue {
 public:
  // What runs the batches.
  class Host {
   public:
    virtual ~Host() = default;
    virtual BatchPtr NewBatch() = 0;
    // Runs the batch instead of these places (Dispatcher::Replace): it ends with Ended, maybe
    // before this returns; unless it fails: then Failed is next.
    virtual Status Submit(const BatchPtr& batch, std::span<const JobId> places) = 0;
    // Nobody waits for the batch any more, which has been submitted and maybe has ended.
    virtual void Cancel(Batch& batch) = 0;
    // They do not run: why. The items are not in the queue any more.
    virtual void Failed(std::vector<BatchItemPtr> items, const Status& why) = 0;
    // A program for batches of this size would help: SetReady or SetLimit are to follow, in time.
    virtual void Prepare(uint32_t size) = 0;
    // Wake(now) is to be called then, or somewhat later.
    virtual void WakeAt(TimePoint at) = 0;
    virtual TimePoint Now() = 0;
    // Whether such work was seen to gain nothing, in other shapes perhaps: then no more sizes are
    // tried, and a size that seems to gain nothing is given up at once. Asked only for policies
    // that want a gain.
    virtual bool InVain() { return false; }
    // Jobs under way in the system, rows of this queue included.
    virtual uint32_t JobsUnderWay() = 0;
  };

  // Borrows all three; `one` runs a row by itself.
  BatchQueue(Host& host, Dispatcher& dispatcher, ProgramPtr one, const BatchPolicy& policy,
             uint32_t max_rows);

  // May hand over a batch, or run what follows others, on this thread.
  void Add(const BatchItemPtr& item);
  // Whether the item was still to be delivered; it is not any more.
  bool Leave(BatchItem& item);
  void Wake();

  // The host's reports. `took`: of a batch that ran well at this size; whether that made the size
  // one that is given up, for gaining nothing.
  bool Ended(const BatchPtr& batch, uint32_t size, BatchCurve::Cost took);
  void Ended(const BatchPtr& batch);
  // True once, and never after a Leave: then the item's answer may be given.
  bool Claim(BatchItem& item);
  void SetReady(uint32_t size);
  void SetLimit(uint32_t size);
  // Sizes that were given up may gain something by now.
  void TryAgain();

  // Where the item is: its place in line or the batch whose end it waits for, if it waits at all.
  struct Whereabouts {
    JobId place;
    BatchPtr batch;
  };
  Whereabouts Find(const BatchItem& item) const;
  // What a row by itself is expected to take, until one has run.
  void Expect(BatchCurve::Cost alone);
  // The smallest size that holds so many rows and runs; 0: none.
  uint32_t Fit(uint32_t rows) const;
  BatchCurve::Cost CostOf(uint32_t size) const;
  double Gain() const;  // BatchCurve's
  // False when no size but 1 will run until TryAgain.
  bool useful() const;

 private:
  friend class BatchItem;
  void OnTurn(BatchItem& item, JobId place);
  void OnPlaceLost(BatchItem& item, const Status& why);
  void LineUp();
  void TakePlace(const BatchItemPtr& item);
  BatchItemPtr TakeOut(BatchItem& item);
  BatchPtr Form(BatchItem& first, std::vector<JobId>& places);
  BatchView LookAround(const BatchItem& first);
  uint32_t SizeToPrepare();
  static bool AllLeft(const Batch& batch);

  Host& host_;
  Dispatcher& dispatcher_;
  const ProgramPtr one_;
  const BatchPolicy& policy_;
  mutable std::mutex mutex_;  // guards everything below, and the items' states
  BatchCurve curve_;
  uint32_t preparing_ = 0;  // a size that the host was asked for, 0: none
  uint32_t running_ = 0;    // items in batches
  uint32_t waiting_rows_ = 0;
  uint64_t next_sequence_ = 0;
  std::map<BatchItem::Key, BatchItemPtr> waiting_;
  std::vector<BatchItemPtr> held_;  // of those the ones that are not in line yet, as they came
  TimePoint wake_at_ = TimePoint::max();
  std::vector<Waiting> view_;
  std::vector<BatchItem*> viewed_;
};

}  // namespace plexus
