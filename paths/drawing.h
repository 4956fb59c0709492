// The merged paths of all pipelines as a picture: a box per segment, coloured by how many pipelines
// share it, inputs at the left and a pill per pipeline at the right.
#pragma once

#include <string>

#include "paths/summary.h"

namespace plexus {

// Text for Graphviz's `dot`.
std::string DrawDot(const PathSummary& summary);

// A self-contained SVG with a layout of its own (layout.h): the same on every machine.
std::string DrawSvg(const PathSummary& summary);

}  // namespace plexus
