#include "simulate/workload.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/hash.h"
#include "device/packing.h"
#include "sched/batching.h"
#include "sched/fair_share.h"
#include "sched/policy.h"
#include "simulate/system.h"

namespace plexus {
namespace {

constexpr uint32_t kMaxJobs = 10'000'000;
constexpr size_t kMaxKernels = (1 << 20) - 1;  // direct_run.h's tags
constexpr Duration kMaxTime = std::chrono::hours(1);

std::string Joined(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

bool Positive(double value) { return std::isfinite(value) && value > 0; }

Status CheckProgram(const Workload& workload, const Program& program, const std::string& what) {
  const auto error = [&](const std::string& why) {
    return InvalidArgumentError(what + ": " + why);
  };
  if (program.kernels.size() > kMaxKernels) return error("too many kernels");
  PLEXUS_RETURN_IF_ERROR(ValidateProgram(program).WithContext(what));
  for (const Kernel& kernel : program.kernels) {
    const std::string why =
        WhyNeverFits(workload.device.sm, FootprintOf(workload.device.sm, kernel.resources));
    if (!why.empty()) {
      return error("kernel " + kernel.name + ": a block fits no SM of " + workload.device.name +
                   ": " + why);
    }
    if (kernel.estimated_block_time > kMaxTime) {
      return error("kernel " + kernel.name + ": a block of more than an hour");
    }
  }
  return OkStatus();
}

Status CheckModel(const Workload& workload, const SimModel& model) {
  const auto error = [&](const std::string& what) {
    return InvalidArgumentError("model '" + model.name + "': " + what);
  };
  if (!Positive(model.share)) return error("share must be greater than 0");
  if (model.tenant >= workload.tenants.size()) return error("unknown tenant");
  if (model.deadline < Duration{0}) return error("deadline must not be negative");
  if (model.program == nullptr || model.program->kernels.empty()) return error("no kernels");
  for (const uint32_t segment : model.path) {
    if (segment >= workload.segments.size()) return error("unknown segment in its path");
  }
  return CheckProgram(workload, *model.program, "model '" + model.name + "'");
}

Status CheckArrivals(const Workload& workload) {
  const Arrivals& a = workload.arrivals;
  if (a.kind == Arrivals::Kind::kLognormal &&
      !(std::isfinite(a.sigma) && a.sigma >= 0 && a.sigma <= 5)) {
    return InvalidArgumentError("arrivals: sigma must be between 0 and 5");
  }
  if (a.mean_gap <= Duration{0} || a.mean_gap > kMaxTime) {
    return InvalidArgumentError("arrivals: the mean gap must be greater than 0, at most an hour");
  }
  if (a.kind == Arrivals::Kind::kTrace) {
    if (a.trace.size() != workload.jobs) {
      return InvalidArgumentError("arrivals: the trace must name every job");
    }
    for (size_t i = 0; i < a.trace.size(); ++i) {
      if (a.trace[i].model >= workload.models.size()) {
        return InvalidArgumentError("arrivals: the trace names an unknown model");
      }
      if (a.trace[i].at < (i > 0 ? a.trace[i - 1].at : Duration{0})) {
        return InvalidArgumentError("arrivals: the trace must be in order of time, from 0 on");
      }
    }
  }
  return OkStatus();
}

Status CheckSystem(const SystemOptions& system) {
  const std::vector<std::string> names = SystemNames();
  if (std::find(names.begin(), names.end(), system.name) == names.end()) {
    return InvalidArgumentError("unknown system '" + system.name + "'; known: " + Joined(names));
  }
  if (system.name == "bounded" && system.policy != "srpt" && system.policy != "edf") {
    return InvalidArgumentError("unknown policy '" + system.policy +
                                "' for system 'bounded'; known: srpt, edf");
  }
  if (system.name == "plexus") PLEXUS_RETURN_IF_ERROR(MakePolicy(system.policy).status());
  PLEXUS_RETURN_IF_ERROR(MakeBatchPolicy(system.batching).status());
  if (system.max_batch < 1 || system.max_batch > BatchCurve::kMostRows) {
    return InvalidArgumentError("max_batch must be between 1 and " +
                                std::to_string(BatchCurve::kMostRows));
  }
  for (const Duration cost : {system.host.launch, system.host.notification, system.host.arrival}) {
    if (cost < Duration{0} || cost > kMaxTime) {
      return InvalidArgumentError("host costs must be between 0 and an hour");
    }
  }
  if (system.streams == 0 || system.streams > 100'000 || system.in_flight == 0 ||
      system.job_depth == 0) {
    return InvalidArgumentError("streams, in_flight and job_depth must be at least 1");
  }
  // B = 0 would never start a grid that is larger than the device.
  if (system.waiting_kernels == 0) {
    return InvalidArgumentError("waiting_kernels must be at least 1");
  }
  if (std::isnan(system.fairness_threshold) || system.fairness_threshold < 0) {
    return InvalidArgumentError("fairness_threshold must be at least 0");
  }
  if (system.quantum <= Duration{0} || system.hardware_bound < Duration{0}) {
    return InvalidArgumentError("quantum must be greater than 0, hardware_bound at least 0");
  }
  return OkStatus();
}

}  // namespace

Status CheckWorkload(const Workload& workload) {
  ManualClock clock;
  PLEXUS_RETURN_IF_ERROR(
      SimGpu::Create(workload.device, clock, nullptr).status().WithContext("device"));
  if (workload.jobs == 0 || workload.jobs > kMaxJobs) {
    return InvalidArgumentError("jobs must be between 1 and " + std::to_string(kMaxJobs));
  }
  std::set<std::string> names;
  for (const SimTenant& tenant : workload.tenants) {
    PLEXUS_RETURN_IF_ERROR(
        FairShare::CheckWeight(tenant.weight).WithContext("tenant '" + tenant.name + "'"));
    if (!names.insert(tenant.name).second) {
      return InvalidArgumentError("tenant '" + tenant.name + "' is there twice");
    }
  }
  if (workload.models.empty()) return InvalidArgumentError("a workload needs at least one model");
  for (const SimSegment& segment : workload.segments) {
    const std::string what = "segment '" + segment.name + "'";
    if (segment.programs.empty()) return InvalidArgumentError(what + ": no kernels");
    for (const ProgramPtr& program : segment.programs) {
      if (program == nullptr || program->kernels.empty()) {
        return InvalidArgumentError(what + ": no kernels");
      }
      PLEXUS_RETURN_IF_ERROR(CheckProgram(workload, *program, what));
    }
  }
  names.clear();
  for (const SimModel& model : workload.models) {
    PLEXUS_RETURN_IF_ERROR(CheckModel(workload, model));
    if (!names.insert(model.name).second) {
      return InvalidArgumentError("model '" + model.name + "' is there twice");
    }
  }
  PLEXUS_RETURN_IF_ERROR(CheckArrivals(workload));
  return CheckSystem(workload.system);
}

ProgramPtr ChainProgram(const std::string& name, const std::vector<SimKernel>& kernels) {
  auto program = std::make_shared<Program>();
  program->name = name;
  program->device_kind = "sim";
  ContentHasher hasher;
  hasher.UpdateString(name);
  for (const SimKernel& spec : kernels) {
    Kernel kernel;
    kernel.name = "k" + std::to_string(program->kernels.size());
    kernel.grid = spec.grid;
    kernel.estimated_block_time = spec.block_time;
    kernel.resources = spec.resources;
    if (!program->kernels.empty()) {
      kernel.dependencies = 1;
      program->kernels.back().successors = {
          KernelId(static_cast<uint32_t>(program->kernels.size()))};
    }
    program->kernels.push_back(std::move(kernel));
  }
  program->signature = hasher.Finish();
  return program;
}

ProgramPtr InOrderProgram(const Program& program) {
  auto chain = std::make_shared<Program>(program);
  for (uint32_t k = 0; k < chain->kernels.size(); ++k) {
    Kernel& kernel = chain->kernels[k];
    kernel.dependencies = k > 0 ? 1 : 0;
    kernel.successors.clear();
    if (k + 1 < chain->kernels.size()) kernel.successors = {KernelId(k + 1)};
  }
  return chain;
}

ProgramPtr ConcatPrograms(const std::string& name, const std::vector<ProgramPtr>& programs) {
  auto all = std::make_shared<Program>();
  all->name = name;
  all->device_kind = "sim";
  ContentHasher hasher;
  hasher.UpdateString(name);
  std::vector<uint32_t> last;  // kernels that nothing of the part before waits for
  for (const ProgramPtr& part : programs) {
    const auto first = static_cast<uint32_t>(all->kernels.size());
    std::vector<uint32_t> ends, begins;
    for (Kernel kernel : part->kernels) {
      const auto at = static_cast<uint32_t>(all->kernels.size());
      if (kernel.dependencies == 0) begins.push_back(at);
      if (kernel.successors.empty()) ends.push_back(at);
      for (KernelId& next : kernel.successors) next = KernelId(next.value() + first);
      all->kernels.push_back(std::move(kernel));
    }
    for (const uint32_t before : last) {
      for (const uint32_t after : begins)
        all->kernels[before].successors.push_back(KernelId(after));
    }
    for (const uint32_t after : begins) {
      all->kernels[after].dependencies = static_cast<uint32_t>(last.size());
    }
    last = std::move(ends);
  }
  all->signature = hasher.Finish();
  return all;
}

ProgramPtr RowsProgram(const Program& program, uint32_t rows, std::optional<double> fixed) {
  const ProgramPtr scaled =
      fixed ? ScaledProgram(program, *fixed + (1 - *fixed) * rows) : ScaledProgram(program, 1);
  auto several = std::make_shared<Program>(*scaled);
  several->name += " x" + std::to_string(rows);
  ContentHasher hasher;
  hasher.UpdateString(several->name);
  several->signature = hasher.Finish();
  for (Kernel& kernel : several->kernels) kernel.grid *= fixed ? 1 : rows;
  return several;
}

ProgramPtr ScaledProgram(const Program& program, double factor) {
  auto scaled = std::make_shared<Program>(program);
  for (Kernel& kernel : scaled->kernels) {
    const double ns = factor * static_cast<double>(kernel.estimated_block_time.count());
    kernel.estimated_block_time = Duration(std::max<int64_t>(1, std::llround(std::min(ns, 1e15))));
  }
  return scaled;
}

Result<Duration> AloneTime(const SimGpuOptions& device, const Program& program) {
  SimGpuOptions options = device;
  options.block_jitter = 0;
  options.record_spans = false;
  ManualClock clock;
  PLEXUS_ASSIGN_OR_RETURN(const std::unique_ptr<SimGpu> gpu,
                          SimGpu::Create(options, clock, nullptr));
  uint64_t tag = 0;
  for (const Kernel& kernel : program.kernels) {
    SimGpuLaunch launch;
    launch.tag = tag++;
    launch.blocks = kernel.grid;
    launch.resources = kernel.resources;
    launch.block_time = kernel.estimated_block_time;
    launch.instrumented = false;
    PLEXUS_RETURN_IF_ERROR(gpu->Launch(launch).WithContext("program " + program.name));
  }
  while (gpu->Step()) {
  }
  return clock.Now() - TimePoint{};
}

Result<double> ServiceTimeFactor(const SimGpuOptions& device, const Program& program,
                                 Duration target) {
  // What does not scale (launch, gaps, completion) is what is left with next to no block time.
  PLEXUS_ASSIGN_OR_RETURN(const Duration fixed, AloneTime(device, *ScaledProgram(program, 0)));
  PLEXUS_ASSIGN_OR_RETURN(const Duration whole, AloneTime(device, program));
  if (target <= fixed || whole <= fixed) {
    return InvalidArgumentError("program " + program.name + ": its launches alone take " +
                                std::to_string(fixed.count() / 1000) + " us");
  }
  return static_cast<double>((target - fixed).count()) /
         static_cast<double>((whole - fixed).count());
}

Result<ProgramPtr> ScaleToServiceTime(const SimGpuOptions& device, const ProgramPtr& program,
                                      Duration target) {
  PLEXUS_ASSIGN_OR_RETURN(const double factor, ServiceTimeFactor(device, *program, target));
  return ScaledProgram(*program, factor);
}

Status Prepare(Workload* workload) {
  for (SimModel& model : workload->models) {
    PLEXUS_ASSIGN_OR_RETURN(model.alone_time, AloneTime(workload->device, *model.program));
  }
  return OkStatus();
}

}  // namespace plexus
