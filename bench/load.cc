#include "bench/load.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

namespace plexus {
namespace {

using Json = nlohmann::json;

double Milliseconds(Duration d) { return static_cast<double>(d.count()) * 1e-6; }
Duration FromMilliseconds(double ms) { return Duration(static_cast<int64_t>(ms * 1e6)); }

void SleepUntil(const Clock& clock, TimePoint at) {
  for (Duration left = at - clock.Now(); left > Duration{0}; left = at - clock.Now()) {
    std::this_thread::sleep_for(left);
  }
}

// Largest difference over the largest magnitude; infinite where sizes or types differ.
double RelativeError(const std::vector<float>& expected, const std::vector<Tensor>& outputs) {
  constexpr double kWrong = std::numeric_limits<double>::infinity();
  double scale = 1e-30, worst = 0;
  size_t at = 0;
  for (const Tensor& output : outputs) {
    if (output.dtype() != DType::kFloat32) return kWrong;
    for (const float value : output.data<float>()) {
      if (at == expected.size() || !std::isfinite(value)) return kWrong;
      scale = std::max(scale, std::abs(double{expected[at]}));
      worst = std::max(worst, std::abs(double{value} - expected[at]));
      ++at;
    }
  }
  return at == expected.size() ? worst / scale : kWrong;
}

// How one request went; written by the thread that finished it.
struct Outcome {
  TimePoint due{}, started{}, done{};
  double error = 0;
  Status status;
};

Status CheckIndices(const std::vector<size_t>& which, size_t models) {
  for (const size_t index : which) {
    if (index >= models) {
      return InvalidArgumentError("which: there is no model " + std::to_string(index));
    }
  }
  return OkStatus();
}

Json Finite(double error) { return std::isfinite(error) ? Json(error) : Json(1e9); }

}  // namespace

void LoadDriver::Prepare(const std::string& name, ExecutablePtr executable,
                         std::vector<Tensor> inputs, std::vector<float> expected) {
  models_[name] = {std::move(executable), std::move(inputs), std::move(expected)};
}

Result<std::vector<const LoadDriver::Model*>> LoadDriver::Models(const Json& command) const {
  std::vector<const Model*> models;
  for (const Json& name : command.at("models")) {
    const auto found = models_.find(name.get<std::string>());
    if (found == models_.end()) {
      return NotFoundError("model " + name.get<std::string>() + " is not prepared");
    }
    models.push_back(&found->second);
  }
  return models;
}

Result<Json> LoadDriver::Replay(const Json& command) {
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<const Model*> models, Models(command));
  const auto which = command.at("which").get<std::vector<size_t>>();
  const auto arrivals = command.at("arrivals_ms").get<std::vector<double>>();
  const auto tenants = command.at("tenants").get<std::vector<uint32_t>>();
  if (which.size() != arrivals.size() || tenants.size() != arrivals.size()) {
    return InvalidArgumentError("which, arrivals_ms and tenants differ in length");
  }
  PLEXUS_RETURN_IF_ERROR(CheckIndices(which, models.size()));
  std::vector<double> deadlines;
  if (command.contains("deadlines_ms")) {
    deadlines = command.at("deadlines_ms").get<std::vector<double>>();
    if (deadlines.size() != models.size()) {
      return InvalidArgumentError("deadlines_ms and models differ in length");
    }
  }
  const Clock& clock = runtime_.clock();
  const Runtime::SharingStats shared_before = runtime_.sharing_stats();
  const DispatcherStats before = runtime_.dispatcher().stats();
  std::vector<Outcome> outcomes(which.size());
  left_ = which.size();
  const TimePoint begin = clock.Now();
  for (size_t i = 0; i < which.size(); ++i) {
    const Model& model = *models.at(which[i]);
    Outcome& outcome = outcomes[i];
    outcome.due = begin + FromMilliseconds(arrivals[i]);
    SleepUntil(clock, outcome.due);
    outcome.started = clock.Now();
    RequestAttributes attributes;
    attributes.arrival = outcome.due;
    attributes.tenant = TenantId(tenants[i]);
    if (!deadlines.empty()) {
      attributes.deadline = outcome.due + FromMilliseconds(deadlines.at(which[i]));
    }
    runtime_.Start(model.executable, model.inputs, attributes, [&](RunResult result) {
      outcome.done = clock.Now();
      outcome.status = std::move(result.status);
      if (!model.expected.empty()) outcome.error = RelativeError(model.expected, result.outputs);
      // Release: the outcome is written before it counts.
      if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_all();
    });
  }
  for (size_t now = left_.load(); now > 0; now = left_.load()) left_.wait(now);

