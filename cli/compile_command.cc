#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/json_writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/targets.h"

namespace plexus::cli {
namespace {

constexpr int kWarmRuns = 5;

struct Times {
  Status status;       // did not load or run
  std::string wanted;  // flags without which nothing comes out
  Duration first{0};   // compiles and runs
  Duration warm{0};    // median of the runs after it
  size_t programs = 0, arena_bytes = 0;
};

Times Measure(const Target& target, const Shapes& shapes, Runtime& runtime) {
  Times times;
  const TimePoint begin = runtime.clock().Now();
  const Trial trial = Try(target, shapes, runtime);
  times.first = runtime.clock().Now() - begin;
  times.status = trial.status;
  if (!trial.advice.empty()) times.wanted = trial.wanted;
  if (!times.status.ok() || !times.wanted.empty()) return times;
  std::vector<Duration> warm;
  for (int run = 0; run < kWarmRuns; ++run) {
    const TimePoint from = runtime.clock().Now();
    times.status = runtime.Run(target.servable->executable, trial.inputs).status;
    if (!times.status.ok()) return times;
    warm.push_back(runtime.clock().Now() - from);
  }
  std::sort(warm.begin(), warm.end());
  times.warm = warm[warm.size() / 2];
  for (const ProgramPtr& program : runtime.Programs(target.servable->executable)) {
    ++times.programs;
    times.arena_bytes = std::max(times.arena_bytes, program->arena_bytes);
  }
  return times;
}

double Milliseconds(Duration time) { return static_cast<double>(time.count()) / 1e6; }

void PrintRow(const Target& target, const Times& times, bool* header) {
  if (!times.status.ok()) {
    std::fflush(stdout);
    std::fprintf(stderr, "plexus: %s\n", Complaint(target, times.status).c_str());
    return;
  }
  if (*header) {
    std::printf("%-24s %10s %10s %10s %9s %10s\n", "model", "load", "first run", "warm run",
                "programs", "arena");
    *header = false;
  }
  std::printf("%-24s %10s", target.name.c_str(), HumanTime(target.load_time).c_str());
  if (!times.wanted.empty()) {
    std::printf(" %10s %10s %9s %10s  give %s\n", "-", "-", "-", "-", times.wanted.c_str());
    return;
  }
  std::printf(" %10s %10s %9zu %10s\n", HumanTime(times.first).c_str(),
              HumanTime(times.warm).c_str(), times.programs,
              HumanBytes(static_cast<double>(times.arena_bytes)).c_str());
}

void WriteRow(const Target& target, const Times& times, JsonWriter& json) {
  json.BeginObject();
  json.Key("name").String(target.name);
  if (!times.status.ok()) {
    json.Key("error").String(times.status.message());
  } else {
    json.Key("load_ms").Double(Milliseconds(target.load_time));
    if (!times.wanted.empty()) {
      json.Key("give").String(times.wanted);
    } else {
      json.Key("first_run_ms").Double(Milliseconds(times.first));
      json.Key("warm_run_ms").Double(Milliseconds(times.warm));
      json.Key("programs").Uint(times.programs);
      json.Key("arena_bytes").Uint(times.arena_bytes);
    }
  }
  json.EndObject();
}

}  // namespace

int Compile(const InspectFlags& flags) {
  const Result<Shapes> shapes = ParseShapes(flags.shapes);
  if (!shapes.ok()) return FailUsage("compile", shapes.status().message());
  RuntimeOptions options = ToOptions(flags.runtime);
  options.share_work = false;  // each model and pipeline by itself, in one piece
  Result<std::unique_ptr<Runtime>> runtime = Runtime::Create(options);
  if (!runtime.ok()) return Fail(runtime.status());
  const Result<std::vector<Target>> targets = LoadTargets(flags.path, **runtime);
  if (!targets.ok()) return Fail(targets.status());
  const Status known = CheckShapes(*targets, *shapes);
  if (!known.ok()) return FailUsage("compile", known.message());
  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("models").BeginArray();
  const bool progress = ::isatty(STDERR_FILENO) != 0 && targets->size() > 1;
  bool ok = true, header = true;
  for (size_t i = 0; i < targets->size(); ++i) {
    const Target& target = (*targets)[i];
    if (progress) {
      std::fprintf(stderr, "\r%zu/%zu %s\033[K", i + 1, targets->size(), target.name.c_str());
    }
    const Times times = Measure(target, *shapes, **runtime);
    if (progress) std::fprintf(stderr, "\r\033[K");
    if (flags.json) {
      WriteRow(target, times, json);
    } else {
      PrintRow(target, times, &header);
    }
    ok &= times.status.ok();
  }
  json.EndArray();
  json.EndObject();
  if (flags.json) std::printf("%s\n", text.c_str());
  return ok ? kExitOk : kExitFailure;
}

}  // namespace plexus::cli
