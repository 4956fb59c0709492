// What a request runs together with others: rows of the same region in one job.
#include <algorithm>
#include <utility>

#include "pipeline/plan_batcher.h"
#include "pipeline/request.h"

namespace plexus {
namespace {

// Counts a job for as long as it is under way.
class UnderWay {
 public:
  explicit UnderWay(std::atomic<uint32_t>& jobs)
      : jobs_(jobs), others_(jobs.fetch_add(1, std::memory_order_relaxed)) {}  // orders nothing
  ~UnderWay() { jobs_.fetch_sub(1, std::memory_order_relaxed); }
  UnderWay(const UnderWay&) = delete;
  UnderWay& operator=(const UnderWay&) = delete;
  bool alone() const { return others_ == 0; }

 private:
  std::atomic<uint32_t>& jobs_;
  const uint32_t others_;
};

// What joining a batch costs on the host is little against this.
constexpr Duration kWorthABatch = std::chrono::microseconds(50);

}  // namespace

// Suspends until the ride has ended, or the request has left it.
struct Request::RideAwaiter {
  Request& request;
  const std::shared_ptr<PlanBatcher>& batcher;
  const std::shared_ptr<BatchRide>& ride;

  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    // The ride may end, and the coroutine be far ahead, before Add returns.
    const std::shared_ptr<Request> self = request.shared_from_this();
    const std::shared_ptr<PlanBatcher> batches = batcher;
    const std::shared_ptr<BatchRide> own = ride;
    own->handle = handle;
    {
      std::lock_guard lock(self->mutex_);
      self->riding_ = {batches, own};
    }
    batches->queue().Add(own);
    // A Cancel between the two found nothing to leave.
    if (self->cancelled()) Leave(*self, *batches, *own);
  }
  void await_resume() {
    std::lock_guard lock(request.mutex_);
    request.riding_ = {};
  }

  static void Leave(const Request& self, PlanBatcher& batches, BatchRide& ride) {
    if (!batches.queue().Leave(ride)) return;
    ride.outputs = self.CheckAlive();
    ride.handle.resume();
  }
};

void Request::LeaveBatch() {
  std::pair<std::shared_ptr<PlanBatcher>, std::shared_ptr<BatchRide>> riding;
  {
    std::lock_guard lock(mutex_);
    riding = riding_;
  }
  if (riding.first != nullptr) RideAwaiter::Leave(*this, *riding.first, *riding.second);
}

Task<std::optional<Result<Tensors>>> Request::Ride(std::shared_ptr<PlanBatcher> batcher,
                                                   RequestAttributes attributes, Tensors inputs,
                                                   uint32_t rows) {
  NoteSubmit();
  const auto ride = std::make_shared<BatchRide>();
  ride->batcher = batcher;
  ride->attributes = std::move(attributes);
  ride->rows = rows;
  ride->inputs = std::move(inputs);
  ride->memory = memory_;
  co_await RideAwaiter{*this, batcher, ride};
  if (ride->failed) co_return std::nullopt;
  spent_ += ride->spent;
  co_return std::move(ride->outputs);
}

Task<Result<Tensors>> Request::RunInBatch(std::shared_ptr<PlanBatcher> batcher, JobSpec spec) {
  std::optional<Result<Tensors>> outputs =
      co_await Ride(std::move(batcher), spec.attributes, spec.buffers.inputs, 1);
  if (outputs) co_return std::move(*outputs);
  const Status alive = CheckAlive();
  if (!alive.ok()) co_return alive;
  co_return co_await RunAlone(std::move(spec));
}

Task<Result<Tensors>> Request::RunJob(const GraphPlan* plan, Tensors inputs) {
  const UnderWay under_way(env_.jobs_under_way);
  JobSpec spec;
  spec.program = plan->program;
  spec.buffers.inputs = std::move(inputs);
  const Duration expected = env_.dispatcher.ExpectedTime(*plan->program, spec.rows);
  const Duration after = std::max(plan->RemainingAfter(), Left() - expected);
  if (attributes_.service_time == Duration{0}) attributes_.service_time = spent_ + expected + after;
  spec.attributes = attributes_;
  spec.attributes.remaining_path = after;
  // Nobody could join who is the only one: the device is free.
  if (!under_way.alone() && plan->region.graph != nullptr && attributes_.may_batch &&
      env_.batching.batches() && expected >= kWorthABatch && !IsRaised()) {
    const std::shared_ptr<PlanBatcher>& batcher = plan->Batcher(env_);
    if (batcher->useful()) co_return co_await RunInBatch(batcher, std::move(spec));
  }
  co_return co_await RunAlone(std::move(spec));
}

Task<std::optional<Result<Tensors>>> Request::RunRows(GraphPlanPtr plan, const Tensors& inputs) {
  const UnderWay under_way(env_.jobs_under_way);
  if (under_way.alone() || IsRaised()) co_return std::nullopt;
  const auto rows = static_cast<uint32_t>(inputs[0].shape()[0]);
  const std::shared_ptr<PlanBatcher>& batcher = plan->Batcher(env_);
  const uint32_t size = batcher->useful() ? batcher->queue().Fit(rows) : 0;
  if (size == 0) co_return std::nullopt;
  const Duration expected = batcher->queue().CostOf(size).latency;
  if (expected < kWorthABatch) co_return std::nullopt;
  const Duration after = std::max(Duration{0}, Left() - expected);
  if (attributes_.service_time == Duration{0}) attributes_.service_time = spent_ + expected + after;
  RequestAttributes attributes = attributes_;
  attributes.remaining_path = after;
  Tensors program_inputs;
  for (const Slot slot : plan->program_inputs) program_inputs.push_back(inputs[slot]);
  std::optional<Result<Tensors>> made =
      co_await Ride(batcher, attributes, std::move(program_inputs), rows);
  if (!made || !made->ok()) co_return made;
  Tensors outputs;
  for (const Slot slot : plan->outputs) {
    const auto it = std::find(plan->program_outputs.begin(), plan->program_outputs.end(), slot);
    outputs.push_back((**made)[it - plan->program_outputs.begin()]);
  }
  co_return Result<Tensors>(std::move(outputs));
}

}  // namespace plexus
