// Systems that run a workload on the simulated GPU: Plexus and what it is compared with.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "base/trace.h"
#include "simulate/workload.h"

namespace plexus {

// What became of one job.
struct JobOutcome {
  uint32_t model = 0;
  TimePoint arrival{};
  TimePoint done{};  // when the host had seen its end
};

struct SimulationResult {
  std::vector<JobOutcome> jobs;  // by job number; every one is done
  Duration busy{0};              // block time of all finished blocks
  uint64_t blocks = 0, launches = 0;
  TimePoint end{};
};

struct RunHooks {
  // Called now and then with the number of jobs done. May be empty.
  std::function<void(uint32_t jobs_done)> progress;
  // Started; gets blocks by SM, jobs and requests as they end, and from plexus, as from a server,
  // launches and decisions. Null: none.
  TraceRecorder* trace = nullptr;
};

// "one-stream", "stream-per-job", "job-by-job", "kernel-by-kernel", "paella", "bounded", "plexus";
// README.md says what each does.
std::vector<std::string> SystemNames();

// Runs the prepared workload to the end under workload.system. Deterministic. kInternal if the
// system stands still with jobs left.
Result<SimulationResult> RunWorkload(const Workload& workload, const std::vector<Arrival>& arrivals,
                                     const RunHooks& hooks = {});

}  // namespace plexus
