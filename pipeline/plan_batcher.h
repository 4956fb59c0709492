// PlanBatcher: the static region of one plan, run for rows of many requests at once.
#pragma once

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

// What one request asks of a region, and what it got.
struct BatchRide : BatchItem {
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
// same region and the same packed weights, and live as long as the plan. Thread-safe.
class PlanBatcher : public BatchQueue::Host, public std::enable_shared_from_this<PlanBatcher> {
 public:
  // `program` runs one row of `region`.
  PlanBatcher(RequestEnvironment& env, ProgramPtr program, const BatchRegion& region);
  ~PlanBatcher() override;

  BatchQueue& queue() { return queue_; }
  // Makes the batch that the ride is in more urgent, if it has been handed over.
  void Raise(const BatchRide& ride, const Urgency& urgency);

 private:
  struct Running;

  // --- BatchQueue::Host
  BatchPtr NewBatch() override;
  Status Submit(const BatchPtr& batch) override;
  bool Withdraw(Batch& batch) override;
  void Cancel(Batch& batch) override;
  void Failed(std::vector<BatchItemPtr> items, const Status& why) override;
  void Prepare(uint32_t size) override;
  void WakeAt(TimePoint at) override;
  TimePoint Now() override;
  uint32_t JobsUnderWay() override;

  void Build(uint32_t size);
  void NoteGain();
  ProgramPtr ProgramFor(uint32_t size);
  Status JoinRows(Running& batch, uint32_t size) const;
  void Done(Running& running, Status status, JobBuffers buffers);

  RequestEnvironment& env_;
  const ProgramPtr program_;
  const BatchRegion region_;
  BatchQueue queue_;
  std::mutex mutex_;                  // guards programs_
  std::vector<ProgramPtr> programs_;  // of 2, 4, ... rows; null where there is none
};

}  // namespace plexus
