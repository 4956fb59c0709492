// Workload files and presets.
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>

#include "device/packing.h"
#include "sched/batching.h"
#include "sched/fair_share.h"
#include "simulate/lower_onnx.h"
#include "simulate/presets.h"
#include "simulate/workload.h"
#include "yaml/yaml_reader.h"

namespace plexus {
namespace {

constexpr int64_t kMaxKernelRows = 100'000;

class FileReader {
 public:
  FileReader(std::string where, std::filesystem::path folder, std::string_view device)
      : where_(std::move(where)), folder_(std::move(folder)), device_(device) {}

  Result<Workload> Read(std::string_view text) {
    PLEXUS_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(text, where_));
    YamlMap map(root, where_);
    workload_.name = map.String("name", where_);
    workload_.jobs = Count(map, "jobs", 1000);
    workload_.seed = static_cast<uint64_t>(map.Int("seed", 1));
    PLEXUS_ASSIGN_OR_RETURN(workload_.device, SimGpuPreset("t4"));
    if (map.Has("device")) PLEXUS_RETURN_IF_ERROR(ReadDevice(map.Child("device")));
    if (!device_.empty()) {
      PLEXUS_ASSIGN_OR_RETURN(workload_.device, SimGpuPreset(device_));
    }
    workload_.system.name = map.String("system", workload_.system.name);
    workload_.system.policy =
        map.String("policy", workload_.system.name == "bounded" ? "srpt" : workload_.system.policy);
    if (map.Has("scheduler")) PLEXUS_RETURN_IF_ERROR(ReadScheduler(map.Child("scheduler")));
    if (map.Has("tenants")) PLEXUS_RETURN_IF_ERROR(ReadTenants(map.Child("tenants")));
    if (map.Has("segments")) PLEXUS_RETURN_IF_ERROR(ReadSegments(map.Child("segments")));
    const YAML::Node models = map.Child("models");
    if (!models.IsSequence() || models.size() == 0) map.Fail("models", "expected a list of models");
    for (const YAML::Node& model : models) PLEXUS_RETURN_IF_ERROR(ReadModel(model));
    if (map.Has("arrivals")) PLEXUS_RETURN_IF_ERROR(ReadArrivals(map.Child("arrivals")));
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    PLEXUS_RETURN_IF_ERROR(CheckWorkload(workload_).WithContext(where_));
    PLEXUS_RETURN_IF_ERROR(Prepare(&workload_));
    return std::move(workload_);
  }

 private:
  // A number of microseconds as a Duration; times that are too large stay at a year and fail the
  // check, negative ones fail here.
  static Duration Microseconds(YamlMap& map, const std::string& key, Duration fallback,
                               double unit_ns = 1000) {
    const double ns = map.Double(key, static_cast<double>(fallback.count()) / unit_ns) * unit_ns;
    if (ns < 0) map.Fail(key, "must not be negative");
    return Duration(static_cast<int64_t>(std::llround(std::min(std::max(ns, 0.0), 3e16))));
  }
  static Duration Milliseconds(YamlMap& map, const std::string& key, Duration fallback) {
    return Microseconds(map, key, fallback, 1e6);
  }
  static uint32_t Count(YamlMap& map, const std::string& key, uint32_t fallback,
                        uint32_t least = 1) {
    const int64_t value = map.Int(key, fallback);
    if (value < least || value > 1'000'000'000) {
      map.Fail(key, "must be between " + std::to_string(least) + " and 1000000000");
      return fallback;
    }
    return static_cast<uint32_t>(value);
  }

  Status ReadDevice(const YAML::Node& node) {
    YamlMap map(node, where_ + ": device");
    PLEXUS_ASSIGN_OR_RETURN(SimGpuOptions d, PresetOf(map));
    d.sms = Count(map, "sms", d.sms);
    d.queues = Count(map, "queues", d.queues);
    d.launch_latency = Microseconds(map, "launch_latency_us", d.launch_latency);
    d.kernel_gap = Microseconds(map, "kernel_gap_us", d.kernel_gap);
    d.notification_latency = Microseconds(map, "notification_latency_us", d.notification_latency);
    d.completion_latency = Microseconds(map, "completion_latency_us", d.completion_latency);
    d.notification_group = Count(map, "notification_group", d.notification_group);
    d.block_jitter = map.Double("jitter", d.block_jitter);
    workload_.device = d;
    return map.Finish();
  }
  Result<SimGpuOptions> PresetOf(YamlMap& map) {
    const std::string name = map.String("preset", "t4");
    Result<SimGpuOptions> preset = SimGpuPreset(name);
    if (preset.ok()) return preset;
    map.Fail("preset", preset.status().message());
    return map.Finish();
  }

