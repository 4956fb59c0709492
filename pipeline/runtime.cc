#include "pipeline/runtime.h"

#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "base/page_pool.h"
#include "device/cpu/cpu_compiler.h"
#include "device/cpu/cpu_device.h"
#include "device/cpu/heap_trimmer.h"
#include "device/cpu/vision/vision_ops.h"
#include "paths/merge.h"
#include "paths/unit.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/housekeeper.h"
#include "pipeline/plan.h"
#include "pipeline/plan_cache.h"
#include "pipeline/request.h"
#include "pipeline/share_history.h"
#include "pipeline/static_check.h"
#include "profile/profile_store.h"
#include "program/reference/reference.h"
#include "sched/policy.h"

namespace plexus {
namespace {

// A second one, so that a large model does not keep the first request of a small one waiting.
constexpr uint32_t kBuildThreads = 2;
constexpr Duration kIdle = std::chrono::seconds(30);  // then memory goes back

class LoadedGraph : public Executable {
 public:
  LoadedGraph(std::string name, PlannedGraphPtr planned, std::shared_ptr<PlanCache> plans,
              std::shared_ptr<PathBook> book, std::shared_ptr<ResultCache> results)
      : deterministic(IsDeterministic(planned->graph)),
        name_(std::move(name)),
        planned_(std::move(planned)),
        plans_(std::move(plans)),
        book_(std::move(book)),
        results_(std::move(results)) {}
  ~LoadedGraph() override {
    book_->Remove(planned_->id);
    plans_->Drop(planned_->id);
    results_->Drop(planned_->id);
  }

  const bool deterministic;  // equal inputs give equal outputs
  mutable ShareHistory history;

  const std::string& name() const override { return name_; }
  const Graph& graph() const override { return planned_->graph; }
  const PlannedGraphPtr& planned() const { return planned_; }

  void Remember(const ProgramPtr& program) {
    std::lock_guard lock(mutex_);
    std::erase_if(programs_, [](const auto& weak) { return weak.expired(); });
    programs_.push_back(program);
  }
  std::vector<ProgramPtr> Programs() const {
    std::vector<ProgramPtr> live;
    std::lock_guard lock(mutex_);
    for (const auto& weak : programs_) {
      if (ProgramPtr program = weak.lock()) live.push_back(std::move(program));
    }
    return live;
  }

 private:
  const std::string name_;
  const PlannedGraphPtr planned_;
  // Theirs as well: an executable may outlive its runtime.
  const std::shared_ptr<PlanCache> plans_;
  const std::shared_ptr<PathBook> book_;
  const std::shared_ptr<ResultCache> results_;
  mutable std::mutex mutex_;  // guards programs_
  std::vector<std::weak_ptr<const Program>> programs_;
};

// Who answers a request: its coroutine, or the housekeeper when its time has passed first.
class Answer {
 public:
  Answer(std::shared_ptr<Request> request, TimePoint arrival, const Clock& clock,
         Runtime::Done done)
      : request_(std::move(request)), arrival_(arrival), clock_(clock), done_(std::move(done)) {}

  const std::shared_ptr<Request>& request() const { return request_; }

  // Nothing happens after the first call of either.
  void Give(RunResult result) {
    if (given_.exchange(true, std::memory_order_acq_rel)) return;  // done_ has one user
    const TimePoint end = clock_.Now();
    const TimePoint first = request_->first_submit();
    result.timings.queue = (first == TimePoint{} ? end : first) - arrival_;
    result.timings.compute = first == TimePoint{} ? Duration{0} : end - first;
    result.memory = request_->memory();
    std::exchange(done_, nullptr)(std::move(result));
  }
  void Expire() {
    RunResult result;
    result.status = DeadlineExceededError("the request's timeout has passed");
    request_->Cancel(result.status);
    Give(std::move(result));
  }

