// GraphPlan: how a graph runs for one class of input shapes: a static region as a Program, then the
// host steps that a region cannot hold, then what is left once their results are known.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "graph/evaluator.h"
#include "graph/graph.h"
#include "graph/passes/passes.h"
#include "pipeline/batch_gain.h"
#include "profile/profile_store.h"
#include "program/compiler.h"

namespace plexus {

// A graph that is planned per shape class: a whole model, what is left of one after a host step, or
// the body of a control-flow node. Formal inputs first, captures after them.
class BodyTable;

struct PlannedGraph {
  PlannedGraph(Graph g, CompileOptions o);
  // A body or a rest of `whole`; `source`: of a body, the graph that it was made of.
  PlannedGraph(Graph g, const PlannedGraph& whole, GraphPtr source = nullptr);
  const uint64_t id;  // unique in the process; part of the cache key
  const Graph graph;
  const CompileOptions options;
  const std::shared_ptr<BodyTable> bodies;  // of the root graph and all that came of it
  const std::shared_ptr<BatchGain> batch_gain = std::make_shared<BatchGain>();
  // Per input: whether plans depend on its shape. An input that goes to host steps alone, such as
  // an image that is only resized or cropped, may have another shape with every request.
  const std::vector<bool> shape_matters;
  const GraphPtr source;  // null: it is no body
};
using PlannedGraphPtr = std::shared_ptr<const PlannedGraph>;

// Bodies that are in use, by the graph that they were made of, and what is left of graphs after
// their host steps: plans for several shape classes of one graph run the same bodies and the same
// rests where these are equal, and so the plans that those have. Thread-safe.
class BodyTable {
 public:
  // The body of If/Loop/Scan/MapRows ready to be planned; captures become trailing inputs.
  PlannedGraphPtr Get(const GraphPtr& body, const PlannedGraph& whole);
  PlannedGraphPtr GetRest(Graph rest, const PlannedGraph& whole);

 private:
  struct Entry {
    std::weak_ptr<const Graph> source;  // the key's object, or gone
    std::weak_ptr<const PlannedGraph> planned;
  };
  std::mutex mutex_;  // guards what follows
  std::map<const Graph*, Entry> entries_;
  std::multimap<uint64_t, std::weak_ptr<const PlannedGraph>> rests_;  // by a hash
};

// How deep bodies may nest in bodies; a request that goes deeper fails with kResourceExhausted.
inline constexpr int kMaxBodyDepth = 32;

// Index into the values that a running plan holds.
using Slot = uint32_t;
inline constexpr Slot kNoSlot = UINT32_MAX;

// One node run on the host: control flow, data-dependent shapes, strings, and trifles that are
// cheaper done than dispatched.
struct HostStep {
  std::shared_ptr<const Graph> owner;  // keeps `node`'s graph alive for the evaluator
  NodeId node;
  std::vector<Slot> inputs;    // kNoSlot for an absent one
  std::vector<Slot> captures;  // feeds implicit_inputs
  std::vector<Slot> outputs;
  std::vector<std::pair<std::string, PlannedGraphPtr>> bodies;  // by attribute name
  PlannedGraphPtr Body(const std::string& attribute) const;
};

// A static region that takes one row, as far as its shapes tell: what programs for several are made
// from.
struct BatchRegion {
  GraphPtr graph;  // before fusion; null: it cannot be
  CompileOptions options;
  std::shared_ptr<BatchGain> gain;  // of the planned graph
};

class PlanBatcher;
struct RequestEnvironment;

struct GraphPlan {
  uint32_t num_slots = 0;  // graph inputs come first
  std::vector<std::pair<Slot, Tensor>> constants;
  ProgramPtr program;  // null when nothing is static
  std::vector<Slot> program_inputs, program_outputs;
  BatchRegion region;  // of `program`
  // It is for one row, `program` is all there is to it, and the graph takes any number of rows,
  // each by itself: so that requests of several may be run as rows of its batches.
  bool takes_rows = false;
  std::vector<HostStep> host_steps;  // in order, after the program
  PlannedGraphPtr rest;              // null when nothing is left
  std::vector<Slot> rest_inputs, rest_outputs;
  std::vector<Slot> outputs;  // one per graph output
  size_t bytes = 0;           // for the cache's budget

  // Of everything after `program`: its jobs alone on the device, and its host steps; learned from
  // requests that came this way. Null when nothing comes after it.
  std::shared_ptr<TimeEstimate> after;
  Duration RemainingAfter() const {
    return after != nullptr ? NanosecondsOf(after->mean_ns()) : Duration{0};
  }

  // Where rows of many requests meet; made when first asked for. Requires a region.
  const std::shared_ptr<PlanBatcher>& Batcher(RequestEnvironment& env) const;

 private:
  mutable std::once_flag batcher_made_;
  mutable std::shared_ptr<PlanBatcher> batcher_;
};
using GraphPlanPtr = std::shared_ptr<const GraphPlan>;

// The profile store's key of a time that `graph` takes; `what` tells which.
ContentHash HashOfPath(std::string_view what, const Graph& graph, Precision precision);

// Builds the plan for `inputs` (one per graph input). May take milliseconds. Errors name the graph
// and the node. `times` knows what was learned of the same graph and shapes before.
Result<GraphPlanPtr> BuildPlan(const PlannedGraph& planned, std::span<const KnownInput> inputs,
                               const Evaluator& evaluator, Compiler& compiler, ProfileStore& times);

// The program for `rows` rows of a region whose program for one row is `one`. kFailedPrecondition:
// its rows are not independent, and why. May take milliseconds. `bytes`: what it holds besides what
// the plan of one row holds already.
Result<ProgramPtr> BuildBatch(const BatchRegion& region, const Program& one, uint32_t rows,
                              const Evaluator& evaluator, Compiler& compiler, size_t* bytes);

// The load-time half: canonical form, row maps generalised where row independence is proven,
// weights folded. kUnimplemented names the first operator that nothing here can run.
Result<Graph> PrepareGraph(const Graph& imported, const Evaluator& evaluator);

}  // namespace plexus
