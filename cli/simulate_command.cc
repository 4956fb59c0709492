#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/trace_json.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/files.h"
#include "simulate/report.h"

namespace plexus::cli {
namespace {

// Enough for the last seconds of a busy GPU; 100 MB.
constexpr size_t kTraceEvents = size_t{1} << 20;

// The workload as the file or preset has it, with what the flags change.
Result<Workload> LoadWorkload(const SimulateFlags& flags) {
  PLEXUS_ASSIGN_OR_RETURN(Workload workload, flags.preset.empty()
                                                 ? ReadWorkload(flags.file, flags.device)
                                                 : WorkloadPreset(flags.preset, flags.device));
  SystemOptions& system = workload.system;
  if (!flags.system.empty() && flags.system != system.name) {
    system.name = flags.system;
    if (system.name == "bounded") system.policy = "srpt";
    if (system.name == "plexus") system.policy = SystemOptions().policy;
  }
  if (!flags.policy.empty()) {
    if (system.name != "plexus" && system.name != "bounded") {
      return InvalidArgumentError("--policy: system '" + system.name + "' has an order of its own");
    }
    system.policy = flags.policy;
  }
  if (flags.seed) workload.seed = *flags.seed;
  if (flags.jobs) {
    if (workload.arrivals.kind == Arrivals::Kind::kTrace) {
      return InvalidArgumentError("--jobs: this workload names every arrival");
    }
    workload.jobs = *flags.jobs;
  }
  PLEXUS_RETURN_IF_ERROR(CheckWorkload(workload));
  PLEXUS_RETURN_IF_ERROR(Prepare(&workload));
  if (flags.load) {
    const Arrivals::Kind kind = workload.arrivals.kind;
    if (kind != Arrivals::Kind::kPoisson && kind != Arrivals::Kind::kLognormal) {
      return InvalidArgumentError("--load: this workload's arrivals have no mean gap");
    }
    const double gap_ns = static_cast<double>(MeanAloneTime(workload).count()) / *flags.load;
    workload.arrivals.mean_gap = Duration(static_cast<int64_t>(std::max(gap_ns, 1.0)));
    PLEXUS_RETURN_IF_ERROR(CheckWorkload(workload));
  }
  return workload;
}

}  // namespace

int Simulate(const SimulateFlags& flags) {
  if (flags.file.empty() == flags.preset.empty()) {
    return FailUsage("simulate", "a workload file or --preset is missing");
  }
  for (const std::string& path : {flags.plot_path, flags.trace_path}) {
    const Status writable = path.empty() ? OkStatus() : CheckWritable(path);
    if (!writable.ok()) return Fail(writable);
  }
  const Result<Workload> workload = LoadWorkload(flags);
  if (!workload.ok()) {
    Fail(workload.status());
    // A bad workload is bad input, as a bad flag is.
    return workload.status().code() == StatusCode::kInvalidArgument ? kExitUsage : kExitFailure;
  }
  RunHooks hooks;
  TraceRecorder trace(kTraceEvents);
  if (!flags.trace_path.empty()) {
    trace.Start({});
    hooks.trace = &trace;
  }
  const bool progress = ::isatty(STDERR_FILENO) != 0;
  int shown = -1;
  if (progress) {
    hooks.progress = [&](uint32_t done) {
      const int percent = static_cast<int>(100.0 * done / workload->jobs);
      if (percent == shown) return;
      shown = percent;
      const std::string bar(static_cast<size_t>(percent) * 40 / 100, '#');
      std::fprintf(stderr, "\r[%-40s] %3d %%", bar.c_str(), percent);
    };
  }
  const Result<SimulationResult> result = RunWorkload(*workload, MakeArrivals(*workload), hooks);
  if (progress) std::fprintf(stderr, "\r\033[K");
  if (!result.ok()) return Fail(result.status());
  const Report report = MakeReport(*workload, *result);
  if (flags.json) {
    std::printf("%s\n", ReportToJson(*workload, report).c_str());
  } else {
    std::fputs(ReportToTable(*workload, report).c_str(), stdout);
  }
  if (!flags.plot_path.empty()) {
    const Status written = WriteFile(flags.plot_path, ReportToSvg(*workload, *result));
    if (!written.ok()) return Fail(written);
  }
  if (!flags.trace_path.empty()) {
    if (trace.dropped() > 0) {
      std::fprintf(stderr,
                   "plexus: the trace keeps the last %zu events; %llu earlier ones are gone: "
                   "--jobs N simulates fewer jobs\n",
                   kTraceEvents, static_cast<unsigned long long>(trace.dropped()));
    }
    const Status written = WriteTraceFile(trace.Take(), flags.trace_path);
    if (!written.ok()) return Fail(written);
  }
  return kExitOk;
}

}  // namespace plexus::cli
