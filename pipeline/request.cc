#include "pipeline/request.h"

namespace plexus {
namespace {

// The shape class: dtype of every input, and dimensions of those that plans depend on. Values never
// enter. `one_row`: as if each had one row instead of those that it has.
std::string ShapeKey(const PlannedGraph& graph, const Tensors& inputs, bool one_row = false) {
  std::string key;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& t = inputs[i];
    key.push_back(static_cast<char>(t.dtype()));
    if (!graph.shape_matters[i]) continue;
    key.push_back(static_cast<char>(t.rank()));
    for (size_t d = 0; d < t.shape().size(); ++d) {
      const int64_t size = one_row && d == 0 ? 1 : t.shape()[d];
      key.append(reinterpret_cast<const char*>(&size), sizeof(size));
    }
  }
  return key;
}

std::vector<KnownInput> KnownInputs(const PlannedGraph& graph, const Tensors& inputs) {
  std::vector<KnownInput> known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    known.push_back({inputs[i].dtype(), std::nullopt, std::nullopt});
    if (graph.shape_matters[i]) known.back().shape = inputs[i].shape();
  }
  return known;
}

bool IsLongForAWorker(const Node& node, const Tensors& inputs) {
  if (node.op == "DecodeImage") return true;  // a small file may hold a large image
  constexpr size_t kBytes = 64 << 10;
  size_t bytes = 0;
  for (const Tensor& t : inputs) {
    if (!t.defined()) continue;
    bytes += t.num_elements() * 4;
    if (t.dtype() != DType::kString) continue;
    for (const std::string& text : t.strings()) bytes += text.size();
  }
  return bytes > kBytes;
}

}  // namespace

// Suspends until the plan is there; resumes at once when it is cached.
struct Request::PlanAwaiter {
  Request& request;
  PlannedGraphPtr graph;
  const Tensors& inputs;
  Result<GraphPlanPtr> result = GraphPlanPtr();
  bool waited = false;

  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    RequestEnvironment& env = request.env_;
    auto build = [self = request.shared_from_this(), graph = graph,
                  known = KnownInputs(*graph, inputs)] {
      RequestEnvironment& env = self->env_;
      const TimePoint from = self->TraceFrom();
      Result<GraphPlanPtr> plan = BuildPlan(*graph, known, env.folding, env.compiler, env.times);
      self->TraceSpan(TraceKind::kCompile, graph->options.name, "", from);
      return plan;
    };
    // The waiter may run, and this frame may be gone, before GetOrBuild returns: nothing of this
    // object is touched after a null result.
    PlanCache& plans = env.plans;
    GraphPlanPtr ready = plans.GetOrBuild(graph, ShapeKey(*graph, inputs), std::move(build),
                                          [this, handle](Result<GraphPlanPtr> built) {
                                            result = std::move(built);
                                            waited = true;
                                            handle.resume();
                                          });
    if (ready == nullptr) return true;
    result = std::move(ready);
    return false;
  }
  Result<GraphPlanPtr> await_resume() { return std::move(result); }
};

// Submits one job and suspends until OnJobDone.
struct Request::JobAwaiter {
  Request& request;
  JobSpec spec;
  Status submit_status;

  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    const std::shared_ptr<Request> self = request.shared_from_this();
    self->waiting_ = handle;
    const uint64_t wait = self->BeginWait();
    Result<JobId> job = self->env_.dispatcher.Submit(std::move(spec));
    if (!job.ok()) {
      submit_status = job.status();
      return false;
    }
    // The job may be done and the coroutine far ahead: only `self` is safe from here.
    std::vector<Raised> raised;
    std::vector<TenantId> payers;
    {
      std::lock_guard lock(self->mutex_);
      if (wait == self->waits_) self->job_ = *job;
      raised = self->raised_;
      payers = self->Payers();
    }
    for (const Raised& each : raised) self->env_.dispatcher.Raise(*job, each.urgency);
    for (const TenantId tenant : payers) self->env_.dispatcher.AddPayer(*job, tenant);
    if (self->cancelled()) {
      std::unique_lock lock(self->mutex_);
      const Status why = self->cancel_reason_;
      lock.unlock();
      self->env_.dispatcher.Cancel(*job, why);
    }
    return true;
  }
  Result<Tensors> await_resume() {
    PLEXUS_RETURN_IF_ERROR(submit_status);
    Status status = std::exchange(request.job_status_, OkStatus());
    PLEXUS_RETURN_IF_ERROR(status);
    return std::move(request.job_buffers_.outputs);
  }
};

// Moves the coroutine to a build thread.
struct Request::HostPoolAwaiter {
  PlanCache& pool;
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    pool.Post([handle] { handle.resume(); });
  }
  void await_resume() {}
};

Request::Request(RequestEnvironment& env, RequestAttributes attributes)
    : env_(env),
      attributes_(attributes),
      memory_(std::make_shared<MemoryBudget>(
          "the request",
          attributes.memory_bytes == 0 ? env.request_memory_bytes : attributes.memory_bytes,
          env.memory)),
      root_(*this) {}

