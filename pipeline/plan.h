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
#include <utility>
#include <vector>

#include "base/status.h"
#include "graph/evaluator.h"
#include "graph/graph.h"
#include "graph/passes/passes.h"
#include "program/compiler.h"

namespace plexus {

// A graph that is planned per shape class: a whole model, what is left of one after a host step, or
// the body of a control-flow node. Formal inputs first, captures after them.
class BodyTable;
struct PlannedGraph {
  PlannedGraph(Graph g, CompileOptions o);
  // A body or a rest of `whole`.
  PlannedGraph(Graph g, const PlannedGraph& whole);
  const uint64_t id;  // unique in the process; part of the cache key
  const Graph graph;
  const CompileOptions options;
  const std::shared_ptr<BodyTable> bodies;  // of the root graph and all that came of it
};
using PlannedGraphPtr = std::shared_ptr<const PlannedGraph>;

// Bodies that are in use, by the graph that they were made of: plans for several shape classes of
// one graph run the same bodies, and so the plans that those have. Thread-safe.
class BodyTable {
 public:
  // The body of If/Loop/Scan/MapRows ready to be planned; captures become trailing inputs.
  PlannedGraphPtr Get(const GraphPtr& body, const PlannedGraph& whole);

 private:
  struct Entry {
    std::weak_ptr<const Graph> source;  // the key's object, or gone
    std::weak_ptr<const PlannedGraph> planned;
  };
  std::mutex mutex_;  // guards entries_
  std::map<const Graph*, Entry> entries_;
};

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

struct GraphPlan {
  uint32_t num_slots = 0;  // graph inputs come first
  std::vector<std::pair<Slot, Tensor>> constants;
  ProgramPtr program;  // null when nothing is static
  std::vector<Slot> program_inputs, program_outputs;
  std::vector<HostStep> host_steps;  // in order, after the program
  PlannedGraphPtr rest;              // null when nothing is left
  std::vector<Slot> rest_inputs, rest_outputs;
  std::vector<Slot> outputs;  // one per graph output
  size_t bytes = 0;           // for the cache's budget

  // Of everything after `program`: its jobs alone on the device, and its host steps; learned from
  // requests that came this way, 0 before.
  mutable std::atomic<int64_t> remaining_after_ns{0};
  Duration RemainingAfter() const {
    return Duration(remaining_after_ns.load(std::memory_order_relaxed));  // a statistic
  }
};
using GraphPlanPtr = std::shared_ptr<const GraphPlan>;

// Builds the plan for `inputs` (one per graph input). May take milliseconds. Errors name the graph
// and the node.
Result<GraphPlanPtr> BuildPlan(const PlannedGraph& planned, std::span<const KnownInput> inputs,
                               const Evaluator& evaluator, Compiler& compiler);

// The load-time half: canonical form, row maps generalised where row independence is proven,
// weights folded. kUnimplemented names the first operator that nothing here can run.
Result<Graph> PrepareGraph(const Graph& imported, const Evaluator& evaluator);

}  // namespace plexus
