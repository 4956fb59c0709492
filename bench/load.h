// LoadDriver: requests to the models of one Runtime, from a schedule or from closed-loop clients.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/tensor.h"
#include "pipeline/runtime.h"

namespace plexus {

// Loads are described in JSON (bench/workers.py). An index of a model that is not there and the
// like are kInvalidArgument, before anything runs; a field that is missing throws. Belongs to one
// thread; its clients have their own.
class LoadDriver {
 public:
  explicit LoadDriver(Runtime& runtime) : runtime_(runtime) {}

  // The input that every request to `executable` brings, and what it must give (all outputs, one
  // after the other, f32); empty: not checked.
  void Prepare(const std::string& name, ExecutablePtr executable, std::vector<Tensor> inputs,
               std::vector<float> expected);
  void Forget(const std::string& name) { models_.erase(name); }

  // {models: [name], which: [index into models], arrivals_ms: [from now], tenants: [per request],
  //  deadlines_ms: [per model, after the arrival; optional]}
  // One request per arrival, whether or not the earlier ones are done; latency counts from the
  // scheduled arrival. -> {latency_ms, wall_ms, rel_err, late_ms, launches, joined, ...}; joined:
  // how often somebody was given what another one computed at the same time.
  Result<nlohmann::json> Replay(const nlohmann::json& command);

  // {models, seconds, clients: [{tenant, in_flight, which, think_ms}]}: each client keeps
  // `in_flight` requests going for that long, each slot on a thread of its own: think, ask, wait.
  // `which` and `think_ms` are taken in turn. A request begun is finished, but only what ends in
  // time counts. -> {clients: [{latency_ms, which, tenant_ms}], rel_err, wall_ms}
  Result<nlohmann::json> RunClients(const nlohmann::json& command);

 private:
  struct Model {
    ExecutablePtr executable;
    std::vector<Tensor> inputs;
    std::vector<float> expected;
  };
  struct Client;
  Result<std::vector<const Model*>> Models(const nlohmann::json& command) const;

  Runtime& runtime_;
  std::map<std::string, Model> models_;
  std::atomic<size_t> left_{0};  // requests of a replay not yet done
};

}  // namespace plexus
