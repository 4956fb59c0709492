// Runtime: runs graphs on a device, region by region. What `serve` and in-process users call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/memory_budget.h"
#include "base/status.h"
#include "base/trace.h"
#include "graph/graph.h"
#include "pipeline/result_cache.h"
#include "program/compiler.h"
#include "sched/batching.h"
#include "sched/dispatcher.h"
#include "sched/job.h"
#include "sched/policy.h"

namespace plexus {

struct RuntimeOptions {
  uint32_t threads = 0;             // CPU workers; 0: one per core
  std::optional<bool> pin_threads;  // CPU workers to cores; nullopt: where each core has one
  std::string policy = std::string(kDefaultPolicy);  // MakePolicy
  bool drop_late = false;                            // DispatcherOptions::drop_late
  size_t program_cache_bytes = size_t{2} << 30;  // arenas excluded; least recently used go first
  size_t arena_budget_bytes = size_t{4} << 30;
  // Values outside arenas (outputs, and what control flow and data-dependent shapes make): of all
  // requests together, 0: half of the memory; and of one request, 0: a quarter of that.
  size_t value_memory_bytes = 0;
  size_t request_memory_bytes = 0;
  // Equal work that several requests want at once is done once, within a tenant and, if it is said,
  // across tenants (who then may learn from the time it takes what others ask for).
  bool share_work = true;
  bool share_across_tenants = false;
  // What finished results may take that are kept for requests that ask for the same again, within a
  // tenant unless share_across_tenants; 0: none is.
  size_t result_cache_bytes = 0;
  // How rows of requests for the same work become one job (MakeBatchPolicy), and how many at most.
  std::string batching = std::string(kDefaultBatchPolicy);
  uint32_t max_batch = 16;
  std::string profile_path;                               // empty: learned times are not kept
  Duration profile_save_every = std::chrono::minutes(5);  // and at the end
  bool tracing = true;        // false: no recorder at all, to measure what one costs
  uint32_t trace_sample = 0;  // one request in so many is recorded all the time; 0: none
};

// One executable: a canonical graph (a model, or a pipeline's static part) with its own programs
// per shape class. Immutable but for its cache; thread-safe; dies when the last request let go.
class Executable {
 public:
  virtual ~Executable() = default;
  virtual const std::string& name() const = 0;
  virtual const Graph& graph() const = 0;
};
using ExecutablePtr = std::shared_ptr<Executable>;

// Shared flag between a request and whoever may give it up.
class CancelToken {
 public:
  virtual ~CancelToken() = default;
  virtual void Cancel(Status why) = 0;  // idempotent, thread-safe
  virtual bool cancelled() const = 0;
};

struct RunTimings {
  Duration queue{0};    // arrival to first launch
  Duration compute{0};  // first launch to done
  Duration cache{0};    // looking for kept results and keeping new ones
};

// Whether kept results answered a request.
enum class CacheUse : uint8_t {
  kNone,  // nobody looked: there is no cache, or the request must not use it
  kMiss,  // something had to be computed
  kHit,
};

struct RunResult {
  Status status;
  std::vector<Tensor> outputs;  // one per graph output, when OK
  RunTimings timings;
  CacheUse cache = CacheUse::kNone;
  // What the outputs are charged to; null where nothing is counted.
  std::shared_ptr<MemoryBudget> memory;
};

// Thread-safe.
class Runtime {
 public:
  static Result<std::unique_ptr<Runtime>> Create(const RuntimeOptions& options);
  virtual ~Runtime() = default;

  // Takes an imported graph; canonicalises and checks it. kUnimplemented names an operator that
  // neither a kernel nor the reference knows; other errors a node that could not run for any input.
  virtual Result<ExecutablePtr> Load(const std::string& name, GraphPtr graph,
                                     const CompileOptions& options) = 0;

  // Several executables on the same inputs as one that does equal work once (paths/merge.h, which
  // says how inputs and outputs go together). The members may be unloaded meanwhile.
  // kInvalidArgument when they want one input in two types, or differ in precision.
  virtual Result<ExecutablePtr> LoadGroup(const std::string& name,
                                          std::span<const ExecutablePtr> members) = 0;

  using Done = std::function<void(RunResult)>;
  // Starts a request; a deadline not after its arrival is kInvalidArgument. `done` is called once,
  // from any thread, and must not block. Inputs are checked against the graph (name order of
  // graph.inputs(), dtype, shape). The token may be null. A request whose `timeout_at` has passed
  // is answered kDeadlineExceeded at once; what it still runs ends at its next node and is charged
  // until then.
  virtual std::shared_ptr<CancelToken> Start(ExecutablePtr executable, std::vector<Tensor> inputs,
                                             RequestAttributes attributes, Done done) = 0;
  // Synchronous; the calling thread helps as a worker.
  virtual RunResult Run(ExecutablePtr executable, std::vector<Tensor> inputs,
                        RequestAttributes attributes = {}) = 0;
  // Compiles for these inputs' shapes without running.
  virtual Status Warm(ExecutablePtr executable, std::span<const Tensor> inputs) = 0;

  virtual Dispatcher& dispatcher() = 0;
  // Whoever gives requests their ids says which are recorded (RequestAttributes::traced) and
  // records their spans; for the others the runtime does.
  virtual TraceRecorder& trace() = 0;
  virtual const Clock& clock() const = 0;

  struct CacheStats {
    size_t programs = 0, bytes = 0;
    uint64_t hits = 0, misses = 0, evictions = 0;
  };
  virtual CacheStats cache_stats() const = 0;

  struct SharingStats {
    uint64_t led = 0, joined = 0;  // pieces of work done, and asked for while they were under way
    uint64_t raised = 0;           // of those joined, by somebody more urgent
    size_t paths = 0;              // executables that share segments with others
    uint64_t batches = 0, batched_rows = 0;  // jobs of several requests, and the rows in them
  };
  virtual SharingStats sharing_stats() const { return {}; }

  virtual ResultCache::Stats result_cache_stats() const { return {}; }

  // The programs that `executable` has compiled so far (plexus inspect).
  virtual std::vector<ProgramPtr> Programs(const ExecutablePtr& executable) const = 0;
};

}  // namespace plexus
