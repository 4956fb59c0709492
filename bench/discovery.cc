// What discovery costs: analyses generated families of pipelines, in one process. Prints one JSON
// object.
//
//   plexus_discovery KIND PIPELINES NODES [WIDTH]
//
// Pipelines come in families of up to 20 that share nothing with other families. They are made and
// prepared (canonical form, weights folded, fusion groups) beforehand, as a server has them when
// discovery begins.
#include <sys/resource.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "paths/family.h"
#include "paths/finder.h"
#include "paths/summary.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/plan.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

constexpr int kFamily = 20;

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// Resident bytes now; the peak of the process.
double Resident() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}
double PeakResident() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024;
}

Result<PathFinder::Load> Make(const Family& family, int pipeline, const Evaluator& evaluator) {
  Family own = family;
  own.seed = static_cast<uint64_t>(1 + pipeline / kFamily);
  // Members are of NODES / 2 to NODES nodes: families of several sizes.
  own.nodes = family.nodes / 2 + family.nodes / 2 * (pipeline / kFamily % 4) / 3;
  PLEXUS_ASSIGN_OR_RETURN(const Graph graph, FamilyMember(own, pipeline % kFamily));
  PLEXUS_ASSIGN_OR_RETURN(Graph prepared, PrepareGraph(graph, evaluator));
  return PathFinder::Load{"p" + std::to_string(pipeline),
                          std::make_shared<const Graph>(std::move(prepared))};
}

Status Run(const std::string& kind, int pipelines, int nodes, int width) {
  Family family;
  PLEXUS_ASSIGN_OR_RETURN(family.kind, ParseFamilyKind(kind));
  family.nodes = nodes;
  family.width = width;
  const FoldingEvaluator evaluator(ReferenceEvaluator::Get());
  std::vector<PathFinder::Load> loads;
  size_t total_nodes = 0;
  for (int p = 0; p < pipelines; ++p) {
    PLEXUS_ASSIGN_OR_RETURN(PathFinder::Load load, Make(family, p, evaluator));
    total_nodes += load.graph->num_nodes();
    loads.push_back(std::move(load));
  }
  const PathFinder::Load last = loads.back();
  const double before = Resident();

  PathFinder finder({&evaluator});
  auto begin = std::chrono::steady_clock::now();
  const std::clock_t cpu = std::clock();
  const PathMapPtr map = finder.Update(std::move(loads));
  const double all = Seconds(begin);
  const double all_cpu = static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  const double peak = PeakResident();
  begin = std::chrono::steady_clock::now();
  finder.Update({}, {last.pipeline});
  const double unload = Seconds(begin);
  begin = std::chrono::steady_clock::now();
  finder.Update({last});
  const double load = Seconds(begin);
  begin = std::chrono::steady_clock::now();
  const PathSummary summary = Summarize(finder.map(), {}, evaluator);
  const double report = Seconds(begin);

  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("kind").String(kind);
  json.Key("pipelines").Uint(static_cast<uint64_t>(pipelines));
  json.Key("nodes").Uint(total_nodes);
  json.Key("segments").Uint(map->segments.size());
  json.Key("constant_bytes").Uint(summary.constant_bytes);
  json.Key("constant_bytes_saved").Uint(summary.constant_bytes_saved);
  json.Key("all_s").Double(all);
  json.Key("all_cpu_s").Double(all_cpu);
  json.Key("unload_one_s").Double(unload);
  json.Key("load_one_s").Double(load);
  json.Key("summary_s").Double(report);
  json.Key("bytes_before").Double(before);
  json.Key("peak_bytes").Double(peak);
  json.EndObject();
  std::printf("%s\n", text.c_str());
  return OkStatus();
}

int Number(const char* text) {
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end ? value : 0;
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) {
  const int pipelines = argc > 2 ? plexus::Number(argv[2]) : 0;
  const int nodes = argc > 3 ? plexus::Number(argv[3]) : 0;
  const int width = argc > 4 ? plexus::Number(argv[4]) : 16;
  if (pipelines < 1 || nodes < 1 || width < 1) {
    std::fprintf(stderr, "usage: plexus_discovery KIND PIPELINES NODES [WIDTH]\n");
    return 2;
  }
  const plexus::Status status = plexus::Run(argv[1], pipelines, nodes, width);
  if (status.ok()) return 0;
  std::fprintf(stderr, "plexus_discovery: %s\n", status.ToString().c_str());
  return 1;
}
