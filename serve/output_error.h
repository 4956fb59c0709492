// What reduced precision costs a model: measured when it is loaded, and logged.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/graph.h"
#include "pipeline/runtime.h"
#include "program/compiler.h"

namespace plexus {

// True when the graph computes on quantised values, in QDQ form or with integer operators.
bool IsQuantized(const Graph& graph);

// Largest difference of `reduced`'s outputs from float32 arithmetic on the same inputs, divided by
// the largest magnitude. Inputs are drawn from a fixed seed: normal floats, zero integers; shapes
// come from `shapes` by input name, else from the graph with unknown dimensions as 1. float32 is
// the same model compiled for it, or for a quantised one the reference operators. Takes as long as
// such runs take; kFailedPrecondition when the model cannot run on such inputs.
Result<double> MeasureOutputError(Runtime& runtime, const GraphPtr& graph,
                                  const ExecutablePtr& reduced,
                                  const std::map<std::string, Shape>& shapes);

}  // namespace plexus