 private:
  const std::shared_ptr<Request> request_;
  const TimePoint arrival_;
  const Clock& clock_;
  std::atomic<bool> given_{false};
  Runtime::Done done_;
};

Status CheckDeadline(const RequestAttributes& attributes) {
  if (!attributes.deadline || *attributes.deadline > attributes.arrival) return OkStatus();
  const Duration before = attributes.arrival - *attributes.deadline;
  return InvalidArgumentError("the request's deadline lies in the past, " +
                              std::to_string(before.count() / 1000) + " us before it arrived");
}

Status CheckInputs(const Graph& graph, const std::vector<Tensor>& inputs) {
  if (inputs.size() != graph.inputs().size()) {
    return InvalidArgumentError("expected " + std::to_string(graph.inputs().size()) +
                                " inputs, got " + std::to_string(inputs.size()));
  }
  std::map<std::string, std::pair<int64_t, std::string>> symbols;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Value& want = graph.value(graph.inputs()[i]);
    const Tensor& got = inputs[i];
    const auto fail = [&](const std::string& what) {
      return InvalidArgumentError("input '" + want.name + "': " + what);
    };
    if (want.dtype == DType::kUndefined) continue;  // a sequence or optional: opaque here
    if (!got.defined()) return fail("is missing");
    if (got.dtype() != want.dtype) {
      return fail("expected " + std::string(DTypeName(want.dtype)) + ", got " +
                  std::string(DTypeName(got.dtype())));
    }
    if (!want.shape.has_rank) continue;
    const std::string shapes =
        "expected shape " + want.shape.ToString() + ", got " + ShapeToString(got.shape());
    if (want.shape.dims.size() != got.shape().size()) return fail(shapes);
    for (size_t d = 0; d < want.shape.dims.size(); ++d) {
      const SymbolicDim& dim = want.shape.dims[d];
      if (dim.value && *dim.value != got.shape()[d]) return fail(shapes);
      if (dim.value || dim.symbol.empty()) continue;
      const auto [it, first] = symbols.try_emplace(dim.symbol, got.shape()[d], want.name);
      if (!first && it->second.first != got.shape()[d]) {
        return fail("dimension " + dim.symbol + " is " + std::to_string(got.shape()[d]) +
                    " here and " + std::to_string(it->second.first) + " in '" + it->second.second +
                    "'");
      }
    }
  }
  return OkStatus();
}

// Remembers the programs that plans are made of, for `plexus inspect`.
class RecordingCompiler : public Compiler {
 public:
  RecordingCompiler(std::unique_ptr<Compiler> inner) : inner_(std::move(inner)) {}
  std::string device_kind() const override { return inner_->device_kind(); }
  Result<ProgramPtr> Compile(const Graph& region, const CompileOptions& options) override {
    Result<ProgramPtr> program = inner_->Compile(region, options);
    if (!program.ok()) return program;
    std::lock_guard lock(mutex_);
    auto it = owners_.find(options.name);
    if (it == owners_.end()) return program;
    if (std::shared_ptr<LoadedGraph> owner = it->second.lock()) owner->Remember(*program);
    return program;
  }
  void SetOwner(const std::string& name, const std::shared_ptr<LoadedGraph>& owner) {
    std::lock_guard lock(mutex_);
    std::erase_if(owners_, [](const auto& entry) { return entry.second.expired(); });
    owners_[name] = owner;
  }

 private:
  std::unique_ptr<Compiler> inner_;
  std::mutex mutex_;  // guards owners_
  std::map<std::string, std::weak_ptr<LoadedGraph>> owners_;
};

class CpuRuntime : public Runtime {
 public:
  CpuRuntime(const RuntimeOptions& options, std::unique_ptr<Policy> policy,
             std::unique_ptr<BatchPolicy> batching)
      : options_(options),
        batching_(std::move(batching)),
        clock_(RealClock::Get()),
        device_(DeviceOptions(options), clock_),
        compiler_(MakeCpuCompiler(CompilerOptions(device_.info().units))),
        dispatcher_(device_, std::move(policy), clock_, profiles_.get(),
                    options.tracing ? &trace_ : nullptr, Limits(options)),
        plans_(std::make_shared<PlanCache>(options.program_cache_bytes, kBuildThreads)),
        flights_(options.share_across_tenants),
        results_(std::make_shared<ResultCache>(options.result_cache_bytes,
                                               options.share_across_tenants)),
        book_(MakeBook(profiles_, plans_, results_)),
        environment_{dispatcher_,
                     *plans_,
                     flights_,
                     *results_,
                     ReferenceEvaluator::Get(),
                     folding_,
                     compiler_,
                     clock_,
                     trace_,
                     *profiles_,
                     std::make_shared<MemoryBudget>("the server", ValueMemoryBytes(options)),
                     options.request_memory_bytes != 0 ? options.request_memory_bytes
                                                       : ValueMemoryBytes(options) / 4,
                     *batching_,
                     options.max_batch,
                     device_.info().units,
                     [this](TimePoint at, std::weak_ptr<void> whose, std::function<void()> work) {
                       housekeeper_.Expect(at, std::move(whose), std::move(work));
                     }},
        housekeeper_(Chores(), clock_) {
    RegisterVisionOps();
    trace_.SetStanding(options_.trace_sample);
    LoadProfiles();
  }

