#include "pipeline/request.h"

#include <cstring>
#include <map>

#include "program/reference/reference.h"

namespace plexus {
namespace {

// The shape class: dtype and dimensions of every input. Values never enter.
std::string ShapeKey(const Tensors& inputs) {
  std::string key;
  for (const Tensor& t : inputs) {
    key.push_back(static_cast<char>(t.dtype()));
    key.push_back(static_cast<char>(t.rank()));
    key.append(reinterpret_cast<const char*>(t.shape().data()), t.shape().size() * sizeof(int64_t));
  }
  return key;
}

std::vector<KnownInput> KnownInputs(const Tensors& inputs) {
  std::vector<KnownInput> known;
  for (const Tensor& t : inputs) known.push_back({t.dtype(), t.shape(), std::nullopt});
  return known;
}

Result<bool> ToBool(const Tensor& t) {
  if (t.num_elements() != 1) return InvalidArgumentError("condition is not one value");
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> value, ToInt64Vector(t));
  return value[0] != 0;
}

// Concatenates on axis 0 what one iteration or row each gave; all alike but for axis 0.
Result<Tensor> ConcatRows(const Tensors& parts) {
  Shape shape = parts[0].shape();
  int64_t rows = 0;
  for (const Tensor& part : parts) {
    if (part.dtype() != parts[0].dtype() || part.shape().size() != shape.size() || shape.empty() ||
        !std::equal(shape.begin() + 1, shape.end(), part.shape().begin() + 1)) {
      return InvalidArgumentError("rows differ in shape: " + ShapeToString(shape) + " and " +
                                  ShapeToString(part.shape()));
    }
    rows += part.shape()[0];
  }
  shape[0] = rows;
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(parts[0].dtype(), shape));
  int64_t at = 0;
  for (const Tensor& part : parts) {
    if (part.dtype() == DType::kString) {
      for (const std::string& text : part.strings()) out.AssignString(at++, text);
    } else {
      std::memcpy(out.raw_mutable() + at, part.raw(), part.size_bytes());
      at += static_cast<int64_t>(part.size_bytes());
    }
  }
  PLEXUS_RETURN_IF_ERROR(HostScope::TakeFailure());
  return out;
}

// Row `i` of t as [1, ...]; shares the storage.
Tensor Row(const Tensor& t, int64_t i) {
  Shape shape = t.shape();
  const int64_t rows = shape[0];
  shape[0] = 1;
  if (t.dtype() == DType::kString) {
    const int64_t n = t.num_elements() / rows;
    const auto begin = t.strings().begin() + i * n;
    return Tensor::FromStrings(shape, std::vector<std::string>(begin, begin + n));
  }
  const size_t row_bytes = t.size_bytes() / rows;
  return Tensor::FromBuffer(t.dtype(), shape, t.buffer(), t.offset_bytes() + i * row_bytes);
}

bool IsLongForAWorker(const Tensors& inputs) {
  constexpr size_t kBytes = 64 << 10;
  size_t bytes = 0;
  for (const Tensor& t : inputs) bytes += t.defined() ? t.num_elements() * 4 : 0;
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
    auto build = [self = request.shared_from_this(), graph = graph, known = KnownInputs(inputs)] {
      RequestEnvironment& env = self->env_;
      const TimePoint from = self->TraceFrom();
      Result<GraphPlanPtr> plan = BuildPlan(*graph, known, env.folding, env.compiler);
      self->TraceSpan(TraceKind::kCompile, graph->options.name, "", from);
      return plan;
    };
    // The waiter may run, and this frame may be gone, before GetOrBuild returns: nothing of this
    // object is touched after a null result.
    PlanCache& plans = env.plans;
    GraphPlanPtr ready = plans.GetOrBuild(*graph, ShapeKey(inputs), std::move(build),
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
    Result<JobId> job = self->env_.dispatcher.Submit(std::move(spec));
    if (!job.ok()) {
      submit_status = job.status();
      return false;
    }
    // The job may be done and the coroutine far ahead: only `self` is safe from here.
    {
      std::lock_guard lock(self->mutex_);
      if (!self->job_.valid() || *job > self->job_) self->job_ = *job;
    }
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
          env.memory)) {}

