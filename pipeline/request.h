// One request's walk through the plans of its graph: a coroutine that submits a job per region and
// does the host steps between them.
#pragma once

#include <atomic>
#include <coroutine>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/memory_budget.h"
#include "base/status.h"
#include "base/trace.h"
#include "device/device.h"
#include "pipeline/flights.h"
#include "pipeline/path_book.h"
#include "pipeline/plan.h"
#include "pipeline/plan_batcher.h"
#include "pipeline/plan_cache.h"
#include "pipeline/result_cache.h"
#include "pipeline/runtime.h"
#include "pipeline/task.h"
#include "sched/batching.h"
#include "sched/dispatcher.h"

namespace plexus {

// What requests share; outlives them all.
struct RequestEnvironment {
  Dispatcher& dispatcher;
  PlanCache& plans;
  FlightTable& flights;
  ResultCache& results;
  const Evaluator& evaluator;  // at request time
  const Evaluator& folding;    // while planning
  Compiler& compiler;
  const Clock& clock;
  TraceRecorder& trace;
  ProfileStore& times;
  // What all requests may hold in values outside arenas, and what one may unless told otherwise.
  std::shared_ptr<MemoryBudget> memory;
  size_t request_memory_bytes;

  const BatchPolicy& batching;
  uint32_t max_batch;
  uint32_t device_units;
  // Calls `work` at that time or somewhat later, from a thread of its own, unless `whose` is gone
  // by then; keeps `whose` meanwhile.
  std::function<void(TimePoint at, std::weak_ptr<void> whose, std::function<void()> work)> call_at;
  std::atomic<uint32_t> jobs_under_way{0};
  std::atomic<uint64_t> batches{0}, batched_rows{0};  // of several rows
};

// Limits on what a request's control flow may do; beyond them it fails with kResourceExhausted.
inline constexpr int64_t kMaxLoopIterations = 1'000'000;

using Tensors = std::vector<Tensor>;

// Kept alive by its coroutine and by whoever may cancel it. Cancel is thread-safe; everything else
// belongs to the coroutine, which moves between threads but runs on one at a time. A fan-out walks
// several elements at once: each further one in a lane, a Request of its own that shares this one's
// memory and is cancelled with it.
class Request : public CancelToken,
                public JobListener,
                public FlightLeader,
                public std::enable_shared_from_this<Request> {
 public:
  Request(RequestEnvironment& env, RequestAttributes attributes);

  void Cancel(Status why) override;
  bool cancelled() const override { return cancelled_.load(std::memory_order_acquire); }

  // Runs `graph` on `inputs` (one per graph input, checked by the caller for the root graph).
  Task<Result<Tensors>> RunGraph(PlannedGraphPtr graph, Tensors inputs, int depth);
  // The same, unless another request is at it already: then waits for what that one gets. For
  // graphs whose outputs depend on the inputs alone.
  Task<Result<Tensors>> RunShared(PlannedGraphPtr graph, Tensors inputs, int depth = 0);
  // The same, unless its result is kept from an earlier request.
  Task<Result<Tensors>> RunReused(PlannedGraphPtr graph, Tensors inputs);
  // The executable's calls one after the other, each shared with whoever is at the same; in bodies
  // of control flow likewise, with whoever is at the same element or turn.
  Task<Result<Tensors>> RunPath(RunPathPtr path, Tensors inputs, int depth = 0);

  bool may_batch() const { return attributes_.may_batch; }
  // What its work took so far, without waiting: jobs as ExpectedTime counts them, host steps. What
  // it rode along with counts like its own.
  Duration spent() const { return spent_; }
  // Of the results that it asked the cache for, those that were there and those that were not; and
  // the time that took.
  uint32_t cache_hits() const { return cache_hits_; }
  uint32_t cache_misses() const { return cache_misses_; }
  Duration cache_time() const { return cache_time_; }
  TimePoint first_submit() const { return first_submit_.load(std::memory_order_relaxed); }
  // What its values outside arenas are charged to; they may outlive the request.
  const std::shared_ptr<MemoryBudget>& memory() const { return memory_; }

 private:
  struct PlanAwaiter;
  struct JobAwaiter;
  struct HostPoolAwaiter;
  struct FlightAwaiter;
  struct RideAwaiter;
  struct FanOut;
  struct LanesAwaiter;

  explicit Request(Request* parent);  // a lane
  std::shared_ptr<Request> NewLane();
  void NoteSubmit();

  void OnJobDone(JobId job, Status status, JobBuffers buffers) override;
  Status CheckAlive() const;  // the reason once cancelled or timed out
  // Each goes on at once, with the reason of the cancellation.
  void LeaveFlight();
  void LeaveBatch();
  uint64_t BeginWait();
  uint64_t BeginLeading();
  void EndLeading(uint64_t flight);
  // Flight 0: all that a lane does.
  void Raise(uint64_t flight, const Urgency& urgency) override;
  bool IsRaised() const;
  void AddPayer(uint64_t flight, TenantId tenant) override;
  // Both with mutex_ held. The lanes that work for the flight; nullopt: it has landed.
  std::optional<std::vector<std::shared_ptr<Request>>> LanesFor(uint64_t flight) const;
  std::vector<TenantId> Payers() const;  // each once

  // The request's own work on this thread; none of them suspends.
  Result<Tensors> AllocateOutputs(const Program& program) const;
  Result<Tensors> Evaluate(const HostStep& step, const Tensors& inputs,
                           const Tensors& captures) const;
  // On axis 0; `pad` may be null (see JoinRows in program/reference).
  Result<Tensor> Join(const Tensors& parts, const Tensor* pad) const;

  // For traces: the time if this request is recorded now, else TimePoint{}; and a span from there
  // (nothing if that is TimePoint{}), named `name` and, if there is one, `detail`.
  TimePoint TraceFrom() const;
  void TraceSpan(TraceKind kind, const std::string& name, const std::string& detail,
                 TimePoint from) const;

  Task<Result<Tensors>> RunJob(const GraphPlan* plan, Tensors inputs);
  // With rows of other requests, where that is worth it; the spec is the job for this row alone.
  Task<Result<Tensors>> RunInBatch(std::shared_ptr<PlanBatcher> batcher, JobSpec spec);
  // The same for inputs of several rows of what the plan takes one of; nullopt: not this time.
  GraphPlanPtr PlanOfARow(const PlannedGraph& graph, const Tensors& inputs) const;
  Task<std::optional<Result<Tensors>>> RunRows(GraphPlanPtr plan, const Tensors& inputs);
  // What the rows got; nullopt: the batch failed, which may be another row's fault.
  Task<std::optional<Result<Tensors>>> Ride(std::shared_ptr<PlanBatcher> batcher,
                                            RequestAttributes attributes, Tensors inputs,
                                            uint32_t rows);
  Task<Result<Tensors>> RunAlone(JobSpec spec);
  Task<Result<Tensors>> RunHostStep(const HostStep* step, Tensors inputs, Tensors captures,
                                    int depth);
  // A body of control flow once, by its path where the request goes by one.
  Task<Result<Tensors>> RunBody(PlannedGraphPtr body, Tensors inputs, int depth);
  Task<Result<Tensors>> RunIf(const HostStep* step, Tensors inputs, Tensors captures, int depth);
  Task<Result<Tensors>> RunLoop(const HostStep* step, Tensors inputs, Tensors captures, int depth);
  Task<Result<Tensors>> RunMapRows(const HostStep* step, Tensors inputs, Tensors captures,
                                   int depth);
  Task<Status> RunElements(FanOut* fan, bool is_lane);
  Task<Status> RunElementsAgain(FanOut* fan);
  static DetachedTask RunLane(std::shared_ptr<Request> lane, FanOut* fan);
  bool IsShortOfMemory() const;
  Result<Tensors> Gather(const Node& node, std::vector<Tensors> results) const;

  RequestEnvironment& env_;
  RequestAttributes attributes_;
  const std::shared_ptr<MemoryBudget> memory_;
  Request& root_;  // the request that this is a lane of, or itself; outlives its lanes' work
  const HostScope::Alive alive_ = [this] { return CheckAlive(); };
  Duration spent_{0};
  const RunCall* call_ = nullptr;  // that it is at; kept by RunPath
  uint32_t cache_hits_ = 0, cache_misses_ = 0;
  Duration cache_time_{0};
  // When it had spent `spent`, `time` was still to come, control flow that it is inside included.
  struct Expectation {
    Duration time{0}, spent{0};
  };
  Expectation left_;
  Duration Left() const;
  std::atomic<TimePoint> first_submit_{TimePoint{}};  // for the timings: orders nothing

  std::atomic<bool> cancelled_{false};
  mutable std::mutex mutex_;  // guards what follows, to riding_
  Status cancel_reason_;
  JobId job_;
  struct Lane {
    std::weak_ptr<Request> request;
    size_t inside;  // how many flights the request led when it made the lane
  };
  std::vector<Lane> lanes_;
  uint64_t flights_led_ = 0;
  std::vector<uint64_t> leading_;  // flights, each inside the one before
  // Its waits so far: what it notes down late of one of them must not hide where it is by then.
  uint64_t waits_ = 0;
  // What riders of these flights want until they land, or those of a lane's parent (flight 0).
  struct Raised {
    uint64_t flight;
    Urgency urgency;
  };
  std::vector<Raised> raised_;
  struct Payer {
    uint64_t flight;
    TenantId tenant;  // beside its own
  };
  std::vector<Payer> payers_;
  std::pair<FlightTable::FlightPtr, FlightRider*> boarded_;                     // may have landed
  std::pair<std::shared_ptr<PlanBatcher>, std::shared_ptr<BatchRide>> riding_;  // may have ended

  // Hand-over from OnJobDone to the coroutine that waits for it.
  std::coroutine_handle<> waiting_;
  Status job_status_;
  JobBuffers job_buffers_;
};

}  // namespace plexus