  ~CpuRuntime() override {
    {
      std::unique_lock lock(in_flight_mutex_);
      in_flight_zero_.wait(lock, [this] { return in_flight_ == 0; });
    }
    plans_->Stop();
    device_.Stop();
    SaveProfiles();
  }

  Result<ExecutablePtr> Load(const std::string& name, GraphPtr graph,
                             const CompileOptions& compile) override {
    PLEXUS_ASSIGN_OR_RETURN(Graph prepared, PrepareGraph(*graph, folding_));
    return LoadPrepared(name, std::move(prepared), compile);
  }

  Result<ExecutablePtr> LoadGroup(const std::string& name,
                                  std::span<const ExecutablePtr> members) override {
    std::vector<MergePart> parts;
    CompileOptions compile;
    for (const ExecutablePtr& member : members) {
      const PlannedGraphPtr& planned = static_cast<const LoadedGraph&>(*member).planned();
      if (parts.empty()) compile = planned->options;
      if (planned->options.precision != compile.precision) {
        return InvalidArgumentError("'" + parts[0].name + "' and '" + member->name() +
                                    "' run in different precision: they cannot run as one");
      }
      // Shares ownership with the plan.
      parts.push_back({member->name(), GraphPtr(planned, &planned->graph)});
    }
    PLEXUS_ASSIGN_OR_RETURN(Graph merged, MergeGraphs(name, parts));
    return LoadPrepared(name, std::move(merged), compile);
  }

  std::shared_ptr<CancelToken> Start(ExecutablePtr executable, std::vector<Tensor> inputs,
                                     RequestAttributes attributes, Done done) override {
    if (attributes.arrival == TimePoint{}) attributes.arrival = clock_.Now();
    if (!attributes.request.valid()) done = NumberOwn(*executable, &attributes, std::move(done));
    auto request = std::make_shared<Request>(environment_, attributes);
    {
      std::lock_guard lock(in_flight_mutex_);
      ++in_flight_;
    }
    // Not make_shared: the housekeeper's weak reference must not hold its memory.
    const std::shared_ptr<Answer> answer(
        new Answer(request, attributes.arrival, clock_, std::move(done)));
    if (attributes.timeout_at) {
      // Where no job was running the dispatcher has nothing to drop.
      housekeeper_.Expect(*attributes.timeout_at, answer,
                          [late = answer.get()] { late->Expire(); });
    }
    Drive(answer, std::move(executable), std::move(inputs), CheckDeadline(attributes));
    return request;
  }

  RunResult Run(ExecutablePtr executable, std::vector<Tensor> inputs,
                RequestAttributes attributes) override {
    RunResult result;
    std::atomic<bool> finished{false};
    // Before Start, so that the first launch lands on this thread's own unit.
    CpuDevice::Participant participant(device_);
    Start(std::move(executable), std::move(inputs), attributes, [&](RunResult r) {
      result = std::move(r);
      finished.store(true, std::memory_order_release);  // publishes result
      device_.NotifyDone();
    });
    participant.RunUntil([&] { return finished.load(std::memory_order_acquire); });
    return result;
  }

  Status Warm(ExecutablePtr executable, std::span<const Tensor> inputs) override {
    RequestAttributes attributes;
    attributes.use_cache = false;
    RunResult result = Run(std::move(executable), {inputs.begin(), inputs.end()}, attributes);
    return result.status;
  }

  Dispatcher& dispatcher() override { return dispatcher_; }
  TraceRecorder& trace() override { return trace_; }
  const Clock& clock() const override { return clock_; }

  CacheStats cache_stats() const override {
    const PlanCache::Stats s = plans_->stats();
    return {s.plans, s.bytes, s.hits, s.misses, s.evictions};
  }

  SharingStats sharing_stats() const override {
    const FlightTable::Stats flights = flights_.stats();
    return {flights.led,
            flights.joined,
            flights.raised,
            book_->num_paths(),
            environment_.batches.load(std::memory_order_relaxed),
            environment_.batched_rows.load(std::memory_order_relaxed)};
  }

  ResultCache::Stats result_cache_stats() const override { return results_->stats(); }

