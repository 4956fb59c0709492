// What a request runs together with others: rows of the same region in one job.
#include <utility>

#include "pipeline/plan_batcher.h"
#include "pipeline/request.h"

namespace plexus {

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

Task<Result<Tensors>> Request::RunInBatch(std::shared_ptr<PlanBatcher> batcher, JobSpec spec) {
  NoteSubmit();
  const auto ride = std::make_shared<BatchRide>();
  ride->attributes = spec.attributes;
  ride->inputs = std::move(spec.buffers.inputs);
  ride->memory = memory_;
  co_await RideAwaiter{*this, batcher, ride};
  if (ride->failed) {  // the fault of another row, perhaps
    const Status alive = CheckAlive();
    if (!alive.ok()) co_return alive;
    spec.buffers.inputs = std::move(ride->inputs);
    co_return co_await RunAlone(std::move(spec));
  }
  spent_ += ride->spent;
  co_return std::move(ride->outputs);
}

}  // namespace plexus
