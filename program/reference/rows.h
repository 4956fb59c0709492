// What plexus.MapRows and the loops of pipelines do besides running their bodies; shared by the
// reference and by the request that walks a pipeline.
#pragma once

#include <span>

#include "base/status.h"
#include "graph/graph.h"
#include "graph/tensor.h"

namespace plexus {

// Joins what each element gave along axis 0, in order: [r_i, ...] to [sum of r_i, ...]; a scalar
// counts as one row. At least one part. All are alike but for axis 0; where `pad` is given, shorter
// ones are filled up with it at the end of every other axis. kInvalidArgument names the first part
// that does not fit.
Result<Tensor> JoinRows(std::span<const Tensor> parts, const Tensor* pad);

// How many rows each part has: int64[parts].
Tensor RowCounts(std::span<const Tensor> parts);

// How many rows `inputs` have, at least one of them; kInvalidArgument where they differ, have none
// (scalars) or more than `node` (MapRows, FanOut) may walk: attribute "limit", none: any number.
Result<int64_t> CheckFanOut(const Node& node, std::span<const Tensor> inputs);

// For a loop that has made all `trips` that it may and whose condition is still true:
// kFailedPrecondition when attribute "at_limit" is "error".
Status CheckLoopEnd(const Node& node, int64_t trips);

}  // namespace plexus
