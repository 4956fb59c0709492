#include "simulate/workload.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "simulate/system.h"

namespace plexus {
namespace {

constexpr char kSmall[] = R"(
device: {preset: t4, queues: 4, jitter: 0.1}
system: paella
scheduler: {waiting_kernels: 3, host_launch_us: 1.5}
jobs: 50
seed: 7
tenants: [{name: a, weight: 2}, {name: b}]
arrivals: {kind: lognormal, sigma: 2, mean_gap_ms: 3}
models:
  - name: small
    share: 0.75
    tenant: b
    deadline_ms: 12
    kernels: [{grid: 4, block_us: 100, repeat: 2}, {grid: 80, block_us: 50, threads: 256}]
  - name: large
    share: 0.25
    service_time_ms: 8
    kernels: [{grid: 400, block_us: 100}]
)";

std::string ErrorOf(const std::string& yaml) {
  const Result<Workload> workload = ParseWorkload(yaml, "w.yaml", {});
  return workload.ok() ? "" : workload.status().message();
}

constexpr char kModel[] = "models: [{name: m, kernels: [{grid: 1, block_us: 5}]}]\n";

TEST(WorkloadTest, AFileSaysEverything) {
  const Result<Workload> read = ParseWorkload(kSmall, "w.yaml", {});
  ASSERT_TRUE(read.ok()) << read.status().message();
  const Workload& w = *read;
  EXPECT_EQ(w.device.queues, 4u);
  EXPECT_EQ(w.device.block_jitter, 0.1);
  EXPECT_EQ(w.system.name, "paella");
  EXPECT_EQ(w.system.waiting_kernels, 3u);
  EXPECT_EQ(w.system.host.launch, Duration(1500));
  EXPECT_EQ(w.jobs, 50u);
  EXPECT_EQ(w.seed, 7u);
  ASSERT_EQ(w.tenants.size(), 2u);
  EXPECT_EQ(w.tenants[0].weight, 2);
  EXPECT_EQ(w.arrivals.mean_gap, std::chrono::milliseconds(3));
  ASSERT_EQ(w.models.size(), 2u);
  EXPECT_EQ(w.models[0].tenant, 1u);
  EXPECT_EQ(w.models[0].deadline, std::chrono::milliseconds(12));
  ASSERT_EQ(w.models[0].program->kernels.size(), 3u);
  EXPECT_EQ(w.models[0].program->kernels[1].dependencies, 1u);
  EXPECT_EQ(w.models[0].program->kernels[2].grid, 80u);
}

TEST(WorkloadTest, ServiceTimeScalesTheModelAlone) {
  const Result<Workload> w = ParseWorkload(kSmall, "w.yaml", {});
  ASSERT_TRUE(w.ok()) << w.status().message();
  EXPECT_NEAR(static_cast<double>(w->models[1].alone_time.count()), 8e6, 8e4);
}

// A service time is a promise on whatever device there is.
TEST(WorkloadTest, AnotherDeviceTakesTheFilesPlaceBeforeModelsAreRead) {
  const Result<Workload> w = ParseWorkload(kSmall, "w.yaml", {}, "h100");
  ASSERT_TRUE(w.ok()) << w.status().message();
  EXPECT_EQ(w->device.name, "h100");
  EXPECT_EQ(w->device.sms, 132u);
  EXPECT_NEAR(static_cast<double>(w->models[1].alone_time.count()), 8e6, 8e4);
  EXPECT_NE(ParseWorkload(kSmall, "w.yaml", {}, "h101").status().message().find("unknown device"),
            std::string::npos);
}

TEST(WorkloadTest, WhatMakesNoSenseIsRefusedWithItsPlace) {
  const std::string model(kModel);
  const struct {
    std::string yaml, message;
  } cases[] = {
      {model + "jobs: 0", "w.yaml: line 2: key 'jobs': must be between 1 and"},
      {model + "system: magic", "unknown system 'magic'; known: one-stream"},
      {model + "policy: magic", "unknown policy 'magic'"},
      {model + "system: bounded\npolicy: rr", "unknown policy 'rr' for system 'bounded'"},
      {model + "device: {preset: t5}", "w.yaml: device: line 2: key 'preset': unknown device 't5'"},
      {model + "device: {jitter: .nan}", "line 2: key 'jitter': expected a finite number"},
      {model + "device: {queues: 5000}", "w.yaml: device"},
      {model + "tenants: [{name: a, weight: -1}]", "line 2: key 'weight': a tenant's weight is"},
      {model + "tenants: [{name: a, weight: 1e-9}]", "from 0.001 to 1000000"},
      {model + "policy: fair(srpt, nan)", "threshold is microseconds of device time, at least 0"},
      {model + "scheduler: {fairness_threshold: .nan}", "expected a finite number"},
      {model + "scheduler: {quantum_us: -1}", "must not be negative"},
      {model + "tenants: [{name: a, weight: .nan}]", "key 'weight': expected a finite number"},
      {model + "arrivals: {kind: poisson, mean_gap_ms: 0}", "key 'mean_gap_ms'"},
      {model + "arrivals: {kind: lognormal, sigma: -1}", "sigma must be between 0 and 5"},
      {model + "arrivals: {kind: sometimes}", "line 2: key 'kind': expected lognormal"},
      {model + "arrivals: {kind: trace, trace: {at_ms: [0, 1], model: [m]}}", "as long as"},
      {model + "arrivals: {kind: trace, trace: {at_ms: [1, 0], model: [m, m]}}", "order of time"},
      {model + "arrivals: {kind: trace, trace: {at_ms: [0], model: [x]}}", "no model 'x'"},
      {model + "scheduler: {waiting_kernels: 0}", "key 'waiting_kernels'"},
      {model + "speed: 3", "unknown key 'speed'"},
      {"jobs: 3", "key 'models': expected a list of models"},
      {"models: [{name: m}]", "needs one of 'onnx' and 'kernels'"},
      {"models: [{name: m, share: -2, kernels: [{grid: 1, block_us: 5}]}]", "key 'share'"},
      {"models: [{name: m, tenant: x, kernels: [{grid: 1, block_us: 5}]}]", "no tenant 'x'"},
      {"models: [{name: m, kernels: [{grid: 0, block_us: 5}]}]", "key 'grid'"},
      {"models: [{name: m, kernels: [{grid: 1, block_us: 0}]}]", "key 'block_us'"},
      {"models:\n- name: m\n  kernels:\n  - {grid: 1, block_us: 5, threads: 2048}",
       "w.yaml: model 'm': kernel: line 4: key 'grid': a block fits no SM of t4: needs 2048 "
       "threads"},
      {"models: [{name: m, kernels: [{grid: 1, block_us: 5, shared_bytes: 100000}]}]",
       "a block fits no SM of t4"},
      {"models: [{name: m, kernels: [{grid: 1, block_us: 5}]},"
       " {name: m, kernels: [{grid: 1, block_us: 5}]}]",
       "model 'm' is there twice"},
      {"models: [{name: m, service_time_ms: 0.001, kernels: [{grid: 1, block_us: 5}]}]",
       "its launches alone take"},
      {"models: [{name: m, onnx: none.onnx}]", "w.yaml: model 'm': none.onnx: "},
      {"models: [{name: m, onnx: none.onnx, shapes: {x: [0]}}]", "sizes must be between"},
      {"models: 3", "expected a list"},
      {"- 1", "expected a mapping"},
  };
  for (const auto& c : cases) {
    EXPECT_NE(ErrorOf(c.yaml).find(c.message), std::string::npos)
        << c.yaml << "\n gives: " << ErrorOf(c.yaml) << "\n not: " << c.message;
  }
  EXPECT_EQ(ErrorOf(model), "");
}

TEST(WorkloadTest, ChecksHoldForWorkloadsMadeInCode) {
  Workload w = ParseWorkload(kModel, "w.yaml", {}).value();
  EXPECT_TRUE(CheckWorkload(w).ok());
  w.tenants[0].weight = std::nan("");
  EXPECT_FALSE(CheckWorkload(w).ok());
  w.tenants[0].weight = 1;
  w.models[0].share = std::nan("");
  EXPECT_FALSE(CheckWorkload(w).ok());
  w.models[0].share = 1;
  w.system.fairness_threshold = std::nan("");
  EXPECT_FALSE(CheckWorkload(w).ok());
}

TEST(WorkloadTest, ArrivalsComeFromTheSeedAlone) {
  Workload w = ParseWorkload(kSmall, "w.yaml", {}).value();
  w.jobs = 2000;
  const std::vector<Arrival> once = MakeArrivals(w);
  for (const std::string& system : SystemNames()) {
    w.system.name = system;
    const std::vector<Arrival> again = MakeArrivals(w);
    ASSERT_EQ(again.size(), once.size());
    for (size_t i = 0; i < once.size(); ++i) {
      ASSERT_EQ(again[i].at, once[i].at);
      ASSERT_EQ(again[i].model, once[i].model);
    }
  }
  w.seed = 8;
  EXPECT_NE(MakeArrivals(w)[0].at, once[0].at);
}

TEST(WorkloadTest, ArrivalsHaveTheirMeanGapAndMix) {
  Workload w = ParseWorkload(kSmall, "w.yaml", {}).value();
  w.jobs = 50000;
  for (const Arrivals::Kind kind : {Arrivals::Kind::kLognormal, Arrivals::Kind::kPoisson}) {
    w.arrivals.kind = kind;
    w.arrivals.sigma = 1.5;
    const std::vector<Arrival> arrivals = MakeArrivals(w);
    double small = 0;
    for (const Arrival& a : arrivals) small += a.model == 0 ? 1 : 0;
    EXPECT_NEAR(small / w.jobs, 0.75, 0.01);
    const double span_ms = static_cast<double>(arrivals.back().at.time_since_epoch().count()) / 1e6;
    EXPECT_NEAR(span_ms / w.jobs, 3, 0.15);
  }
  w.arrivals.kind = Arrivals::Kind::kAtOnce;
  EXPECT_EQ(MakeArrivals(w).back().at, TimePoint{});
}

TEST(WorkloadTest, AnOnnxFileBecomesKernelsOfTheDevice) {
  const auto read = [](const std::string& more) {
    return ParseWorkload("models: [{name: m, onnx: functions.onnx" + more + "}]", "w.yaml",
                         "graph/onnx/testdata");
  };
  const Result<Workload> workload = read("");
  ASSERT_TRUE(workload.ok()) << workload.status().message();
  EXPECT_GT(workload->models[0].program->kernels.size(), 0u);
  EXPECT_EQ(workload->models[0].program->device_kind, "sim");
  EXPECT_NE(read(", shapes: {nothing: [1]}").status().message().find("no input 'nothing'"),
            std::string::npos);
  EXPECT_NE(read(", shapes: 3").status().message().find("expected a mapping"), std::string::npos);
}

TEST(WorkloadTest, AnOnnxFileRunsAtTheServiceTimeThatIsGiven) {
  Result<Workload> read = ParseWorkload(
      "jobs: 5\narrivals: {kind: at-once}\n"
      "models: [{name: m, onnx: functions.onnx, service_time_ms: 1.5}]",
      "w.yaml", "graph/onnx/testdata");
  ASSERT_TRUE(read.ok()) << read.status().message();
  const Program& program = *read->models[0].program;
  EXPECT_NEAR(static_cast<double>(read->models[0].alone_time.count()), 1.5e6, 1.5e4);
  uint64_t blocks = 0;
  for (const Kernel& kernel : program.kernels) blocks += kernel.grid;
  for (const std::string& system : SystemNames()) {
    read->system.name = system;
    read->system.policy = "srpt";
    const Result<SimulationResult> result = RunWorkload(*read, MakeArrivals(*read));
    ASSERT_TRUE(result.ok()) << system << ": " << result.status().message();
    EXPECT_EQ(result->blocks, 5 * blocks) << system;
    EXPECT_GE(result->end.time_since_epoch(), std::chrono::microseconds(1400)) << system;
  }
}

TEST(WorkloadTest, EveryExampleIsReadable) {
  size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator("examples/workloads")) {
    const Result<Workload> workload = ReadWorkload(file.path());
    EXPECT_TRUE(workload.ok()) << workload.status().message();
    ++files;
  }
  EXPECT_GE(files, 2u);
}

TEST(WorkloadTest, EveryPresetIsReadable) {
  for (const std::string& name : WorkloadPresetNames()) {
    const Result<Workload> preset = WorkloadPreset(name);
    EXPECT_TRUE(preset.ok()) << name << ": " << preset.status().message();
  }
  EXPECT_EQ(WorkloadPreset("none").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
