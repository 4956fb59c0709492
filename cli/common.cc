#include "cli/common.h"

#include <algorithm>
#include <cstdio>

namespace plexus::cli {

RuntimeOptions ToOptions(const RuntimeFlags& flags) {
  RuntimeOptions options;
  options.threads = flags.threads;
  options.share_work = !flags.no_sharing;
  options.share_across_tenants = flags.share_across_tenants;
  if (!flags.batching.empty()) options.batching = flags.batching;
  options.max_batch = flags.max_batch;
  if (flags.pin_threads != "auto") options.pin_threads = flags.pin_threads == "on";
  if (!flags.policy.empty()) options.policy = flags.policy;
  options.program_cache_bytes = flags.program_cache_bytes;
  options.value_memory_bytes = flags.value_memory_bytes;
  options.request_memory_bytes = flags.request_memory_bytes;
  options.result_cache_bytes = flags.result_cache_bytes;
  options.profile_path = flags.profile_path;
  options.trace_sample = flags.trace_sample;
  return options;
}

Result<std::map<std::string, Shape>> ParseShapes(const std::vector<std::string>& texts) {
  std::map<std::string, Shape> shapes;
  for (const std::string& text : texts) {
    Result<NamedShape> shape = ParseNamedShape(text);
    if (!shape.ok()) return InvalidArgumentError("--shape " + text + ": expected NAME=1,3,224,224");
    if (!shapes.emplace(shape->name, std::move(shape->shape)).second) {
      return InvalidArgumentError("--shape " + text + ": given twice");
    }
  }
  return shapes;
}

int Fail(const Status& status) {
  std::fprintf(stderr, "plexus: %s\n", status.message().c_str());
  return kExitFailure;
}

int FailUsage(const std::string& command, const std::string& message) {
  std::fprintf(stderr, "plexus: %s (see plexus%s%s --help)\n", message.c_str(),
               command.empty() ? "" : " ", command.c_str());
  return kExitUsage;
}

namespace {

std::string Scaled(double value, const char* const* units, size_t num_units, double step) {
  size_t unit = 0;
  // 999.5 would be written as 1000 of this unit.
  while (value >= std::min(step, 999.5) && unit + 1 < num_units) {
    value /= step;
    ++unit;
  }
  char text[48];
  const int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  std::snprintf(text, sizeof(text), "%.*f %s", decimals, value, units[unit]);
  return text;
}

}  // namespace

std::string HumanTime(Duration time) {
  static constexpr const char* kUnits[] = {"ns", "us", "ms", "s"};
  return Scaled(static_cast<double>(time.count()), kUnits, 4, 1000);
}

std::string HumanBytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB"};
  return Scaled(bytes, kUnits, 4, 1024);
}

}  // namespace plexus::cli
