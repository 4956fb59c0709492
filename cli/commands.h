// The commands of `plexus`, without their command lines.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace plexus::cli {

// Exit codes of every command.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;      // the request, model or file failed
inline constexpr int kExitUsage = 2;        // the command line is wrong
inline constexpr int kExitCannotStart = 3;  // port, repository, permission

struct RuntimeFlags {
  uint32_t threads = 0;
  std::string pin_threads = "auto";
  bool no_sharing = false;
  bool share_across_tenants = false;
  std::string batching;  // empty: the default
  uint32_t max_batch = 16;
  std::string policy;  // empty: not given
  uint64_t program_cache_bytes = uint64_t{2} << 30;
  uint64_t value_memory_bytes = 0;
  uint64_t request_memory_bytes = 0;
  uint64_t result_cache_bytes = 0;  // serve only
  std::string profile_path;
  uint32_t trace_sample = 0;
};

struct ServeFlags {
  std::string repository;
  std::string host = "127.0.0.1";
  uint16_t http_port = 8000;
  std::optional<uint16_t> admin_port;
  RuntimeFlags runtime;
  bool drop_late = false;
  std::string config;  // serve/server_config.h
  uint64_t max_body_bytes = uint64_t{64} << 20;
  int max_json_depth = 100;
  uint64_t max_connections = 1024;
  double drain_seconds = 30;
  double read_timeout_seconds = 30;
  double idle_timeout_seconds = 75;
  bool json = false;
};
int Serve(const ServeFlags& flags);

// Shapes as ParseShapes reads them (common.h).
struct InspectFlags {
  std::string path;
  std::vector<std::string> shapes;
  std::vector<std::string> diff;   // inspect only: two pipelines, or none
  std::string dot_path, svg_path;  // inspect only
  RuntimeFlags runtime;
  bool json = false;
};
int Inspect(const InspectFlags& flags);
int Compile(const InspectFlags& flags);

struct InferFlags {
  std::string name;
  std::vector<std::string> inputs;
  std::string server = "http://127.0.0.1:8000";
  std::string repository;  // not empty: in this process
  std::vector<std::string> shapes;
  std::string output_dir;
  std::string tenant;
  uint32_t priority = 0;
  double timeout_seconds = 0;
  std::string sequence_id;  // a whole number, or a text
  bool sequence_start = false, sequence_end = false;
  RuntimeFlags runtime;
  bool json = false;
};
int Infer(const InferFlags& flags);

struct SimulateFlags {
  std::string file;
  std::string preset;
  std::string policy, system, device;  // empty: as the workload says
  std::optional<uint64_t> seed;
  std::optional<uint32_t> jobs;
  std::optional<double> load;
  std::string plot_path, trace_path;
  bool json = false;
};
int Simulate(const SimulateFlags& flags);

struct TraceFlags {
  std::string server = "127.0.0.1:8002";        // its administration port
  Duration duration = std::chrono::seconds(5);  // 0: only what is recorded already
  uint32_t sample = 1;
  std::string output;
  bool json = false;
};
int Trace(const TraceFlags& flags);

}  // namespace plexus::cli
