// MergeGraphs: several pipelines on the same inputs as one graph that does equal work once.
#pragma once

#include <span>
#include <string>

#include "base/status.h"
#include "graph/graph.h"

namespace plexus {

struct MergePart {
  std::string name;  // of the pipeline
  GraphPtr graph;    // prepared: canonical, weights folded, fusion groups marked
};

// Inputs of equal names are one input; the merged graph's inputs stand in the order in which the
// parts name them first. Its outputs are the parts' outputs, part by part; where two parts give the
// same value, that value stands twice. Equal work is one as in a pipeline by itself: whole fusion
// groups only, never random operators. So a part computes exactly what it computes alone.
// kInvalidArgument names an input that two parts want in different types or shapes.
Result<Graph> MergeGraphs(const std::string& name, std::span<const MergePart> parts);

}  // namespace plexus
