// What a run's outcomes amount to: percentiles, per model and overall.
#pragma once

#include <string>
#include <vector>

#include "simulate/system.h"

namespace plexus {

// Times are from a job's scheduled arrival until the host has seen its end. Percentiles by nearest
// rank. Slowdown: time / the model's alone_time.
struct JobStatistics {
  std::string model;  // empty: all
  size_t jobs = 0;
  double mean_ms = 0, p50_ms = 0, p90_ms = 0, p99_ms = 0, max_ms = 0;
  double mean_slowdown = 0, p99_slowdown = 0;
  size_t due = 0, in_time = 0;  // jobs with a deadline, and those of them that met it
};

struct Report {
  JobStatistics all;
  std::vector<JobStatistics> models;  // as Workload::models; jobs 0 where none arrived
  double makespan_s = 0;              // first arrival to last end
  double throughput_per_s = 0;        // jobs / makespan
  double offered_per_s = 0;           // jobs / (last - first arrival); 0 if all came at once
  // Share of the device's room for blocks that ran blocks, over the makespan: a block counts as one
  // over the number of its kind that the device holds. Kinds that need different resources fit
  // beside each other, so it may exceed 1, and so may batches: they count as their rows by
  // themselves.
  double utilisation = 0;
  uint64_t launches = 0, blocks = 0;
};

Report MakeReport(const Workload& workload, const SimulationResult& result);

// One JSON object, which says that its numbers are simulated.
std::string ReportToJson(const Workload& workload, const Report& report);
// For people; ends with a newline.
std::string ReportToTable(const Workload& workload, const Report& report);
// Each model's distribution of times as an SVG picture.
std::string ReportToSvg(const Workload& workload, const SimulationResult& result);

}  // namespace plexus