  Status ReadScheduler(const YAML::Node& node) {
    YamlMap map(node, where_ + ": scheduler");
    SystemOptions& s = workload_.system;
    s.host.launch = Microseconds(map, "host_launch_us", s.host.launch);
    s.host.notification = Microseconds(map, "host_notification_us", s.host.notification);
    s.host.arrival = Microseconds(map, "host_arrival_us", s.host.arrival);
    s.streams = Count(map, "streams", s.streams);
    s.waiting_kernels = Count(map, "waiting_kernels", s.waiting_kernels);
    s.fairness_threshold = map.Double("fairness_threshold", s.fairness_threshold);
    s.in_flight = Count(map, "in_flight", s.in_flight);
    s.job_depth = Count(map, "job_depth", s.job_depth);
    s.quantum = Microseconds(map, "quantum_us", s.quantum);
    s.hardware_bound = Microseconds(map, "hardware_bound_us", s.hardware_bound);
    s.in_order = map.Bool("in_order", s.in_order);
    s.batching = map.String("batching", s.batching);
    s.max_batch = Count(map, "max_batch", s.max_batch);
    return map.Finish();
  }

  Status ReadTenants(const YAML::Node& node) {
    if (!node.IsSequence() || node.size() == 0) {
      return InvalidArgumentError(where_ + ": key 'tenants': expected a list of tenants");
    }
    workload_.tenants.clear();
    for (const YAML::Node& entry : node) {
      YamlMap map(entry, where_ + ": tenant");
      SimTenant tenant;
      tenant.name = map.String("name");
      tenant.weight = map.Double("weight", 1);
      if (const Status good = FairShare::CheckWeight(tenant.weight); !good.ok()) {
        map.Fail("weight", good.message());
      }
      PLEXUS_RETURN_IF_ERROR(map.Finish());
      workload_.tenants.push_back(std::move(tenant));
    }
    return OkStatus();
  }

  Status ReadModel(const YAML::Node& node) {
    YamlMap map(node, where_ + ": model");
    SimModel model;
    model.name = map.String("name");
    model.share = map.Double("share", 1);
    if (model.share <= 0) map.Fail("share", "must be greater than 0");
    model.deadline = Milliseconds(map, "deadline_ms", Duration{0});
    model.priority = Count(map, "priority", 0, 0);
    if (map.Has("tenant")) {
      const std::string tenant = map.String("tenant");
      while (model.tenant < workload_.tenants.size() &&
             workload_.tenants[model.tenant].name != tenant) {
        ++model.tenant;
      }
      if (model.tenant == workload_.tenants.size()) {
        map.Fail("tenant", "no tenant '" + tenant + "' in the list of tenants");
      }
    }
    if (map.Has("path")) {
      ReadPath(map, &model);
      workload_.models.push_back(std::move(model));
      return map.Finish();
    }
    PLEXUS_ASSIGN_OR_RETURN(const std::vector<ProgramPtr> programs, ReadWork(map, model.name, 1));
    model.program = programs[0];
    workload_.models.push_back(std::move(model));
    return map.Finish();
  }

  Status ReadSegments(const YAML::Node& node) {
    if (!node.IsSequence() || node.size() == 0) {
      return InvalidArgumentError(where_ + ": key 'segments': expected a list of segments");
    }
    for (const YAML::Node& entry : node) {
      YamlMap map(entry, where_ + ": segment");
      SimSegment segment;
      segment.name = map.String("name");
      for (const SimSegment& other : workload_.segments) {
        if (other.name == segment.name) map.Fail("name", "'" + segment.name + "' is there twice");
      }
      PLEXUS_ASSIGN_OR_RETURN(segment.programs, ReadWork(map, segment.name, BatchCurve::kMostRows));
      PLEXUS_RETURN_IF_ERROR(map.Finish());
      workload_.segments.push_back(std::move(segment));
    }
    return OkStatus();
  }

