// PlanBatcher: the static region of one plan, run for rows of many requests at once.
#pragma once

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/memory_budget.h"
#include "base/status.h"
#include "graph/tensor.h"
#include "pipeline/plan.h"
#include "sched/batch_queue.h"

namespace plexus {

struct RequestEnvironment;

class PlanBatcher;

// What one request asks of a region, and what it got.
struct BatchRide : BatchItem {
  std::shared_ptr<PlanBatcher> batcher;
  std::vector<Tensor> inputs;  // as the program's; its own until the ride has ended
  // What the outputs of a row that runs by itself are charged to; those of a batch are the
  // server's.
  std::shared_ptr<MemoryBudget> memory;
  std::coroutine_handle<> handle;  // goes on when the ride has ended

  Result<std::vector<Tensor>> outputs = std::vector<Tensor>();
  Duration spent{0};    // its part of the batch's expected time
  bool failed = false;  // the batch, not this row: it may run by itself
};

// Programs for 2, 4, ... rows are built on a build thread when that many wait at once, from the
// same region and the same packed weights, and live as long as the plan, or until they turn out to
// gain nothing; that is tried again from time to time, in case the machine was busy. Thread-safe.
class PlanBatcher : public BatchQueue::Host, public std::enable_shared_from_this<PlanBatcher> {
 public:
  // `program` runs one row of `region`.
  PlanBatcher(RequestEnvironment& env, ProgramPtr program, const BatchRegion& region);
  ~PlanBatcher() override;

  BatchQueue& queue() { return queue_; }
  // False while no rows run together here.
  bool useful() const { return useful_.load(std::memory_order_relaxed); }  // a hint
  // Makes the ride, or the batch that it is in, more urgent.
  void Raise(const BatchRide& ride, const Urgency& urgency);

 private:
  struct Running;

  // --- BatchQueue::Host
  BatchPtr NewBatch() override;
  Status Submit(const BatchPtr& batch, std::span<const JobId> places) override;
  void Cancel(Batch& batch) override;
  void Failed(std::vector<BatchItemPtr> items, const Status& why) override;
  void Prepare(uint32_t size) override;
  void WakeAt(TimePoint at) override;
  TimePoint Now() override;
  bool InVain() override { return region_.gain->RefuseTrial(); }
  uint32_t JobsUnderWay() override;

  void Build(uint32_t size);
  void NoteGain(const Running& batch, Duration took);
  void NoteUseful();
  void TryAgainLater();
  ProgramPtr ProgramFor(uint32_t size);
  Result<std::vector<Tensor>> JoinRows(const Batch& batch, uint32_t size) const;
  void Done(Running& running, Status status, JobBuffers buffers);

  RequestEnvironment& env_;
  const ProgramPtr program_;
  const BatchRegion region_;
  BatchQueue queue_;
  std::atomic<bool> useful_;
  std::mutex mutex_;                  // guards what follows, and changes of useful_
  std::vector<ProgramPtr> programs_;  // of 2, 4, ... rows; null where there is none
  uint32_t tries_ = 0;                // how often sizes were given up
  bool tries_again_ = false;          // at a time that is set
};

}  // namespace plexus
