// `plexus inspect` as text: one target, and a table of many.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "cli/targets.h"
#include "paths/summary.h"

namespace plexus::cli {

// What there is to tell about a target; status and advice as in Trial.
struct Inspection {
  Trial trial;
  size_t nodes = 0;  // with those of control-flow bodies
  std::map<std::string, size_t> operators;
  std::set<const Constant*> constants;
  size_t constant_bytes = 0;
  std::vector<ProgramPtr> programs;
};

// Sums over programs; one runs after another, so the arena is the largest one's.
struct Totals {
  size_t regions = 0, kernels = 0, arena_bytes = 0, packed_bytes = 0;
  double flops = 0, bytes = 0;
  Duration estimated{0};
};
Totals Sum(const std::vector<ProgramPtr>& programs);

// To stdout; what failed is the caller's to tell.
void PrintTarget(const Target& target, const Inspection& inspection);
void PrintSummary(const std::vector<Target>& targets, const std::vector<Inspection>& inspections);
// What pipelines share: a table of segments and what sharing saves.
void PrintPaths(const PathSummary& paths);

}  // namespace plexus::cli
