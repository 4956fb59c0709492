// A workload: a device, models, who arrives when, and the system that schedules them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "device/sim/sim_gpu.h"
#include "program/program.h"
#include "sched/policy.h"

namespace plexus {

// A piece that models are made of. Requests of all models whose path leads through it meet there.
struct SimSegment {
  std::string name;
  std::vector<ProgramPtr> programs;  // device_kind "sim"; of 1, 2, 4, ... rows
};

// One kind of job.
struct SimModel {
  std::string name;
  double share = 1;  // of the arrivals, relative to the others; > 0
  ProgramPtr
      program;  // device_kind "sim"; its kernels run in their order where a system has streams
  std::vector<uint32_t> path;  // indices into Workload::segments; `program` is them in a row
  uint32_t tenant = 0;         // index into Workload::tenants
  Duration deadline{0};        // after the arrival; 0: none
  uint32_t priority = 0;       // as RequestAttributes
  Duration alone_time{0};  // from launch to end on the empty device, host costs aside; see Prepare
};

struct SimTenant {
  std::string name;
  double weight = 1;
};

struct Arrivals {
  enum class Kind : uint8_t { kLognormal, kPoisson, kAtOnce, kTrace };
  struct Entry {
    Duration at{0};
    uint32_t model = 0;
  };
  Kind kind = Kind::kPoisson;
  double sigma = 1;            // kLognormal: of the gap's logarithm
  Duration mean_gap{1000000};  // kLognormal, kPoisson
  std::vector<Entry> trace;    // kTrace, in order
};

// What a host thread takes for its part, the same for every system.
struct HostCosts {
  Duration launch{2000};       // one launch call, the decision included
  Duration notification{200};  // taking in one block message or completion
  Duration arrival{1000};      // taking in one request
};

struct SystemOptions {
  std::string name = "plexus";         // SystemNames()
  std::string policy{kDefaultPolicy};  // plexus: MakePolicy's; bounded: srpt or edf; else unused
  HostCosts host;
  uint32_t streams = 500;           // of the systems that dispatch in software
  uint32_t waiting_kernels = 2;     // paella: B
  double fairness_threshold = 1e9;  // paella: launches a model type may lack
  uint32_t in_flight = 16;          // bounded: K, launches of all jobs together
  uint32_t job_depth = 1;           // bounded: launches of one job
  Duration quantum{200000};         // plexus: DispatcherOptions
  Duration hardware_bound{120000};  // plexus: DispatcherOptions::hardware_bound
  // plexus: a job's kernels one after the other, as they are on a stream, instead of branches of
  // its graph side by side.
  bool in_order = false;
  // plexus: how rows of models with paths become batches in each segment (MakeBatchPolicy). Under
  // "none" such a model is one job like any other.
  std::string batching = "none";
  uint32_t max_batch = 16;
};

struct Workload {
  std::string name;
  SimGpuOptions device;
  std::vector<SimSegment> segments;
  std::vector<SimModel> models;
  std::vector<SimTenant> tenants{{"default", 1}};
  Arrivals arrivals;
  uint32_t jobs = 1000;
  uint64_t seed = 1;
  SystemOptions system;
};

// One arrival: which model, when. Index in the list is the job's number.
struct Arrival {
  TimePoint at{};
  uint32_t model = 0;
};

// Reads a workload file (docs/simulate.md). `where` names it in messages; `folder` is where the
// paths of ONNX files start. The result has passed CheckWorkload and is prepared. kInvalidArgument
// says file, line and key; errors of an ONNX file carry its path. `device`: the preset to use
// instead of the file's device; block times of ONNX files and service times are then those there.
Result<Workload> ParseWorkload(std::string_view yaml, const std::string& where,
                               const std::filesystem::path& folder, std::string_view device = {});
Result<Workload> ReadWorkload(const std::filesystem::path& file, std::string_view device = {});

// kInvalidArgument says what makes no sense: no jobs, a share that is not > 0, a block that fits no
// SM (with what it lacks), an unknown policy or system, NaN anywhere.
Status CheckWorkload(const Workload& workload);

// Measures every model's alone_time. Call after changing device or programs.
Status Prepare(Workload* workload);

// The same list for every system: a function of models' shares, arrivals, jobs and seed alone.
std::vector<Arrival> MakeArrivals(const Workload& workload);

// The mean of the models' alone times, weighted by their shares: 1 / this is the rate at which jobs
// arrive as fast as they would run one at a time ("load 1").
Duration MeanAloneTime(const Workload& workload);

// A chain of kernels, each after the one before it.
struct SimKernel {
  uint32_t grid = 1;
  Duration block_time{1000};
  BlockResources resources{128, 32, 0};
};
ProgramPtr ChainProgram(const std::string& name, const std::vector<SimKernel>& kernels);
// The same kernels, each after the one before it.
ProgramPtr InOrderProgram(const Program& program);
// All kernels of one program, then all of the next.
ProgramPtr ConcatPrograms(const std::string& name, const std::vector<ProgramPtr>& programs);
// For `rows` rows: so many times the blocks, rows that have nothing in common but the launch; or,
// given `fixed` (0 to 1), as many blocks as before that take fixed + (1 - fixed) * rows as long.
ProgramPtr RowsProgram(const Program& program, uint32_t rows, std::optional<double> fixed);
// The same program with all block times multiplied, rounded to at least 1 ns.
ProgramPtr ScaledProgram(const Program& program, double factor);
// How long one job takes on the empty device, its kernels on one stream, without host costs.
Result<Duration> AloneTime(const SimGpuOptions& device, const Program& program);
// Scales block times until the job alone takes `target`; kInvalidArgument if launch latency and
// gaps alone take longer.
Result<ProgramPtr> ScaleToServiceTime(const SimGpuOptions& device, const ProgramPtr& program,
                                      Duration target);
// The factor that ScaleToServiceTime scales by.
Result<double> ServiceTimeFactor(const SimGpuOptions& device, const Program& program,
                                 Duration target);

// The frozen workloads that `plexus simulate --preset` and the experiments run.
std::vector<std::string> WorkloadPresetNames();
Result<Workload> WorkloadPreset(std::string_view name, std::string_view device = {});

}  // namespace plexus
