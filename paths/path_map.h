// PathMap: what all loaded pipelines compute, cut into segments, and how each pipeline calls them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace plexus {

// A piece of computation with one set of users. Equal segments of different pipelines are one
// object, which lives as long as somebody uses it: whoever keys programs, queues or profiles by it
// keeps them across loads and unloads of others. Immutable; thread-safe.
struct Segment {
  uint64_t id = 0;  // unique in the process
  // Inputs are what it reads from outside, outputs what others read of it. Node names are those of
  // the pipeline that was analysed first.
  GraphPtr graph;
  size_t constant_bytes = 0;  // each constant once
  // False where equal inputs need not give equal outputs (random operators): never coalesced, never
  // cached, never shared.
  bool deterministic = true;
  // Rows of many requests may run as one batch: ProveRows holds of `graph` with inputs of
  // `row_shapes`, one per input. Dimension 0 is rows: "rows" where a request may bring any number
  // of them, the same in all inputs, and the graph takes them as it stands; 1 where each request
  // brings one, and only GeneralizeRows makes the graph take more. A request whose inputs have
  // other shapes runs by itself.
  bool batchable = false;
  std::string why_not_batchable;
  std::vector<SymbolicShape> row_shapes;
};
using SegmentPtr = std::shared_ptr<const Segment>;

// Where a value of a path comes from.
struct PathValue {
  enum class From : uint8_t { kInput, kCall, kConstant };
  From from = From::kInput;
  uint32_t call = 0;   // kCall: index into Path::calls
  uint32_t index = 0;  // of the pipeline's inputs, or of the call's outputs
  ConstantPtr constant;
};

struct Call {
  SegmentPtr segment;
  std::vector<PathValue> inputs;  // as Segment::graph's inputs
};

// One pipeline as calls of segments, in topological order.
struct Path {
  std::string pipeline;
  std::vector<Value> inputs;  // names and types, as the pipeline graph's inputs
  std::vector<Call> calls;
  std::vector<PathValue> outputs;  // as the pipeline graph's outputs
};
using PathPtr = std::shared_ptr<const Path>;

struct SegmentUse {
  SegmentPtr segment;
  std::vector<std::string> pipelines;  // sorted
  uint32_t calls = 0;                  // over all pipelines; more than one may be in one pipeline
};

struct PathMap {
  std::map<std::string, PathPtr> paths;
  std::vector<SegmentUse> segments;  // in order of first use
  // Of stages within stages: the names in `paths` of their bodies (BodyPaths::Follow).
  std::map<const Graph*, std::string> bodies;
  // Constants that would be held again if every pipeline had its own copy.
  size_t constant_bytes_saved = 0;
};
using PathMapPtr = std::shared_ptr<const PathMap>;

}  // namespace plexus