  void ReadPath(YamlMap& map, SimModel* model) {
    std::vector<ProgramPtr> programs;
    for (const std::string& name : map.Strings("path")) {
      uint32_t s = 0;
      while (s < workload_.segments.size() && workload_.segments[s].name != name) ++s;
      if (s == workload_.segments.size()) {
        return map.Fail("path", "no segment '" + name + "' in the list of segments");
      }
      model->path.push_back(s);
      programs.push_back(workload_.segments[s].programs[0]);
    }
    if (programs.empty()) return map.Fail("path", "expected a list of segments");
    model->program = ConcatPrograms(model->name, programs);
  }

  // What a model or a segment runs, for 1, 2, 4, ... rows.
  Result<std::vector<ProgramPtr>> ReadWork(YamlMap& map, const std::string& name,
                                           uint32_t max_rows) {
    const Duration service_time = Milliseconds(map, "service_time_ms", Duration{0});
    if (map.Has("onnx") == map.Has("kernels")) {
      map.Fail("needs one of 'onnx' and 'kernels'");
      return map.Finish();
    }
    std::vector<ProgramPtr> programs;
    if (map.Has("kernels")) {
      PLEXUS_ASSIGN_OR_RETURN(const ProgramPtr one, ReadKernels(map.Child("kernels"), name));
      std::optional<double> fixed;
      if (max_rows > 1 && map.Has("batch_fixed")) {
        fixed = map.Double("batch_fixed");
        if (!(*fixed >= 0 && *fixed <= 1)) map.Fail("batch_fixed", "must be between 0 and 1");
      }
      uint64_t largest = 1;
      for (const Kernel& kernel : one->kernels) largest = std::max<uint64_t>(largest, kernel.grid);
      for (uint32_t rows = 1; rows <= max_rows && largest * rows < UINT32_MAX; rows *= 2) {
        programs.push_back(rows == 1 ? one : RowsProgram(*one, rows, fixed));
      }
    } else {
      PLEXUS_ASSIGN_OR_RETURN(programs, ReadOnnx(map, name, max_rows));
    }
    if (service_time.count() > 0) {
      const Result<double> factor = ServiceTimeFactor(workload_.device, *programs[0], service_time);
      if (!factor.ok()) map.Fail("service_time_ms", factor.status().message());
      if (factor.ok()) {
        for (ProgramPtr& program : programs) program = ScaledProgram(*program, *factor);
      }
    }
    return programs;
  }

  Result<std::vector<ProgramPtr>> ReadOnnx(YamlMap& map, const std::string& name,
                                           uint32_t max_rows) {
    const std::string file = map.String("onnx");
    std::map<std::string, Shape> shapes;
    if (map.Has("shapes")) {
      const YAML::Node node = map.Child("shapes");
      YamlMap named(node, map.where() + " '" + name + "': shapes");
      for (const auto& entry : node) {
        const std::string input = entry.first.Scalar();
        shapes[input] = named.Ints(input);
        for (const int64_t size : shapes[input]) {
          if (size < 1 || size > 1 << 24) named.Fail(input, "sizes must be between 1 and 16777216");
        }
      }
      PLEXUS_RETURN_IF_ERROR(named.Finish());
    }
    Result<std::vector<ProgramPtr>> programs =
        LowerOnnxRows(folder_ / file, shapes, workload_.device, max_rows);
    if (!programs.ok()) return programs.status().WithContext(map.where() + " '" + name + "'");
    return programs;
  }

  Result<ProgramPtr> ReadKernels(const YAML::Node& node, const std::string& name) {
    const std::string where = where_ + ": model '" + name + "': kernel";
    std::vector<SimKernel> kernels;
    if (!node.IsSequence() || node.size() == 0) {
      return InvalidArgumentError(where + "s: expected a list of kernels");
    }
    for (const YAML::Node& row : node) {
      YamlMap map(row, where);
      SimKernel kernel;
      kernel.grid = Count(map, "grid", 1);
      const double us = map.Double("block_us");
      kernel.block_time = Microseconds(map, "block_us", kernel.block_time);
      if (us < 0.001) map.Fail("block_us", "must be at least 0.001");
      kernel.resources.threads = static_cast<int32_t>(Count(map, "threads", 128));
      kernel.resources.registers_per_thread = static_cast<int32_t>(Count(map, "registers", 32, 0));
      kernel.resources.shared_bytes = static_cast<int32_t>(Count(map, "shared_bytes", 0, 0));
      const uint32_t repeat = Count(map, "repeat", 1);
      if (kernels.size() + repeat > kMaxKernelRows) map.Fail("repeat", "too many kernels");
      PLEXUS_RETURN_IF_ERROR(map.Finish());
      CheckFits(map, kernel);
      PLEXUS_RETURN_IF_ERROR(map.Finish());
      kernels.insert(kernels.end(), repeat, kernel);
    }
    return ChainProgram(name, kernels);
  }
  void CheckFits(YamlMap& map, const SimKernel& kernel) {
    const UnitLimits& sm = workload_.device.sm;
    const std::string why = WhyNeverFits(sm, FootprintOf(sm, kernel.resources));
    if (!why.empty()) {
      map.Fail("grid", "a block fits no SM of " + workload_.device.name + ": " + why);
    }
  }

