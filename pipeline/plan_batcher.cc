#include "pipeline/plan_batcher.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "pipeline/request.h"

namespace plexus {

// A batch under way. Keeps itself, and its batcher, until the dispatcher has let go.
struct PlanBatcher::Running : Batch, JobListener {
  std::shared_ptr<PlanBatcher> batcher;
  std::shared_ptr<Running> self;  // while it is submitted
  std::atomic<uint64_t> job{JobId().value()};
  uint32_t size = 1;
  ProgramPtr program;
  Duration busy{0};
  Tensors joined;                           // of several rows
  std::vector<const BatchItem*> joined_of;  // whose rows those are

  void OnDeviceTime(JobId, Duration time) override { busy = time; }
  void OnJobDone(JobId, Status status, JobBuffers buffers) override {
    batcher->Done(*this, std::move(status), std::move(buffers));
  }
};

PlanBatcher::PlanBatcher(RequestEnvironment& env, ProgramPtr program, const BatchRegion& region)
    : env_(env),
      program_(std::move(program)),
      region_(region),
      queue_(*this, env.batching, env.max_batch),
      programs_(std::bit_width(BatchCurve::kMostRows)) {
  BatchCurve::Cost alone;
  alone.latency = env.dispatcher.ExpectedTime(*program_, 1);
  alone.busy = alone.latency / env.device_units;
  queue_.Expect(alone);
}

PlanBatcher::~PlanBatcher() = default;

BatchPtr PlanBatcher::NewBatch() {
  auto batch = std::make_shared<Running>();
  batch->batcher = shared_from_this();
  return batch;
}

ProgramPtr PlanBatcher::ProgramFor(uint32_t size) {
  if (size == 1) return program_;
  std::lock_guard lock(mutex_);
  return programs_[std::bit_width(size) - 1];
}

// The rows one after the other, and the last one again up to `size`: whatever stands there must be
// something that the region can take.
Status PlanBatcher::JoinRows(Running& batch, uint32_t size) const {
  const size_t rows = batch.items.size();
  const auto ride = [&](size_t row) -> const BatchRide& {
    return static_cast<const BatchRide&>(*batch.items[std::min(row, rows - 1)]);
  };
  // What stands there already after a Withdraw.
  size_t kept = 0;
  if (batch.size == size && !batch.joined.empty()) {
    while (kept < std::min(rows, batch.joined_of.size()) &&
           batch.joined_of[kept] == batch.items[kept].get()) {
      ++kept;
    }
  } else {
    batch.joined.clear();
    const HostScope scope(env_.memory);
    for (const Tensor& input : ride(0).inputs) {
      Shape shape = input.shape();
      shape[0] = size;
      PLEXUS_ASSIGN_OR_RETURN(Tensor joined, Tensor::Allocate(input.dtype(), std::move(shape)));
      batch.joined.push_back(std::move(joined));
    }
  }
  for (size_t i = 0; i < batch.joined.size(); ++i) {
    const size_t row_bytes = batch.joined[i].size_bytes() / size;
    for (size_t row = kept; row < size; ++row) {
      std::memcpy(batch.joined[i].raw_mutable() + row * row_bytes, ride(row).inputs[i].raw(),
                  row_bytes);
    }
  }
  batch.joined_of.clear();
  for (const BatchItemPtr& item : batch.items) batch.joined_of.push_back(item.get());
  return OkStatus();
}

Status PlanBatcher::Submit(const BatchPtr& handed) {
  auto batch = std::static_pointer_cast<Running>(handed);
  const auto rows = static_cast<uint32_t>(batch->items.size());
  const uint32_t size = queue_.Fit(rows);
  batch->program = size > 0 ? ProgramFor(size) : nullptr;
  if (batch->program == nullptr) return UnavailableError("no program for so many rows");
  JobSpec spec;
  if (size == 1) {
    spec.buffers.inputs = static_cast<BatchRide&>(*batch->items[0]).inputs;
  } else {
    PLEXUS_RETURN_IF_ERROR(JoinRows(*batch, size));
    spec.buffers.inputs = batch->joined;
  }
  batch->size = size;
  {
    const HostScope scope(size == 1 ? static_cast<BatchRide&>(*batch->items[0]).memory
                                    : env_.memory);
    for (const ProgramValue& out : batch->program->outputs) {
      Result<Tensor> buffer = Tensor::Allocate(out.dtype, out.shape);
      if (!buffer.ok()) return buffer.status().WithContext("value '" + out.name + "'");
      spec.buffers.outputs.push_back(std::move(*buffer));
    }
  }
  spec.program = batch->program;
  spec.attributes = JobAttributes(batch->items);
  spec.payers = JobPayers(batch->items);
  Duration most = Duration::min();
  for (const Payer& payer : spec.payers) {  // whoever lacks most of its share takes its turn
    const Duration deficit = env_.dispatcher.tenant_stats(payer.tenant).deficit;
    if (deficit > most) spec.attributes.tenant = payer.tenant;
    most = std::max(most, deficit);
  }
  spec.rows = size;
  spec.listener = batch.get();
  batch->self = batch;
  const Result<JobId> job = env_.dispatcher.Submit(std::move(spec));
  if (!job.ok()) {
    batch->self.reset();
    return job.status();
  }
  // The job may be over already; `batch` is still ours. Read by Cancel, which may come too early.
  batch->job.store(job->value(), std::memory_order_relaxed);
  return OkStatus();
}

bool PlanBatcher::Withdraw(Batch& batch) {
  Running& running = static_cast<Running&>(batch);
  const JobId job(running.job.load(std::memory_order_relaxed));  // of this thread's Submit
  if (!env_.dispatcher.Withdraw(job).has_value()) return false;
  running.self.reset();
  return true;
}

void PlanBatcher::Cancel(Batch& batch) {
  Running& running = static_cast<Running&>(batch);
  const JobId job(running.job.load(std::memory_order_relaxed));  // another's: nothing is lost
  env_.dispatcher.Cancel(job, CancelledError("nobody waits for it any more"));
}

void PlanBatcher::Raise(const BatchRide& ride, const Urgency& urgency) {
  const BatchPtr batch = queue_.BatchOf(ride);
  if (batch == nullptr) return;
  const JobId job(
      static_cast<Running&>(*batch).job.load(std::memory_order_relaxed));  // or none yet
  env_.dispatcher.Raise(job, urgency);
}

void PlanBatcher::Failed(std::vector<BatchItemPtr> items, const Status&) {
  for (const BatchItemPtr& item : items) {
    BatchRide& ride = static_cast<BatchRide&>(*item);
    ride.failed = true;
    ride.handle.resume();
  }
}

void PlanBatcher::Done(Running& running, Status status, JobBuffers buffers) {
  const std::shared_ptr<Running> batch = std::move(running.self);
  const auto rows = static_cast<int64_t>(batch->items.size());
  BatchCurve::Cost took;
  took.latency = env_.dispatcher.ExpectedTime(*batch->program, batch->size);
  took.busy = batch->busy / env_.device_units;
  if (status.ok()) {
    queue_.Ended(batch, batch->size, took);
    if (batch->size == 2) NoteGain();
    if (batch->size > 1) {
      env_.batches.fetch_add(1, std::memory_order_relaxed);  // statistics
      env_.batched_rows.fetch_add(static_cast<uint64_t>(rows), std::memory_order_relaxed);
    }
    if (queue_.Fit(batch->size) == 0) {  // it turned out to gain nothing
      std::lock_guard lock(mutex_);
      programs_[std::bit_width(batch->size) - 1].reset();
    }
  } else {
    queue_.Ended(batch);
  }
  for (int64_t row = 0; row < rows; ++row) {
    if (!queue_.Claim(*batch->items[row])) continue;
    BatchRide& ride = static_cast<BatchRide&>(*batch->items[row]);
    ride.spent = took.latency / rows;
    if (!status.ok()) {
      ride.outputs = status;
      ride.failed = rows > 1;
    } else if (batch->size == 1) {
      ride.outputs = std::move(buffers.outputs);
    } else {
      Tensors outputs;
      for (const Tensor& joined : buffers.outputs) {
        Shape shape = joined.shape();
        shape[0] = 1;
        const size_t row_bytes = joined.size_bytes() / batch->size;
        outputs.push_back(Tensor::FromBuffer(joined.dtype(), std::move(shape), joined.buffer(),
                                             joined.offset_bytes() + row * row_bytes));
      }
      ride.outputs = std::move(outputs);
    }
    ride.handle.resume();  // may end the request
  }
}

void PlanBatcher::NoteGain() {
  const auto one = static_cast<float>(queue_.CostOf(1).busy.count());
  const auto two = static_cast<float>(queue_.CostOf(2).busy.count());
  if (one <= 0) return;
  region_.gain->store(std::clamp(1 - two / (2 * one), 0.0f, 1.0f), std::memory_order_relaxed);
}

void PlanBatcher::Prepare(uint32_t size) {
  env_.plans.PostIdle([self = shared_from_this(), size] { self->Build(size); });
}

void PlanBatcher::Build(uint32_t size) {
  Result<ProgramPtr> program = BuildBatch(region_, *program_, size, env_.folding, env_.compiler);
  if (!program.ok()) {
    queue_.SetLimit(size / 2);
    if (size == 2) region_.gain->store(0, std::memory_order_relaxed);
    return;
  }
  {
    std::lock_guard lock(mutex_);
    programs_[std::bit_width(size) - 1] = *program;
  }
  env_.plans.Charge(program_.get(), 2048 * (*program)->kernels.size());
  queue_.SetReady(size);
}

void PlanBatcher::WakeAt(TimePoint at) {
  env_.call_at(at, weak_from_this(), [this] { queue_.Wake(); });
}

TimePoint PlanBatcher::Now() { return env_.clock.Now(); }

uint32_t PlanBatcher::JobsUnderWay() {
  return env_.jobs_under_way.load(std::memory_order_relaxed);  // a guess of what waits
}

}  // namespace plexus
