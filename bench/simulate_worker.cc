// Runs one workload many times: the experiments' way to the simulator without loading models anew.
//
//   plexus_bench_simulate WORKLOAD.yaml|preset:NAME
//
// First prints one JSON line about the models. Then every line on stdin is one run, a JSON object
// of what differs from the file: system, policy, jobs, seed, kind, sigma, mean_gap_ms, device
// {...}, scheduler {...}; each answered by one line, plexus::ReportToJson's or {"error": ...}.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "simulate/report.h"
#include "simulate/workload.h"

namespace plexus {
namespace {

using Json = nlohmann::json;

Duration FromUs(const Json& value) {
  return Duration(static_cast<int64_t>(value.get<double>() * 1000));
}

Json Describe(const Workload& workload) {
  Json out;
  out["device"] = workload.device.name;
  out["mean_alone_ms"] = static_cast<double>(MeanAloneTime(workload).count()) / 1e6;
  for (const SimModel& model : workload.models) {
    uint64_t blocks = 0;
    for (const Kernel& kernel : model.program->kernels) blocks += kernel.grid;
    out["models"].push_back({{"model", model.name},
                             {"share", model.share},
                             {"kernels", model.program->kernels.size()},
                             {"blocks", blocks},
                             {"alone_ms", static_cast<double>(model.alone_time.count()) / 1e6}});
  }
  return out;
}

void ApplyDevice(const Json& change, SimGpuOptions* d) {
  for (const auto& [key, value] : change.items()) {
    if (key == "queues") {
      d->queues = value;
    } else if (key == "launch_latency_us") {
      d->launch_latency = FromUs(value);
    } else if (key == "notification_latency_us") {
      d->notification_latency = FromUs(value);
    } else if (key == "completion_latency_us") {
      d->completion_latency = FromUs(value);
    } else if (key == "kernel_gap_us") {
      d->kernel_gap = FromUs(value);
    } else if (key == "jitter") {
      d->block_jitter = value;
    } else {
      throw std::invalid_argument("unknown device key " + key);
    }
  }
}

void ApplyScheduler(const Json& change, SystemOptions* s) {
  for (const auto& [key, value] : change.items()) {
    if (key == "waiting_kernels") {
      s->waiting_kernels = value;
    } else if (key == "fairness_threshold") {
      s->fairness_threshold = value;
    } else if (key == "in_flight") {
      s->in_flight = value;
    } else if (key == "job_depth") {
      s->job_depth = value;
    } else if (key == "quantum_us") {
      s->quantum = FromUs(value);
    } else if (key == "in_order") {
      s->in_order = value;
    } else if (key == "batching") {
      s->batching = value;
    } else if (key == "max_batch") {
      s->max_batch = value;
    } else if (key == "hardware_bound_us") {
      s->hardware_bound = FromUs(value);
    } else if (key == "host_launch_us") {
      s->host.launch = FromUs(value);
    } else if (key == "host_notification_us") {
      s->host.notification = FromUs(value);
    } else if (key == "host_arrival_us") {
      s->host.arrival = FromUs(value);
    } else {
      throw std::invalid_argument("unknown scheduler key " + key);
    }
  }
}

void Apply(const Json& change, Workload* w) {
  for (const auto& [key, value] : change.items()) {
    if (key == "system") {
      w->system.name = value;
    } else if (key == "policy") {
      w->system.policy = value;
    } else if (key == "jobs") {
      w->jobs = value;
    } else if (key == "seed") {
      w->seed = value;
    } else if (key == "kind") {
      const std::string kind = value;
      w->arrivals.kind = kind == "lognormal" ? Arrivals::Kind::kLognormal
                         : kind == "poisson" ? Arrivals::Kind::kPoisson
                                             : Arrivals::Kind::kAtOnce;
    } else if (key == "sigma") {
      w->arrivals.sigma = value;
    } else if (key == "mean_gap_ms") {
      w->arrivals.mean_gap = FromUs(value.get<double>() * 1000);
    } else if (key == "slo_scale") {  // deadlines as multiples of the time alone
      for (SimModel& model : w->models) {
        model.deadline =
            Duration(static_cast<int64_t>(value.get<double>() * model.alone_time.count()));
      }
    } else if (key == "device") {
      ApplyDevice(value, &w->device);
    } else if (key == "scheduler") {
      ApplyScheduler(value, &w->system);
    } else {
      throw std::invalid_argument("unknown key " + key);
    }
  }
}

// One run; throws what the JSON library throws.
std::string Answer(const Workload& base, const std::string& line) {
  Workload workload = base;
  Apply(Json::parse(line), &workload);
  const auto error = [](const Status& status) { return Json{{"error", status.message()}}.dump(); };
  // alone_time stays the frozen device's: slowdowns are against the same time in every run.
  if (const Status status = CheckWorkload(workload); !status.ok()) return error(status);
  const Result<SimulationResult> result = RunWorkload(workload, MakeArrivals(workload));
  if (!result.ok()) return error(result.status());
  return ReportToJson(workload, MakeReport(workload, *result));
}

int Main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: plexus_bench_simulate WORKLOAD.yaml|preset:NAME\n");
    return 2;
  }
  const std::string what = argv[1];
  const Result<Workload> workload =
      what.rfind("preset:", 0) == 0 ? WorkloadPreset(what.substr(7)) : ReadWorkload(what);
  if (!workload.ok()) {
    std::fprintf(stderr, "plexus_bench_simulate: %s\n", workload.status().message().c_str());
    return 1;
  }
  std::cout << Describe(*workload).dump() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer;
    try {
      answer = Answer(*workload, line);
    } catch (const std::exception& e) {
      answer = Json{{"error", e.what()}}.dump();
    }
    std::cout << answer << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) { return plexus::Main(argc, argv); }