  Status ReadArrivals(const YAML::Node& node) {
    YamlMap map(node, where_ + ": arrivals");
    Arrivals& a = workload_.arrivals;
    const std::string kind = map.String("kind", "poisson");
    a.sigma = map.Double("sigma", kind == "lognormal" ? 1.5 : 1);
    a.mean_gap = Milliseconds(map, "mean_gap_ms", a.mean_gap);
    if (a.mean_gap.count() == 0) map.Fail("mean_gap_ms", "must be greater than 0");
    if (kind == "lognormal") {
      a.kind = Arrivals::Kind::kLognormal;
    } else if (kind == "poisson") {
      a.kind = Arrivals::Kind::kPoisson;
    } else if (kind == "at-once") {
      a.kind = Arrivals::Kind::kAtOnce;
    } else if (kind == "trace") {
      a.kind = Arrivals::Kind::kTrace;
      ReadTrace(map);
    } else {
      map.Fail("kind", "expected lognormal, poisson, at-once or trace, not '" + kind + "'");
    }
    return map.Finish();
  }
  // trace: {at_ms: [0, 1.5], model: [small, large]}
  void ReadTrace(YamlMap& map) {
    const YAML::Node trace = map.Child("trace");
    YamlMap columns(trace, map.where() + ": trace");
    const std::vector<std::string> times = columns.Strings("at_ms");
    const std::vector<std::string> names = columns.Strings("model");
    if (times.size() != names.size()) columns.Fail("at_ms", "must be as long as 'model'");
    if (Status status = columns.Finish(); !status.ok()) return map.Fail("trace", status.message());
    for (size_t i = 0; i < times.size(); ++i) {
      Arrivals::Entry entry;
      char* end = nullptr;
      const double ms = std::strtod(times[i].c_str(), &end);
      if (*end != '\0' || !(ms >= 0 && ms < 1e9)) return map.Fail("trace", "bad time " + times[i]);
      entry.at = Duration(static_cast<int64_t>(ms * 1e6));
      while (entry.model < workload_.models.size() &&
             workload_.models[entry.model].name != names[i]) {
        ++entry.model;
      }
      if (entry.model == workload_.models.size()) {
        return map.Fail("trace", "no model '" + names[i] + "'");
      }
      workload_.arrivals.trace.push_back(entry);
    }
    workload_.jobs = static_cast<uint32_t>(times.size());
  }

  const std::string where_;
  const std::filesystem::path folder_;
  const std::string device_;
  Workload workload_;
};

}  // namespace

Result<Workload> ParseWorkload(std::string_view yaml, const std::string& where,
                               const std::filesystem::path& folder, std::string_view device) {
  try {
    return FileReader(where, folder, device).Read(yaml);
  } catch (const YAML::Exception& e) {
    return InvalidArgumentError(where + ": " + e.what());
  }
}

Result<Workload> ReadWorkload(const std::filesystem::path& file, std::string_view device) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return NotFoundError(file.string() + ": cannot be read");
  std::stringstream text;
  text << in.rdbuf();
  return ParseWorkload(text.str(), file.string(), file.parent_path(), device);
}

std::vector<std::string> WorkloadPresetNames() {
  std::vector<std::string> names;
  for (const WorkloadPresetText& preset : kWorkloadPresets) names.emplace_back(preset.name);
  return names;
}

Result<Workload> WorkloadPreset(std::string_view name, std::string_view device) {
  std::string known;
  for (const WorkloadPresetText& preset : kWorkloadPresets) {
    if (name == preset.name) return ParseWorkload(preset.yaml, std::string(name), {}, device);
    known += (known.empty() ? "" : ", ") + std::string(preset.name);
  }
  return InvalidArgumentError("unknown preset '" + std::string(name) + "'; known: " + known);
}

}  // namespace plexus