Request::Request(Request* parent)
    : env_(parent->env_),
      attributes_(parent->attributes_),
      memory_(parent->memory_),
      root_(parent->root_),
      call_(parent->call_) {}

std::shared_ptr<Request> Request::NewLane() {
  const std::shared_ptr<Request> lane(new Request(this));
  std::unique_lock lock(mutex_);
  std::erase_if(lanes_, [](const Lane& each) { return each.request.expired(); });
  lanes_.push_back({lane, leading_.size()});
  for (const Raised& each : raised_) lane->raised_.push_back({0, each.urgency});
  for (const TenantId tenant : Payers()) lane->payers_.push_back({0, tenant});
  if (cancelled()) {
    const Status why = cancel_reason_;
    lock.unlock();
    lane->Cancel(why);
  }
  return lane;
}

void Request::NoteSubmit() {
  std::atomic<TimePoint>& first = root_.first_submit_;
  if (first.load(std::memory_order_relaxed) != TimePoint{}) return;
  TimePoint none{};
  first.compare_exchange_strong(none, env_.clock.Now(), std::memory_order_relaxed);  // a timing
}

void Request::Cancel(Status why) {
  JobId job;
  std::vector<Lane> lanes;
  {
    std::lock_guard lock(mutex_);
    if (cancelled_.load(std::memory_order_relaxed)) return;  // mutex_ orders it
    cancel_reason_ = why;
    cancelled_.store(true, std::memory_order_release);  // publishes cancel_reason_
    job = job_;
    lanes = lanes_;
  }
  for (const Lane& each : lanes) {
    if (const std::shared_ptr<Request> lane = each.request.lock()) lane->Cancel(why);
  }
  if (job.valid()) env_.dispatcher.Cancel(job, std::move(why));
  LeaveFlight();
  LeaveBatch();
}

Status Request::CheckAlive() const {
  if (cancelled()) {
    std::lock_guard lock(mutex_);
    return cancel_reason_;
  }
  if (attributes_.timeout_at && env_.clock.Now() >= *attributes_.timeout_at) {
    return DeadlineExceededError("the request's timeout has passed");
  }
  return OkStatus();
}

void Request::OnJobDone(JobId, Status status, JobBuffers buffers) {
  job_status_ = std::move(status);
  job_buffers_ = std::move(buffers);
  std::exchange(waiting_, {}).resume();
}

Result<Tensors> Request::AllocateOutputs(const Program& program) const {
  HostScope scope(memory_);
  Tensors outputs;
  for (const ProgramValue& out : program.outputs) {
    Result<Tensor> buffer = Tensor::Allocate(out.dtype, out.shape);
    if (!buffer.ok()) return buffer.status().WithContext("value '" + out.name + "'");
    outputs.push_back(std::move(*buffer));
  }
  return outputs;
}

Result<Tensors> Request::Evaluate(const HostStep& step, const Tensors& inputs,
                                  const Tensors& captures) const {
  HostScope scope(memory_, &alive_);
  return env_.evaluator.Evaluate(*step.owner, step.owner->node(step.node), inputs, captures);
}

TimePoint Request::TraceFrom() const {
  return env_.trace.enabled() && attributes_.traced ? env_.clock.Now() : TimePoint{};
}

void Request::TraceSpan(TraceKind kind, const std::string& name, const std::string& detail,
                        TimePoint from) const {
  if (from == TimePoint{}) return;
  TraceEvent span;
  span.kind = kind;
  span.name = env_.trace.Intern(detail.empty() ? name : name + " " + detail);
  span.begin = from;
  span.end = env_.clock.Now();
  span.request = attributes_.request.value();
  span.tenant = attributes_.tenant.value();
  env_.trace.Record(span);
}

// The plan for one row of what the inputs are several of, if those may run as rows of its batches.
GraphPlanPtr Request::PlanOfARow(const PlannedGraph& graph, const Tensors& inputs) const {
  if (!attributes_.may_batch || !env_.batching.batches()) return nullptr;
  if (inputs.empty() || inputs[0].rank() == 0) return nullptr;
  const int64_t rows = inputs[0].shape()[0];
  if (rows < 2 || rows > env_.max_batch) return nullptr;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& input = inputs[i];
    if (!graph.shape_matters[i] || input.rank() == 0 || input.shape()[0] != rows) return nullptr;
  }
  GraphPlanPtr plan = env_.plans.Find(graph, ShapeKey(graph, inputs, /*one_row=*/true));
  return plan != nullptr && plan->takes_rows ? plan : nullptr;
}

Task<Result<Tensors>> Request::RunAlone(JobSpec spec) {
  const ProgramPtr program = spec.program;
  Result<Tensors> buffers = AllocateOutputs(*program);
  if (!buffers.ok()) co_return buffers.status();
  spec.buffers.outputs = std::move(*buffers);
  spec.listener = this;
  {
    std::lock_guard lock(mutex_);
    if (!payers_.empty()) spec.payers.push_back({attributes_.tenant, 1});
    for (const TenantId tenant : Payers()) spec.payers.push_back({tenant, 1});
  }
  NoteSubmit();
  JobAwaiter awaiter{*this, std::move(spec), OkStatus()};
  Result<Tensors> outputs = co_await awaiter;
  // What it takes alone, not how long it waited; by now with what this run taught.
  spent_ += env_.dispatcher.ExpectedTime(*program, 1);
  co_return outputs;
}

