// HeldBytes: what a plan's graphs hold that nobody else does.
#pragma once

#include <cstddef>
#include <unordered_set>

#include "graph/graph.h"

namespace plexus {

// Counts nodes, and the constants and bodies that were not there before, each once. Thread-
// compatible; the graphs need not outlive it.
class HeldBytes {
 public:
  // `whole` is held by others as long as the plan is of use: its constants and bodies are not
  // counted.
  explicit HeldBytes(const Graph& whole) { Note(whole); }

  // What `graph` adds.
  size_t Add(const Graph& graph);

 private:
  void Note(const Graph& graph);
  std::unordered_set<const void*> known_;  // constants and bodies
};

}  // namespace plexus
