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
  Duration first{0};  // compiles and runs
  Duration warm{0};   // median of the runs after it
  size_t programs = 0, arena_bytes = 0;
};

Result<Times> Measure(const Target& target, const std::map<std::string, Shape>& shapes,
                      Runtime& runtime) {
  PLEXUS_RETURN_IF_ERROR(target.status);
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Tensor> inputs, ZeroInputs(*target.servable, shapes));
  Times times;
  std::vector<Duration> warm;
  for (int run = 0; run <= kWarmRuns; ++run) {
    const TimePoint begin = runtime.clock().Now();
    if (run == 0) {
      PLEXUS_RETURN_IF_ERROR(runtime.Warm(target.servable->executable, inputs));
      times.first = runtime.clock().Now() - begin;
      continue;
    }
    PLEXUS_RETURN_IF_ERROR(runtime.Run(target.servable->executable, inputs).status);
    warm.push_back(runtime.clock().Now() - begin);
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

void Report(const Target& target, const Result<Times>& times, bool as_json, JsonWriter& json) {
  if (!as_json) {
    if (times.ok()) {
      std::printf("%-24s %10s %10s %10s %9zu %10s\n", target.name.c_str(),
                  HumanTime(target.load_time).c_str(), HumanTime(times->first).c_str(),
                  HumanTime(times->warm).c_str(), times->programs,
                  HumanBytes(times->arena_bytes).c_str());
    } else {
      std::fflush(stdout);
      std::fprintf(stderr, "plexus: %s: %s\n", target.name.c_str(),
                   times.status().message().c_str());
    }
    return;
  }
  json.BeginObject();
  json.Key("name").String(target.name);
  if (times.ok()) {
    json.Key("load_ms").Double(Milliseconds(target.load_time));
    json.Key("first_run_ms").Double(Milliseconds(times->first));
    json.Key("warm_run_ms").Double(Milliseconds(times->warm));
    json.Key("programs").Uint(times->programs);
    json.Key("arena_bytes").Uint(times->arena_bytes);
  } else {
    json.Key("error").String(times.status().message());
  }
  json.EndObject();
}

}  // namespace

int Compile(const InspectFlags& flags) {
  const auto shapes = ParseShapes(flags.shapes);
  if (!shapes.ok()) {
    Fail(shapes.status());
    return kExitUsage;
  }
  Result<std::unique_ptr<Runtime>> runtime = Runtime::Create(ToOptions(flags.runtime));
  if (!runtime.ok()) return Fail(runtime.status());
  const Result<std::vector<Target>> targets = LoadTargets(flags.path, **runtime);
  if (!targets.ok()) return Fail(targets.status());
  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("models").BeginArray();
  if (!flags.json) {
    std::printf("%-24s %10s %10s %10s %9s %10s\n", "model", "load", "first run", "warm run",
                "programs", "arena");
  }
  const bool progress = ::isatty(STDERR_FILENO) != 0 && targets->size() > 1;
  bool ok = true;
  for (size_t i = 0; i < targets->size(); ++i) {
    const Target& target = (*targets)[i];
    if (progress) {
      std::fprintf(stderr, "\r%zu/%zu %s\033[K", i + 1, targets->size(), target.name.c_str());
    }
    const Result<Times> times = Measure(target, *shapes, **runtime);
    if (progress) std::fprintf(stderr, "\r\033[K");
    Report(target, times, flags.json, json);
    ok &= times.ok();
  }
  json.EndArray();
  json.EndObject();
  if (flags.json) std::printf("%s\n", text.c_str());
  return ok ? kExitOk : kExitFailure;
}

}  // namespace plexus::cli
