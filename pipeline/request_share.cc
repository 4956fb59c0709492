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
  uint64_t number = 0;  // of the flight, where it leads
  bool leads = false;
  Result<Tensors> outputs = Tensors();
  Duration took{0};
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
    ask.flight = number = self->BeginLeading();
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
    self->EndLeading(ask.flight);
    {
      std::lock_guard lock(self->mutex_);
      if (wait == self->waits_) self->boarded_ = {joined, rider};
    }
    if (self->cancelled()) self->LeaveFlight();
    return true;
  }
  void await_resume() {}

  void OnLanded(const Result<Tensors>& landed, Duration work) override {
    outputs = landed;
    took = work;
    handle.resume();
  }
};

uint64_t Request::BeginWait() {
  std::lock_guard lock(mutex_);
  return ++waits_;
}

uint64_t Request::BeginLeading() {
  std::lock_guard lock(mutex_);
  leading_.push_back(++flights_led_);
  return flights_led_;
}

void Request::EndLeading(uint64_t flight) {
  std::lock_guard lock(mutex_);
  std::erase(leading_, flight);
  std::erase_if(raised_, [&](const Raised& each) { return each.flight == flight; });
  std::erase_if(payers_, [&](const Payer& each) { return each.flight == flight; });
}

std::optional<std::vector<std::shared_ptr<Request>>> Request::LanesFor(uint64_t flight) const {
  size_t outside = 0;
  if (flight != 0) {
    const auto led = std::find(leading_.begin(), leading_.end(), flight);
    if (led == leading_.end()) return std::nullopt;
    outside = static_cast<size_t>(led - leading_.begin()) + 1;
  }
  // Lanes beside it are about other elements.
  std::vector<std::shared_ptr<Request>> lanes;
  for (const Lane& each : lanes_) {
    if (each.inside < outside) continue;
    if (std::shared_ptr<Request> lane = each.request.lock()) lanes.push_back(std::move(lane));
  }
  return lanes;
}

// This job and those after it, until the flight lands.
void Request::Raise(uint64_t flight, const Urgency& urgency) {
  JobId job;
  std::optional<std::vector<std::shared_ptr<Request>>> lanes;
  decltype(riding_) riding;
  {
    std::lock_guard lock(mutex_);
    lanes = LanesFor(flight);
    if (!lanes) return;
    const auto same = std::find_if(raised_.begin(), raised_.end(), [&](const Raised& each) {
      return each.flight == flight && each.urgency.priority == urgency.priority;
    });
    if (same == raised_.end()) {
      if (raised_.size() >= kMaxRaised) return;
      raised_.push_back({flight, urgency});
    } else if (urgency.deadline) {
      std::optional<TimePoint>& deadline = same->urgency.deadline;
      deadline = std::min(deadline.value_or(TimePoint::max()), *urgency.deadline);
    }
    job = job_;
    riding = riding_;
  }
  for (const auto& lane : *lanes) lane->Raise(0, urgency);
  if (job.valid()) env_.dispatcher.Raise(job, urgency);
  if (riding.first != nullptr) riding.first->Raise(*riding.second, urgency);
}

// For this job and those after it, until the flight lands.
void Request::AddPayer(uint64_t flight, TenantId tenant) {
  JobId job;
  std::optional<std::vector<std::shared_ptr<Request>>> lanes;
  {
    std::lock_guard lock(mutex_);
    lanes = LanesFor(flight);
    if (!lanes) return;
    const bool known = std::any_of(payers_.begin(), payers_.end(), [&](const Payer& each) {
      return each.flight == flight && each.tenant == tenant;
    });
    if (known) return;
    payers_.push_back({flight, tenant});
    job = job_;
  }
  for (const auto& lane : *lanes) lane->AddPayer(0, tenant);
  if (job.valid()) env_.dispatcher.AddPayer(job, tenant);
}

std::vector<TenantId> Request::Payers() const {
  std::vector<TenantId> tenants;
  for (const Payer& each : payers_) {
    if (std::find(tenants.begin(), tenants.end(), each.tenant) == tenants.end()) {
      tenants.push_back(each.tenant);
    }
  }
  return tenants;
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
  if (flight != nullptr && env_.flights.Leave(flight, rider)) {
    rider->OnLanded(why, Duration{0});
  }
}

Task<Result<Tensors>> Request::RunShared(PlannedGraphPtr graph, Tensors inputs, int depth) {
  for (;;) {
    FlightAwaiter awaiter(*this, *graph, inputs);
    const TimePoint from = TraceFrom();
    co_await awaiter;
    if (awaiter.leads) {
      const Duration before = spent_;
      Result<Tensors> outputs = co_await RunGraph(graph, inputs, depth);
      EndLeading(awaiter.number);
      env_.flights.Land(awaiter.flight, outputs, spent_ - before);
      co_return outputs;
    }
    spent_ += awaiter.took;
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

Task<Result<Tensors>> Request::RunPath(RunPathPtr path, Tensors inputs, int depth) {
  std::vector<Tensors> made(path->calls.size());
  const auto value = [&](const PathValue& from) -> Result<Tensor> {
    if (from.from == PathValue::From::kConstant) return from.constant->Plain();
    return from.from == PathValue::From::kInput ? inputs[from.index] : made[from.call][from.index];
  };
  const RunCall* const outside = call_;
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
    if (depth == 0) left_ = {path->After(i), spent_};  // in a body it is part of what is left
    const Duration before = spent_;
    call_ = &call;
    Result<Tensors> outputs = Tensors();
    if (call.deterministic && depth == 0) {
      outputs = co_await RunReused(call.graph, std::move(arguments));
    } else if (call.shared && path->IsWorthJoining(i)) {
      outputs = co_await RunShared(call.graph, std::move(arguments), depth);
    } else {
      outputs = co_await RunGraph(call.graph, std::move(arguments), depth);
    }
    call_ = outside;
    if (!outputs.ok()) co_return outputs.status();
    if (spent_ > before) path->Learn(i, spent_ - before);  // kept results took nothing
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

Task<Result<Tensors>> Request::RunBody(PlannedGraphPtr body, Tensors inputs, int depth) {
  if (call_ != nullptr) {
    for (const auto& [source, path] : call_->bodies) {
      if (source == body->source.get() && path->IsWorthJoining()) {
        return RunPath(path, std::move(inputs), depth);
      }
    }
  }
  return RunGraph(std::move(body), std::move(inputs), depth);
}

}  // namespace plexus