  Json latency = Json::array(), late = Json::array();
  TimePoint end = begin;
  double error = 0;
  for (const Outcome& outcome : outcomes) {
    PLEXUS_RETURN_IF_ERROR(outcome.status);
    latency.push_back(Milliseconds(outcome.done - outcome.due));
    late.push_back(Milliseconds(outcome.started - outcome.due));
    error = std::max(error, outcome.error);
    end = std::max(end, outcome.done);
  }
  const DispatcherStats after = runtime_.dispatcher().stats();
  const Runtime::SharingStats shared = runtime_.sharing_stats();
  return Json{{"latency_ms", latency},
              {"joined", shared.joined - shared_before.joined},
              {"batches", shared.batches - shared_before.batches},
              {"batched_rows", shared.batched_rows - shared_before.batched_rows},
              {"late_ms", late},
              {"wall_ms", Milliseconds(end - begin)},
              {"rel_err", Finite(error)},
              {"busy_ms", Milliseconds(after.busy - before.busy)},
              {"launches", after.launches - before.launches},
              {"preemptions", after.preemptions - before.preemptions}};
}

// One slot of a closed-loop client.
struct LoadDriver::Client {
  uint32_t tenant = 0;
  std::vector<size_t> which;
  std::vector<double> think_ms;
  size_t first = 0, step = 1;  // this slot's part of `which` and `think_ms`
  std::vector<std::pair<size_t, Outcome>> outcomes;
  std::atomic<bool> finished{false};

  void Run(Runtime& runtime, const std::vector<const Model*>& models, TimePoint until) {
    const Clock& clock = runtime.clock();
    for (size_t i = first;; i += step) {
      const double think = think_ms.empty() ? 0 : think_ms[i % think_ms.size()];
      SleepUntil(clock, std::min(until, clock.Now() + FromMilliseconds(think)));
      if (clock.Now() >= until) return;
      const size_t index = which[i % which.size()];
      const Model& model = *models.at(index);
      Outcome outcome;
      finished.store(false, std::memory_order_relaxed);  // Start publishes it
      RequestAttributes attributes;
      attributes.tenant = TenantId(tenant);
      attributes.arrival = outcome.due = outcome.started = clock.Now();
      runtime.Start(model.executable, model.inputs, attributes, [&](RunResult result) {
        outcome.done = clock.Now();
        outcome.status = std::move(result.status);
        if (!model.expected.empty()) outcome.error = RelativeError(model.expected, result.outputs);
        finished.store(true, std::memory_order_release);  // publishes outcome
        finished.notify_one();
      });
      finished.wait(false, std::memory_order_acquire);
      outcomes.emplace_back(index, std::move(outcome));
    }
  }
};

Result<Json> LoadDriver::RunClients(const Json& command) {
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<const Model*> models, Models(command));
  std::deque<Client> slots;
  std::vector<std::pair<size_t, size_t>> ranges;  // of slots, per client
  for (const Json& spec : command.at("clients")) {
    const size_t in_flight = spec.at("in_flight").get<size_t>();
    ranges.emplace_back(slots.size(), slots.size() + in_flight);
    for (size_t i = 0; i < in_flight; ++i) {
      Client& client = slots.emplace_back();
      client.tenant = spec.at("tenant").get<uint32_t>();
      client.which = spec.at("which").get<std::vector<size_t>>();
      client.think_ms = spec.at("think_ms").get<std::vector<double>>();
      client.first = i;
      client.step = in_flight;
      if (client.which.empty()) return InvalidArgumentError("client without requests");
      PLEXUS_RETURN_IF_ERROR(CheckIndices(client.which, models.size()));
    }
    if (in_flight == 0) return InvalidArgumentError("client with nothing in flight");
  }
  const Clock& clock = runtime_.clock();
  const TimePoint begin = clock.Now();
  const TimePoint end = begin + FromMilliseconds(command.at("seconds").get<double>() * 1e3);
  std::vector<std::thread> threads;
  threads.reserve(slots.size());
  for (Client& slot : slots) {
    threads.emplace_back([&] { slot.Run(runtime_, models, end); });
  }
  const auto tenant_ms = [&](uint32_t tenant) {
    return Milliseconds(runtime_.dispatcher().tenant_stats(TenantId(tenant)).time);
  };
  // Device time counts while everybody is at it: neither the start nor the end.
  SleepUntil(clock, begin + (end - begin) / 10);
  std::vector<double> time_before, time_after;
  for (const auto& [from, to] : ranges) time_before.push_back(tenant_ms(slots[from].tenant));
  SleepUntil(clock, end);
  for (const auto& [from, to] : ranges) time_after.push_back(tenant_ms(slots[from].tenant));
  for (std::thread& thread : threads) thread.join();

  Json clients = Json::array();
  double error = 0;
  for (size_t c = 0; c < ranges.size(); ++c) {
    Json latency = Json::array(), which = Json::array();
    for (size_t s = ranges[c].first; s < ranges[c].second; ++s) {
      for (const auto& [index, outcome] : slots[s].outcomes) {
        PLEXUS_RETURN_IF_ERROR(outcome.status);
        error = std::max(error, outcome.error);
        if (outcome.done > end) continue;
        latency.push_back(Milliseconds(outcome.done - outcome.due));
        which.push_back(index);
      }
    }
    clients.push_back(
        {{"latency_ms", latency}, {"which", which}, {"tenant_ms", time_after[c] - time_before[c]}});
  }
  return Json{{"clients", clients},
              {"rel_err", Finite(error)},
              {"wall_ms", Milliseconds(clock.Now() - begin)}};
}

}  // namespace plexus
