// The one place that knows how to make and run oneDNN primitives inside a worker: OpenMP width one,
// user scratchpads, no allocation per run, exceptions turned into Status.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <dnnl.hpp>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "graph/constant_store.h"

namespace plexus::cpu {

// The process's CPU engine; never destroyed.
const dnnl::engine& DnnlEngine();

// While alive, the calling thread makes primitives for one thread (they would otherwise be built
// for all cores, and some would fall to slow reference code).
class OneThreadScope {
 public:
  OneThreadScope();
  ~OneThreadScope();
  OneThreadScope(const OneThreadScope&) = delete;
  OneThreadScope& operator=(const OneThreadScope&) = delete;

 private:
  int previous_;
};

// A dnnl::memory that does not change between runs: packed weights, bias.
struct FixedArgument {
  int index = 0;
  dnnl::memory memory;
};

// A primitive and pooled argument objects. Thread-safe; shared between programs.
class DnnlPrimitive {
 public:
  // One argument whose address changes from run to run.
  struct Slot {
    int index = 0;
    dnnl::memory::desc desc;
  };
  // `scratchpad`: descriptor of the user scratchpad (may be empty). May throw dnnl::error.
  DnnlPrimitive(dnnl::primitive primitive, std::vector<Slot> slots, dnnl::memory::desc scratchpad,
                std::string implementation);
  ~DnnlPrimitive();

  size_t scratch_bytes() const { return scratch_bytes_; }
  const std::string& implementation() const { return implementation_; }
  // Runs on the calling thread. `addresses` belong to the slots, in order; kInternal when oneDNN
  // reports an error.
  Status Run(std::span<void* const> addresses, std::span<const FixedArgument> fixed,
             void* scratch) const;

 private:
  struct State;  // one set of memory objects
  State* Acquire() const;
  void Release(State* state) const;

  dnnl::primitive primitive_;
  std::vector<Slot> slots_;
  dnnl::memory::desc scratchpad_;
  size_t scratch_bytes_;
  std::string implementation_;
  mutable std::atomic_flag lock_ = ATOMIC_FLAG_INIT;  // guards free_
  mutable std::vector<State*> free_;
};
using DnnlPrimitivePtr = std::shared_ptr<const DnnlPrimitive>;

// The primitive for `key`, made by `make` if no program holds it. `make` may throw dnnl::error.
// Equal concurrent calls may make it twice and keep one.
Result<DnnlPrimitivePtr> CachedPrimitive(
    const std::string& key, const std::function<std::shared_ptr<DnnlPrimitive>()>& make);

// Names a descriptor's layout exactly, for derived-constant keys.
std::string DescKey(const dnnl::memory::desc& desc);

// `plain` (row-major, described by `from`) reordered to `to`, shared through the constant store.
// The constant gives up its plain bytes if the inverse reorder restores them exactly.
Result<DerivedPtr> PackConstant(const Constant& constant, const dnnl::memory::desc& from,
                                const dnnl::memory::desc& to);

}  // namespace plexus::cpu
