// What a request shares with others: equal work under way, and the segments of its path.
#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "pipeline/path_book.h"
#include "pipeline/request.h"

namespace plexus {
namespace {

// Priorities of riders that a leader minds: more of them change nothing.
constexpr size_t kMaxRaised = 8;

}  // namespace

// Suspends while another request computes the same; does not where this one has to.
struct Request::FlightAwaiter : FlightRider {
  FlightAwaiter(Request& request, const PlannedGraph& graph, const Tensors& inputs)
      : request(request), graph(graph), inputs(inputs) {}

  Request& request;
  const PlannedGraph& graph;
  const Tensors& inputs;
  FlightTable::FlightPtr flight;
  bool leads = false;
  Result<Tensors> outputs = Tensors();
  std::coroutine_handle<> handle;

  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> h) {
    handle = h;
    const std::shared_ptr<Request> self = request.shared_from_this();
    FlightTable::Ask ask;
    ask.work = graph.id;
    ask.tenant = self->attributes_.tenant;
    ask.tenant_since = self->attributes_.tenant_since;
    ask.urgency = {self->attributes_.deadline, self->attributes_.priority};
    ask.inputs = &inputs;
    ask.leader = self;
    ask.flight = self->BeginLeading();
    const uint64_t wait = self->BeginWait();
    bool must_lead = false;
    FlightRider* const rider = this;
    FlightTable::FlightPtr joined = self->env_.flights.Join(ask, rider, &must_lead);
    if (must_lead) {
      leads = true;
      flight = std::move(joined);
      return false;
    }
    // It may have landed and the coroutine be far ahead: only `self` is safe from here.
    {
      std::lock_guard lock(self->mutex_);
      if (wait == self->waits_) self->boarded_ = {joined, rider};
    }
    if (self->cancelled()) self->LeaveFlight();
    return true;
  }
  void await_resume() {}

  void OnLanded(const Result<Tensors>& landed) override {
    outputs = landed;
    handle.resume();
  }
};

uint64_t Request::BeginWait() {
  std::lock_guard lock(mutex_);
  return ++waits_;
}

uint64_t Request::BeginLeading() {
  std::lock_guard lock(mutex_);
  return leading_ = ++flights_led_;
}

void Request::EndLeading() {
  std::lock_guard lock(mutex_);
  leading_ = 0;
  raised_.clear();
  payers_.clear();
}

void Request::Raise(uint64_t flight, const Urgency& urgency) {
  {
    std::lock_guard lock(mutex_);
    if (flight != leading_) return;  // it has landed
  }
  Raise(urgency);
}

// This job and those after it, until the flight lands.
void Request::Raise(const Urgency& urgency) {
  JobId job;
  std::vector<std::weak_ptr<Request>> lanes;
  decltype(riding_) riding;
  {
    std::lock_guard lock(mutex_);
    const auto same = std::find_if(raised_.begin(), raised_.end(), [&](const Urgency& u) {
      return u.priority == urgency.priority;
    });
    if (same == raised_.end()) {
      if (raised_.size() >= kMaxRaised) return;
      raised_.push_back(urgency);
    } else if (urgency.deadline) {
      same->deadline = std::min(same->deadline.value_or(TimePoint::max()), *urgency.deadline);
    }
    job = job_;
    lanes = lanes_;
    riding = riding_;
  }
  for (const auto& weak : lanes) {
    if (const std::shared_ptr<Request> lane = weak.lock()) lane->Raise(urgency);
  }
  if (job.valid()) env_.dispatcher.Raise(job, urgency);
  if (riding.first != nullptr) riding.first->Raise(*riding.second, urgency);
}

void Request::AddPayer(uint64_t flight, TenantId tenant) {
  {
    std::lock_guard lock(mutex_);
    if (flight != leading_) return;  // it has landed
  }
  AddPayer(tenant);
}

// For this job and those after it, until the flight lands.
void Request::AddPayer(TenantId tenant) {
  JobId job;
  std::vector<std::weak_ptr<Request>> lanes;
  {
    std::lock_guard lock(mutex_);
    if (std::find(payers_.begin(), payers_.end(), tenant) != payers_.end()) return;
    payers_.push_back(tenant);
    job = job_;
    lanes = lanes_;
  }
  for (const auto& weak : lanes) {
    if (const std::shared_ptr<Request> lane = weak.lock()) lane->AddPayer(tenant);
  }
  if (job.valid()) env_.dispatcher.AddPayer(job, tenant);
}