Duration Request::Left() const {
  return std::max(Duration{0}, left_.time - (spent_ - left_.spent));
}

Task<Result<Tensors>> Request::RunGraph(PlannedGraphPtr graph, Tensors inputs, int depth) {
  if (depth > kMaxBodyDepth) co_return ResourceExhaustedError("control flow nests too deeply");
  if (inputs.size() != graph->shape_matters.size()) {
    co_return InvalidArgumentError("graph '" + graph->graph.name + "' has " +
                                   std::to_string(graph->shape_matters.size()) + " inputs, given " +
                                   std::to_string(inputs.size()));
  }
  Status alive = CheckAlive();
  if (!alive.ok()) co_return alive;
  if (GraphPlanPtr one = PlanOfARow(*graph, inputs)) {
    std::optional<Result<Tensors>> outputs = co_await RunRows(std::move(one), inputs);
    if (outputs) co_return std::move(*outputs);
    alive = CheckAlive();
    if (!alive.ok()) co_return alive;
  }
  PlanAwaiter plan_awaiter{*this, graph, inputs};
  const TimePoint plan_from = TraceFrom();
  Result<GraphPlanPtr> found = co_await plan_awaiter;
  if (plan_awaiter.waited) {
    TraceSpan(TraceKind::kCompileWait, graph->options.name, "", plan_from);
  }
  if (!found.ok()) co_return found.status();
  alive = CheckAlive();  // compiling takes its time
  if (!alive.ok()) co_return alive;
  const GraphPlanPtr plan = *found;

  Tensors slots(plan->num_slots);
  for (size_t i = 0; i < inputs.size(); ++i) slots[i] = std::move(inputs[i]);
  for (const auto& [slot, tensor] : plan->constants) slots[slot] = tensor;
  const auto gather = [&slots](const std::vector<Slot>& wanted) {
    Tensors out;
    out.reserve(wanted.size());
    for (Slot slot : wanted) out.push_back(slot == kNoSlot ? Tensor() : slots[slot]);
    return out;
  };
  const auto scatter = [&slots](const std::vector<Slot>& to, Tensors& from) {
    for (size_t i = 0; i < to.size(); ++i) {
      if (to[i] != kNoSlot) slots[to[i]] = std::move(from[i]);
    }
  };

  if (plan->program != nullptr) {
    Result<Tensors> outputs = co_await RunJob(plan.get(), gather(plan->program_inputs));
    if (!outputs.ok()) co_return outputs.status();
    scatter(plan->program_outputs, *outputs);
  }
  const Duration more_from = spent_;
  const Expectation outside = left_;
  for (const HostStep& step : plan->host_steps) {
    alive = CheckAlive();
    if (!alive.ok()) co_return alive;
    if (!step.bodies.empty()) {
      left_ = {std::max(Left(), plan->RemainingAfter() - (spent_ - more_from)), spent_};
    }
    Result<Tensors> outputs =
        co_await RunHostStep(&step, gather(step.inputs), gather(step.captures), depth);
    if (!outputs.ok()) co_return outputs.status();
    left_ = outside;
    scatter(step.outputs, *outputs);
  }
  if (plan->rest != nullptr) {
    Result<Tensors> outputs = co_await RunGraph(plan->rest, gather(plan->rest_inputs), depth);
    if (!outputs.ok()) co_return outputs.status();
    scatter(plan->rest_outputs, *outputs);
  }
  if (plan->after != nullptr) plan->after->Add(static_cast<double>((spent_ - more_from).count()));
  co_return gather(plan->outputs);
}

Task<Result<Tensors>> Request::RunHostStep(const HostStep* step, Tensors inputs, Tensors captures,
                                           int depth) {
  const Node& node = step->owner->node(step->node);
  const TimePoint from = TraceFrom();
  Result<Tensors> outputs = Tensors();
  if (!step->bodies.empty() && node.op == "If") {
    outputs = co_await RunIf(step, std::move(inputs), std::move(captures), depth);
  } else if (!step->bodies.empty() && node.op == "Loop") {
    outputs = co_await RunLoop(step, std::move(inputs), std::move(captures), depth);
  } else if (!step->bodies.empty() && node.op == "MapRows") {
    outputs = co_await RunMapRows(step, std::move(inputs), std::move(captures), depth);
  } else {
    if (!step->bodies.empty() || IsLongForAWorker(node, inputs)) {
      HostPoolAwaiter to_pool{env_.plans};
      co_await to_pool;
    }
    const TimePoint from = env_.clock.Now();
    outputs = Evaluate(*step, inputs, captures);
    spent_ += env_.clock.Now() - from;
  }
  TraceSpan(TraceKind::kHostStep, node.op, node.name, from);
  co_return outputs;
}

}  // namespace plexus
