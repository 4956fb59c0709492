// Segments: requests that walk through segments, in batches, on the real dispatcher. Internal.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "sched/batch_queue.h"
#include "sched/dispatcher.h"
#include "simulate/workload.h"

namespace plexus {

// What becomes of them is told through these.
struct SegmentHooks {
  std::function<void(uint32_t request)> done;
  // About to submit a job on behalf of this request, and its id when that is known.
  std::function<void(uint32_t request)> submitting;
  std::function<void(JobId job, uint32_t request)> submitted;
  std::function<void(uint32_t segment, TimePoint at)> wake_at;  // Wake(segment) then
  std::function<void(Status)> fail;
};

// A queue per segment of a workload. Thread-compatible, on a manual clock.
class Segments {
 public:
  // Borrows all; the workload's batching policy has been checked.
  Segments(const Workload& workload, Dispatcher& dispatcher, const Clock& clock,
           SegmentHooks hooks);
  ~Segments();

  // The request enters the first segment of its model's path.
  void Start(uint32_t request, uint32_t model, RequestAttributes attributes);
  void Wake(uint32_t segment);

 private:
  struct Row;
  class Queue;
  void Enter(std::shared_ptr<Row> row);

  const Workload& workload_;
  Dispatcher& dispatcher_;
  const Clock& clock_;
  const SegmentHooks hooks_;
  std::unique_ptr<BatchPolicy> policy_;
  std::vector<std::unique_ptr<Queue>> queues_;  // by segment
  uint32_t under_way_ = 0;
};

}  // namespace plexus