bool Request::IsRaised() const {
  std::lock_guard lock(mutex_);
  return !raised_.empty();
}

void Request::LeaveFlight() {
  FlightTable::FlightPtr flight;
  FlightRider* rider = nullptr;
  Status why;
  {
    std::lock_guard lock(mutex_);
    std::tie(flight, rider) = std::exchange(boarded_, {});
    why = cancel_reason_;
  }
  if (flight != nullptr && env_.flights.Leave(flight, rider)) rider->OnLanded(why);
}

Task<Result<Tensors>> Request::RunShared(PlannedGraphPtr graph, Tensors inputs) {
  for (;;) {
    FlightAwaiter awaiter(*this, *graph, inputs);
    const TimePoint from = TraceFrom();
    co_await awaiter;
    if (awaiter.leads) {
      Result<Tensors> outputs = co_await RunGraph(graph, inputs, 0);
      EndLeading();
      env_.flights.Land(awaiter.flight, outputs);
      co_return outputs;
    }
    TraceSpan(TraceKind::kJoin, graph->options.name, "", from);
    const StatusCode code = awaiter.outputs.status().code();
    // The leader gave up for reasons of its own: that is no answer to anybody else.
    const bool leaders_own = code == StatusCode::kCancelled ||
                             code == StatusCode::kDeadlineExceeded ||
                             code == StatusCode::kResourceExhausted;
    if (!leaders_own) co_return std::move(awaiter.outputs);
    const Status alive = CheckAlive();
    if (!alive.ok()) co_return alive;
  }
}

Task<Result<Tensors>> Request::RunReused(PlannedGraphPtr graph, Tensors inputs) {
  ResultCache& results = env_.results;
  if (!results.enabled() || !attributes_.use_cache) {
    co_return co_await RunShared(std::move(graph), std::move(inputs));
  }
  ResultCache::Ask ask;
  ask.work = graph->id;
  ask.tenant = attributes_.tenant;
  ask.tenant_since = attributes_.tenant_since;
  ask.inputs = &inputs;
  const TimePoint from = env_.clock.Now();
  const uint64_t key = results.Key(ask);
  std::optional<Tensors> kept = results.Find(ask, key);
  cache_time_ += env_.clock.Now() - from;
  ++(kept ? cache_hits_ : cache_misses_);
  if (kept) co_return std::move(*kept);
  Result<Tensors> outputs = co_await RunShared(graph, inputs);
  if (!outputs.ok()) co_return outputs;
  const TimePoint keep_from = env_.clock.Now();
  results.Keep(ask, key, *outputs);
  cache_time_ += env_.clock.Now() - keep_from;
  co_return outputs;
}

Task<Result<Tensors>> Request::RunPath(RunPathPtr path, Tensors inputs) {
  std::vector<Tensors> made(path->calls.size());
  const auto value = [&](const PathValue& from) -> Result<Tensor> {
    if (from.from == PathValue::From::kConstant) return from.constant->Plain();
    return from.from == PathValue::From::kInput ? inputs[from.index] : made[from.call][from.index];
  };
  for (size_t i = 0; i < path->calls.size(); ++i) {
    const Status alive = CheckAlive();
    if (!alive.ok()) co_return alive;
    const RunCall& call = path->calls[i];
    Tensors arguments;
    for (const PathValue& from : call.inputs) {
      Result<Tensor> argument = value(from);
      if (!argument.ok()) co_return argument.status();
      arguments.push_back(std::move(*argument));
    }
    left_ = {path->After(i), spent_};
    const Duration before = spent_;
    Result<Tensors> outputs = Tensors();
    if (call.deterministic) {
      outputs = co_await RunReused(call.graph, std::move(arguments));
    } else {
      outputs = co_await RunGraph(call.graph, std::move(arguments), 0);
    }
    if (!outputs.ok()) co_return outputs.status();
    if (spent_ > before) path->Learn(i, spent_ - before);  // who rode along spent nothing
    made[i] = std::move(*outputs);
    for (const uint32_t read : call.drops) made[read].clear();
  }
  Tensors outputs;
  for (const PathValue& from : path->outputs) {
    Result<Tensor> output = value(from);
    if (!output.ok()) co_return output.status();
    outputs.push_back(std::move(*output));
  }
  co_return outputs;
}

}  // namespace plexus
