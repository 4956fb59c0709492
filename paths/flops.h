// FLOPs of segments on inputs of given shapes.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "graph/evaluator.h"
#include "graph/shape_inference.h"
#include "paths/path_map.h"

namespace plexus {

// A count of floating-point operations. Not complete: some of the work depends on data (loops,
// shapes that only a run tells) or not all shapes were known; that part is left out.
struct Flops {
  double count = 0;
  bool complete = true;
};

// The work of all nodes of a specialised graph (WorkOf). A control-flow body counts as often as it
// runs, of the branches of an `If` the larger one; those of Loop and Scan are left out.
Flops CountFlops(const Graph& specialised);
Flops CountFlops(const Graph& specialised, const Node& node);

// Counts for segments, and remembers what it has counted. Thread-compatible; borrows the evaluator.
class FlopCounter {
 public:
  explicit FlopCounter(const Evaluator& evaluator) : evaluator_(evaluator) {}

  struct Counted {
    Flops flops;
    Flops own;                        // of them, what is not in the bodies of stages
    std::vector<KnownValue> outputs;  // as Segment::graph's outputs
    // What the stages in it read, by the node's name: its inputs, then its captures.
    std::map<std::string, std::vector<KnownValue>> stages;
  };
  // One entry for each call of `path`, in their order; valid as long as the counter is. `inputs` as
  // the pipeline's; those without a shape leave what depends on them uncounted. `one_row`: a
  // batchable segment whose inputs are not known runs on one row.
  std::vector<const Counted*> CountPath(const Path& path, const std::vector<KnownValue>& inputs,
                                        bool one_row = false);

 private:
  const Counted& Count(const Segment& segment, const std::vector<KnownValue>& inputs);
  Counted CountAnew(const Graph& graph, const std::vector<KnownValue>& inputs) const;

  const Evaluator& evaluator_;
  std::unordered_map<std::string, Counted> counted_;  // by segment and what is known of its inputs
};

}  // namespace plexus
