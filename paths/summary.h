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
  // Unique in the summary: the stages it spans, "mel..embedding", behind the title of the stage
  // that runs it where only stages within stages do, "stage lines (foreach): crop..read", and
  // behind its pipeline's name where it has one user. Another load or unload may give it another.
  std::string name;
  std::string stage;                   // of the name, the title; or ""
  std::vector<std::string> pipelines;  // sorted; those that run it in a stage included
  uint32_t calls = 0;                  // over all pipelines, in a stage once for each place
  uint32_t distinct_calls = 0;  // of them, when equally named inputs of all pipelines are equal
  size_t nodes = 0;             // control-flow bodies not counted
  size_t constant_bytes = 0;
  // Of one call, the largest; none where no call's input shapes are known.
  std::optional<double> flops;
  bool flops_complete = true;
};

// The body of a stage within a stage.
struct BodySummary {
  std::string name;                    // unique in the summary, as a segment's
  std::string title;                   // "stage lines (foreach)"
  std::vector<std::string> pipelines;  // sorted
};

// FLOPs are those of one request to every pipeline.
struct PathSummary {
  std::vector<SegmentSummary> segments;  // in order of first use, those in a stage behind its own
  PathMapPtr map;
  std::map<std::string, BodySummary> bodies;  // by name in PathMap::paths
  size_t pipelines = 0;
  size_t constant_bytes = 0;        // held with sharing
  size_t constant_bytes_saved = 0;  // what copies of its own for every pipeline would add
  double flops = 0;                 // each pipeline by itself, on inputs of its own
  double flops_saved = 0;           // not computed when equally named inputs are equal
  bool flops_complete = true;       // false: there is work that is in none of the two
  // The same of one run of every body: one element of a foreach, one turn of a repeat, each branch
  // of a when. Of them, flops and flops_saved hold what runs a known number of times.
  double body_flops = 0, body_flops_saved = 0;
  bool body_flops_complete = true;
};

// By pipeline: what is known of its inputs, in the order of Path::inputs. Where nothing is given,
// the declared type and, where it is fixed, shape.
using PathInputs = std::map<std::string, std::vector<KnownValue>>;

PathSummary Summarize(PathMapPtr map, const PathInputs& inputs, const Evaluator& evaluator);

// {"segments":[…],"pipelines":{NAME:{"calls":[…]}},"bodies":{…},"constant_bytes":…, …}:
// docs/sharing.md.
void WriteSummary(const PathSummary& summary, JsonWriter& json);

// {"first":A,"second":B,"difference":…,"back":…}: PathFinder::FirstDifference, both ways; "" where
// there is none.
void WriteDifference(const std::string& first, const std::string& second,
                     const std::string& difference, const std::string& back, JsonWriter& json);

}  // namespace plexus