  std::vector<ProgramPtr> Programs(const ExecutablePtr& executable) const override {
    return static_cast<const LoadedGraph&>(*executable).Programs();
  }

 private:
  Result<ExecutablePtr> LoadPrepared(const std::string& name, Graph prepared,
                                     CompileOptions compile) {
    PLEXUS_RETURN_IF_ERROR(
        InferStatically(prepared, std::max(options_.arena_budget_bytes, ValueMemoryBytes(options_)))
            .status());
    compile.name = name;
    auto planned = std::make_shared<const PlannedGraph>(std::move(prepared), compile);
    auto loaded = std::make_shared<LoadedGraph>(name, planned, plans_, book_, results_);
    compiler_.SetOwner(name, loaded);
    if (options_.share_work) book_->Add(planned);
    return ExecutablePtr(std::move(loaded));
  }

  Housekeeper::Duties Chores() {
    Housekeeper::Duties duties;
    duties.pump = [this](TimePoint now) { return dispatcher_.Pump(now); };
    duties.tidy = [this] { Tidy(); };
    duties.save = [this] { plans_->Post([this] { SaveProfiles(); }); };  // disks may be slow
    duties.save_every = options_.profile_save_every;
    return duties;
  }
  void Tidy() {
    device_.TrimArenas(kIdle);
    plans_->Sweep();
    PagePool::Process().Tidy();
    if (clock_.Now() - heap_seen_ < kIdle) return;
    heap_seen_ = clock_.Now();
    heap_.Tidy();
  }
  void LoadProfiles() {
    if (options_.profile_path.empty()) return;
    const Status status = profiles_->Load(options_.profile_path);
    if (!status.ok() && status.code() != StatusCode::kNotFound) {
      PLEXUS_LOG(kWarning) << "profile store not read: " << status.ToString();
    }
  }
  void SaveProfiles() {
    if (options_.profile_path.empty()) return;
    std::lock_guard lock(saving_);
    const Status status = profiles_->Save(options_.profile_path);
    if (!status.ok()) PLEXUS_LOG(kWarning) << "profile store not saved: " << status.ToString();
  }

  // Cuts on a build thread.
  static std::shared_ptr<PathBook> MakeBook(const std::shared_ptr<ProfileStore>& profiles,
                                            const std::shared_ptr<PlanCache>& plans,
                                            const std::shared_ptr<ResultCache>& results) {
    auto self = std::make_shared<std::weak_ptr<PathBook>>();
    auto book = std::make_shared<PathBook>(
        profiles,
        [plans, self] {
          plans->Post([self] {
            if (const std::shared_ptr<PathBook> book = self->lock()) book->Refresh();
          });
        },
        [plans, results](uint64_t graph_id) {
          plans->Drop(graph_id);
          results->Drop(graph_id);
        });
    *self = book;
    return book;
  }

  static size_t ValueMemoryBytes(const RuntimeOptions& options) {
    return options.value_memory_bytes != 0 ? options.value_memory_bytes : PhysicalMemoryBytes() / 2;
  }

  // A request that comes from no server gets its number here, and its span if it is recorded.
  Done NumberOwn(const Executable& executable, RequestAttributes* attributes, Done done) {
    const uint64_t number = next_own_request_.fetch_add(1, std::memory_order_relaxed);  // unique
    attributes->request = RequestId(number);
    attributes->traced = trace_.Samples(number);
    if (!attributes->traced || !trace_.enabled()) return done;
    return [this, done = std::move(done), attributes = *attributes,
            name = executable.name()](RunResult result) {
      TraceEvent span;
      span.kind = TraceKind::kRequest;
      span.code = static_cast<uint8_t>(result.status.code());
      span.name = trace_.Intern(name);
      span.begin = attributes.arrival;
      span.end = clock_.Now();
      span.request = attributes.request.value();
      span.tenant = attributes.tenant.value();
      trace_.Record(span);
      done(std::move(result));
    };
  }

  static CpuDeviceOptions DeviceOptions(const RuntimeOptions& options) {
    CpuDeviceOptions device;
    device.workers = options.threads;
    device.pin = options.pin_threads;
    device.arena_budget_bytes = options.arena_budget_bytes;
    return device;
  }
  static DispatcherOptions Limits(const RuntimeOptions& options) {
    DispatcherOptions limits;
    limits.drop_late = options.drop_late;
    return limits;
  }
  static CpuCompilerOptions CompilerOptions(uint32_t workers) {
    CpuCompilerOptions compiler;
    compiler.workers = workers;
    return compiler;
  }