void Request::Cancel(Status why) {
  JobId job;
  {
    std::lock_guard lock(mutex_);
    if (cancelled_.load(std::memory_order_relaxed)) return;  // mutex_ orders it
    cancel_reason_ = why;
    cancelled_.store(true, std::memory_order_release);  // publishes cancel_reason_
    job = job_;
  }
  if (job.valid()) env_.dispatcher.Cancel(job, std::move(why));
  LeaveFlight();
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

Result<Tensor> Request::JoinRows(const Tensors& parts) const {
  HostScope scope(memory_, &alive_);
  return ConcatRows(parts);
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

Task<Result<Tensors>> Request::RunJob(const GraphPlan* plan, Tensors inputs) {
  JobSpec spec;
  spec.program = plan->program;
  spec.buffers.inputs = std::move(inputs);
  Result<Tensors> buffers = AllocateOutputs(*plan->program);
  if (!buffers.ok()) co_return buffers.status();
  spec.buffers.outputs = std::move(*buffers);
  const Duration expected = env_.dispatcher.ExpectedTime(*plan->program, spec.rows);
  const Duration after = std::max(plan->RemainingAfter(), Left() - expected);
  if (attributes_.service_time == Duration{0}) attributes_.service_time = spent_ + expected + after;
  spec.attributes = attributes_;
  spec.attributes.remaining_path = after;
  spec.listener = this;
  if (first_submit() == TimePoint{}) {
    first_submit_.store(env_.clock.Now(), std::memory_order_relaxed);  // written here alone
  }
  JobAwaiter awaiter{*this, std::move(spec), OkStatus()};
  Result<Tensors> outputs = co_await awaiter;
  // What it takes alone, not how long it waited; by now with what this run taught.
  spent_ += env_.dispatcher.ExpectedTime(*plan->program, 1);
  co_return outputs;
}

Duration Request::Left() const {
  return std::max(Duration{0}, left_.time - (spent_ - left_.spent));
}

Task<Result<Tensors>> Request::RunGraph(PlannedGraphPtr graph, Tensors inputs, int depth) {
  if (depth > kMaxBodyDepth) co_return ResourceExhaustedError("control flow nests too deeply");
  Status alive = CheckAlive();
  if (!alive.ok()) co_return alive;
  PlanAwaiter plan_awaiter{*this, graph, inputs};
  const TimePoint plan_from = TraceFrom();
  Result<GraphPlanPtr> found = co_await plan_awaiter;
  if (plan_awaiter.waited) {
    TraceSpan(TraceKind::kCompileWait, graph->options.name, "", plan_from);
  }
  if (!found.ok()) co_return found.status();
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
  const bool has_more = !plan->host_steps.empty() || plan->rest != nullptr;
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
  if (has_more) {  // weight 1/8 as in profile/
    const int64_t took = (spent_ - more_from).count();
    const int64_t old = plan->remaining_after_ns.load(std::memory_order_relaxed);
    plan->remaining_after_ns.store(old == 0 ? took : old + (took - old) / 8,
                                   std::memory_order_relaxed);  // a lost update does no harm
  }
  co_return gather(plan->outputs);
}

Task<Result<Tensors>> Request::RunHostStep(const HostStep* step, Tensors inputs, Tensors captures,
                                           int depth) {
  const Node& node = step->owner->node(step->node);
  const TimePoint from = TraceFrom();
  Result<Tensors> outputs = Tensors();
  bool names_node = false;
  if (!step->bodies.empty() && node.op == "If") {
    outputs = co_await RunIf(step, std::move(inputs), std::move(captures), depth);
  } else if (!step->bodies.empty() && node.op == "Loop") {
    outputs = co_await RunLoop(step, std::move(inputs), std::move(captures), depth);
  } else if (!step->bodies.empty() && node.op == "MapRows") {
    outputs = co_await RunMapRows(step, std::move(inputs), std::move(captures), depth);
  } else {
    if (!step->bodies.empty() || IsLongForAWorker(inputs)) {
      HostPoolAwaiter to_pool{env_.plans};
      co_await to_pool;
    }
    const TimePoint from = env_.clock.Now();
    outputs = Evaluate(*step, inputs, captures);
    spent_ += env_.clock.Now() - from;
    names_node = true;
  }
  TraceSpan(TraceKind::kHostStep, node.op, node.name, from);
  if (!outputs.ok() && !names_node) {
    co_return outputs.status().WithContext("node '" + node.name + "' (" + node.op + ")");
  }
  co_return outputs;
}

Task<Result<Tensors>> Request::RunIf(const HostStep* step, Tensors inputs, Tensors captures,
                                     int depth) {
  Result<bool> condition = ToBool(inputs[0]);
  if (!condition.ok()) co_return condition.status();
  PlannedGraphPtr body = step->Body(*condition ? "then_branch" : "else_branch");
  co_return co_await RunGraph(std::move(body), std::move(captures), depth + 1);
}

// Loop(M?, cond?, v_initial...) → (v_final..., scan_outputs...), ONNX opset 13 and later.
Task<Result<Tensors>> Request::RunLoop(const HostStep* step, Tensors inputs, Tensors captures,
                                       int depth) {
  const Node& node = step->owner->node(step->node);
  const PlannedGraphPtr body = step->Body("body");
  int64_t max_trips = INT64_MAX;
  if (!inputs.empty() && inputs[0].defined()) {
    Result<std::vector<int64_t>> m = ToInt64Vector(inputs[0]);
    if (!m.ok() || m->size() != 1) co_return InvalidArgumentError("bad trip count");
    max_trips = (*m)[0];
  }
  bool going = true;
  if (inputs.size() > 1 && inputs[1].defined()) {
    Result<bool> condition = ToBool(inputs[1]);
    if (!condition.ok()) co_return condition.status();
    going = *condition;
  }
  Tensors carried(inputs.begin() + std::min<size_t>(2, inputs.size()), inputs.end());
  const size_t num_scans = body->graph.outputs().size() - 1 - carried.size();
  std::vector<Tensors> scans(num_scans);
  for (int64_t trip = 0; going && trip < max_trips; ++trip) {
    if (trip >= kMaxLoopIterations) {
      co_return ResourceExhaustedError("more than " + std::to_string(kMaxLoopIterations) +
                                       " iterations");
    }
    Tensors arguments = {Tensor::ScalarInt64(trip), Tensor::Of<uint8_t>(DType::kBool, {}, {1})};
    arguments.insert(arguments.end(), carried.begin(), carried.end());
    arguments.insert(arguments.end(), captures.begin(), captures.end());
    Result<Tensors> results = co_await RunGraph(body, std::move(arguments), depth + 1);
    if (!results.ok()) co_return results.status();
    Result<bool> condition = ToBool((*results)[0]);
    if (!condition.ok()) co_return condition.status();
    going = *condition;
    for (size_t i = 0; i < carried.size(); ++i) carried[i] = std::move((*results)[1 + i]);
    for (size_t i = 0; i < num_scans; ++i) {
      Tensor element = std::move((*results)[1 + carried.size() + i]);
      Shape row = element.shape();
      row.insert(row.begin(), 1);
      scans[i].push_back(element.Reshaped(std::move(row)));
    }
  }
  Tensors outputs = std::move(carried);
  for (size_t i = 0; i < num_scans; ++i) {
    if (scans[i].empty()) {  // no iteration: the body's declared type, zero rows
      const Value& declared = body->graph.value(body->graph.outputs()[1 + outputs.size()]);
      Shape shape = {0};
      for (const SymbolicDim& d : declared.shape.dims) shape.push_back(d.value.value_or(0));
      Result<Tensor> empty = Tensor::Allocate(declared.dtype, shape);
      if (!empty.ok()) co_return empty.status();
      outputs.push_back(std::move(*empty));
      continue;
    }
    Result<Tensor> stacked = JoinRows(scans[i]);
    if (!stacked.ok()) co_return stacked.status();
    outputs.push_back(std::move(*stacked));
  }
  outputs.resize(node.outputs.size());
  co_return outputs;
}

Task<Result<Tensors>> Request::RunMapRows(const HostStep* step, Tensors inputs, Tensors captures,
                                          int depth) {
  const Node& node = step->owner->node(step->node);
  const PlannedGraphPtr body = step->Body("body");
  if (inputs.empty()) co_return InvalidArgumentError("MapRows without inputs");
  for (const Tensor& t : inputs) {
    if (t.rank() == 0 || t.shape()[0] != inputs[0].shape()[0]) {
      co_return InvalidArgumentError("inputs differ in their number of rows");
    }
  }
  const int64_t rows = inputs[0].shape()[0];
  if (rows == 0) co_return Evaluate(*step, inputs, captures);
  std::vector<Tensors> parts(node.outputs.size());
  for (int64_t row = 0; row < rows; ++row) {
    Tensors arguments;
    for (const Tensor& t : inputs) arguments.push_back(Row(t, row));
    arguments.insert(arguments.end(), captures.begin(), captures.end());
    Result<Tensors> results = co_await RunGraph(body, std::move(arguments), depth + 1);
    if (!results.ok()) co_return results.status();
    for (size_t i = 0; i < parts.size(); ++i) parts[i].push_back(std::move((*results)[i]));
  }
  Tensors outputs;
  for (const Tensors& part : parts) {
    Result<Tensor> joined = JoinRows(part);
    if (!joined.ok()) co_return joined.status();
    outputs.push_back(std::move(*joined));
  }
  co_return outputs;
}

}  // namespace plexus
