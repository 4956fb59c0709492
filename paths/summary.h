// What sharing does, for people and dashboards: `plexus inspect` and the administration port.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "graph/evaluator.h"
#include "graph/shape_inference.h"
#include "paths/path_map.h"

namespace plexus {

struct SegmentSummary {
  SegmentPtr segment;
  // Unique in the summary: the stages it spans, "mel..embedding", behind its pipeline's name where
  // it has one user. Another load or unload may give it another.
  std::string name;
  std::vector<std::string> pipelines;  // sorted
  uint32_t calls = 0;                  // over all pipelines
  uint32_t distinct_calls = 0;  // of them, when equally named inputs of all pipelines are equal
  size_t nodes = 0;             // control-flow bodies not counted
  size_t constant_bytes = 0;
  // Of one call, the largest; none where no call's input shapes are known.
  std::optional<double> flops;
  bool flops_complete = true;
};

// FLOPs are those of one request to every pipeline.
struct PathSummary {
  std::vector<SegmentSummary> segments;  // as PathMap::segments
  PathMapPtr map;
  size_t pipelines = 0;
  size_t constant_bytes = 0;        // held with sharing
  size_t constant_bytes_saved = 0;  // what copies of its own for every pipeline would add
  double flops = 0;                 // each pipeline by itself, on inputs of its own
  double flops_saved = 0;           // not computed when equally named inputs are equal
  bool flops_complete = true;       // false: there is work that is in none of the two
};

// By pipeline: what is known of its inputs, in the order of Path::inputs. Where nothing is given,
// the declared type and, where it is fixed, shape.
using PathInputs = std::map<std::string, std::vector<KnownValue>>;

PathSummary Summarize(PathMapPtr map, const PathInputs& inputs, const Evaluator& evaluator);

// {"pipelines":{NAME:{"segments":[…]}},"segments":[…],"constant_bytes":…, …}: docs/sharing.md.
void WriteSummary(const PathSummary& summary, JsonWriter& json);

// {"first":A,"second":B,"difference":…,"back":…}: PathFinder::FirstDifference, both ways; "" where
// there is none.
void WriteDifference(const std::string& first, const std::string& second,
                     const std::string& difference, const std::string& back, JsonWriter& json);

}  // namespace plexus