  DetachedTask Drive(std::shared_ptr<Answer> answer, ExecutablePtr executable,
                     std::vector<Tensor> inputs, Status checked) {
    const auto& loaded = static_cast<const LoadedGraph&>(*executable);
    RunResult result;
    result.status = std::move(checked);
    if (result.status.ok()) result.status = CheckInputs(loaded.graph(), inputs);
    if (result.status.ok()) {
      Request& request = *answer->request();
      Result<Tensors> outputs = co_await Walk(request, loaded, std::move(inputs));
      result.timings.cache = request.cache_time();
      if (request.cache_misses() > 0) {
        result.cache = CacheUse::kMiss;
      } else if (request.cache_hits() > 0) {
        result.cache = CacheUse::kHit;
      }
      result.status = outputs.status();
      if (outputs.ok()) result.outputs = std::move(*outputs);
    }
    executable.reset();  // before the answer: who hears it may count on the reference being gone
    answer->Give(std::move(result));
    answer.reset();
    std::lock_guard lock(in_flight_mutex_);
    if (--in_flight_ == 0) in_flight_zero_.notify_all();
  }

  // The executable as a whole, or its path segment by segment where that is worth its cost: where
  // requests of its family often come together.
  Task<Result<Tensors>> Walk(Request& request, const LoadedGraph& loaded, Tensors inputs) {
    const PlannedGraphPtr& whole = loaded.planned();
    if (!options_.share_work || !loaded.deterministic) {
      co_return co_await request.RunGraph(whole, std::move(inputs), 0);
    }
    const RunPathPtr path = book_->Find(whole->id);
    if (path == nullptr) co_return co_await request.RunReused(whole, std::move(inputs));
    const Companions::Stay stay(companions_, HashCombine(path->family, SampleHash(inputs)));
    const Companions::Stay family(companions_, path->family);
    const bool batches = family.met() && batching_->batches() && request.may_batch();
    Result<Tensors> outputs = Tensors();
    if (stay.met() || loaded.history.WorthAPath(*path) ||
        (batches && loaded.history.WorthABatch(*path))) {
      outputs = co_await request.RunPath(path, std::move(inputs));
    } else {
      outputs = co_await request.RunReused(whole, std::move(inputs));
      if (request.spent() > Duration{0}) loaded.history.TookWhole(request.spent());
    }
    loaded.history.Met(stay.had_company());
    co_return outputs;
  }

  const RuntimeOptions options_;
  const std::unique_ptr<BatchPolicy> batching_;
  const Clock& clock_;
  Companions companions_;
  TraceRecorder trace_;
  // Theirs as well that outlive the runtime: executables cut their paths.
  const std::shared_ptr<ProfileStore> profiles_ = std::make_shared<ProfileStore>();
  std::mutex saving_;  // held while they are written, so that the last ones stay
  CpuDevice device_;
  RecordingCompiler compiler_;
  Dispatcher dispatcher_;
  const FoldingEvaluator folding_{ReferenceEvaluator::Get()};
  const std::shared_ptr<PlanCache> plans_;
  FlightTable flights_;
  const std::shared_ptr<ResultCache> results_;
  const std::shared_ptr<PathBook> book_;
  RequestEnvironment environment_;
  HeapTrimmer heap_;  // of the housekeeper's thread, as is the next
  TimePoint heap_seen_{};
  Housekeeper housekeeper_;
  std::mutex in_flight_mutex_;  // guards in_flight_
  std::condition_variable in_flight_zero_;
  size_t in_flight_ = 0;
  // Far from the numbers that a server gives.
  std::atomic<uint64_t> next_own_request_{uint64_t{1} << 48};
};

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::Create(const RuntimeOptions& options) {
  PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy, MakePolicy(options.policy));
  PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<BatchPolicy> batching, MakeBatchPolicy(options.batching));
  if (options.max_batch < 1 || options.max_batch > BatchCurve::kMostRows) {
    return InvalidArgumentError("a batch has at least 1 row and at most " +
                                std::to_string(BatchCurve::kMostRows) + ", not " +
                                std::to_string(options.max_batch));
  }
  return std::unique_ptr<Runtime>(new CpuRuntime(options, std::move(policy), std::move(batching)));
}

}  // namespace plexus
