#include "pipeline/plan_batcher.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "pipeline/request.h"

namespace plexus {
namespace {

// Until sizes that gained nothing are tried again; twice as long each time, up to 16 times.
constexpr Duration kTryAgainAfter = std::chrono::minutes(5);
constexpr uint32_t kMostDoublings = 4;

}  // namespace

// A batch under way. Keeps itself, and its batcher, until the dispatcher has let go.
struct PlanBatcher::Running : Batch, JobListener {
  std::shared_ptr<PlanBatcher> batcher;
  std::shared_ptr<Running> self;  // while it is submitted
  std::atomic<uint64_t> job{JobId().value()};
  uint32_t size = 1;
  ProgramPtr program;
  Duration busy{0};

  void OnDeviceTime(JobId, Duration time) override { busy = time; }
  void OnJobDone(JobId, Status status, JobBuffers buffers) override {
    batcher->Done(*this, std::move(status), std::move(buffers));
  }
};

PlanBatcher::PlanBatcher(RequestEnvironment& env, ProgramPtr program, const BatchRegion& region)
    : env_(env),
      program_(std::move(program)),
      region_(region),
      queue_(*this, env.dispatcher, program_, env.batching, env.max_batch),
      useful_(queue_.useful()),
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
Result<Tensors> PlanBatcher::JoinRows(const Batch& batch, uint32_t size) const {
  const HostScope scope(env_.memory);
  Tensors joined;
  const auto ride = [&](const BatchItemPtr& item) -> const BatchRide& {
    return static_cast<const BatchRide&>(*item);
  };
  for (size_t i = 0; i < ride(batch.items[0]).inputs.size(); ++i) {
    const Tensor& first = ride(batch.items[0]).inputs[i];
    Shape shape = first.shape();
    shape[0] = size;
    PLEXUS_ASSIGN_OR_RETURN(Tensor all, Tensor::Allocate(first.dtype(), std::move(shape)));
    const size_t row_bytes = all.size_bytes() / size;
    std::byte* to = all.raw_mutable();
    for (const BatchItemPtr& item : batch.items) {
      std::memcpy(to, ride(item).inputs[i].raw(), item->rows * row_bytes);
      to += item->rows * row_bytes;
    }
    for (uint32_t row = batch.rows; row < size; ++row, to += row_bytes) {
      std::memcpy(to, to - row_bytes, row_bytes);
    }
    joined.push_back(std::move(all));
  }
  return joined;
}

Status PlanBatcher::Submit(const BatchPtr& handed, std::span<const JobId> places) {
  auto batch = std::static_pointer_cast<Running>(handed);
  const uint32_t size = queue_.Fit(batch->rows);
  batch->program = size > 0 ? ProgramFor(size) : nullptr;
  if (batch->program == nullptr) return UnavailableError("no program for so many rows");
  JobSpec spec;
  if (size == 1) {
    spec.buffers.inputs = static_cast<BatchRide&>(*batch->items[0]).inputs;
  } else {
    PLEXUS_ASSIGN_OR_RETURN(spec.buffers.inputs, JoinRows(*batch, size));
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
  spec.rows = size;
  spec.listener = batch.get();
  batch->self = batch;
  const Result<JobId> job = env_.dispatcher.Replace(places, std::move(spec));
  if (!job.ok()) {
    batch->self.reset();
    return job.status();
  }
  // The job may be over already; `batch` is still ours. Read by Cancel, which may come too early.
  batch->job.store(job->value(), std::memory_order_relaxed);
  return OkStatus();
}

void PlanBatcher::Cancel(Batch& batch) {
  Running& running = static_cast<Running&>(batch);
  const JobId job(running.job.load(std::memory_order_relaxed));  // another's: nothing is lost
  env_.dispatcher.Cancel(job, CancelledError("nobody waits for it any more"));
}

void PlanBatcher::Raise(const BatchRide& ride, const Urgency& urgency) {
  const auto [place, batch] = queue_.Find(ride);
  JobId job = place;
  if (batch != nullptr) {
    job = JobId(static_cast<Running&>(*batch).job.load(std::memory_order_relaxed));  // or none yet
  }
  env_.dispatcher.Raise(job, urgency);
}

void PlanBatcher::Failed(std::vector<BatchItemPtr> items, const Status& why) {
  for (const BatchItemPtr& item : items) {
    BatchRide& ride = static_cast<BatchRide&>(*item);
    ride.outputs = why;
    ride.failed = items.size() > 1 || ride.rows > 1;
    ride.handle.resume();
  }
}

void PlanBatcher::Done(Running& running, Status status, JobBuffers buffers) {
  const std::shared_ptr<Running> batch = std::move(running.self);
  BatchCurve::Cost took;
  took.latency = env_.dispatcher.ExpectedTime(*batch->program, batch->size);
  took.busy = batch->busy / env_.device_units;
  if (status.ok()) {
    if (queue_.Ended(batch, batch->size, took)) {
      {
        std::lock_guard lock(mutex_);
        std::fill(programs_.begin() + std::bit_width(batch->size) - 1, programs_.end(), nullptr);
      }
      NoteUseful();
      TryAgainLater();
    }
    if (batch->size > 1) NoteGain(*batch, took.busy);
    if (batch->items.size() > 1) {
      env_.batches.fetch_add(1, std::memory_order_relaxed);  // statistics
      env_.batched_rows.fetch_add(batch->rows, std::memory_order_relaxed);
    }
  } else {
    queue_.Ended(batch);
  }
  uint32_t row = 0;
  for (const BatchItemPtr& item : batch->items) {
    const uint32_t first = std::exchange(row, row + item->rows);
    if (!queue_.Claim(*item)) continue;
    BatchRide& ride = static_cast<BatchRide&>(*item);
    ride.spent = took.latency * item->rows / batch->rows;
    if (!status.ok()) {
      ride.outputs = status;
      ride.failed = batch->items.size() > 1 || item->rows > 1;
    } else if (batch->size == 1) {
      ride.outputs = std::move(buffers.outputs);
    } else {
      Tensors outputs;
      for (const Tensor& joined : buffers.outputs) {
        Shape shape = joined.shape();
        shape[0] = item->rows;
        const size_t row_bytes = joined.size_bytes() / batch->size;
        outputs.push_back(Tensor::FromBuffer(joined.dtype(), std::move(shape), joined.buffer(),
                                             joined.offset_bytes() + first * row_bytes));
      }
      ride.outputs = std::move(outputs);
    }
    ride.handle.resume();  // may end the request
  }
}

void PlanBatcher::NoteGain(const Running& batch, Duration took) {
  // The first batches find everything cold, and one row may, too. Rows of one request would have
  // run at once anyway.
  if (queue_.Gain() < 0 || batch.items.size() < 2) return;
  region_.gain->Note(queue_.CostOf(1).busy * batch.rows, took);
  if (region_.gain->in_vain()) TryAgainLater();
}

void PlanBatcher::NoteUseful() {
  std::lock_guard lock(mutex_);
  useful_.store(queue_.useful(), std::memory_order_relaxed);  // a hint
}

void PlanBatcher::TryAgainLater() {
  uint32_t doublings;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(tries_again_, true)) return;
    doublings = std::min(tries_++, kMostDoublings);
  }
  env_.call_at(Now() + kTryAgainAfter * (1 << doublings), weak_from_this(), [this] {
    {
      std::lock_guard lock(mutex_);
      tries_again_ = false;
    }
    queue_.TryAgain();
    if (region_.gain->in_vain()) region_.gain->Forget();
    NoteUseful();
  });
}

void PlanBatcher::Prepare(uint32_t size) {
  env_.plans.PostIdle([self = shared_from_this(), size] { self->Build(size); });
}

void PlanBatcher::Build(uint32_t size) {
  size_t bytes = 0;
  Result<ProgramPtr> program =
      BuildBatch(region_, *program_, size, env_.folding, env_.compiler, &bytes);
  if (!program.ok()) {
    queue_.SetLimit(size / 2);
    NoteUseful();
    if (size == 2) region_.gain->None();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    programs_[std::bit_width(size) - 1] = *program;
  }
  env_.plans.Charge(program_.get(), bytes);
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
