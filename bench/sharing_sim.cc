// Shared against unshared execution of generated families on a simulated GPU. Requests, paths,
// flights and the dispatcher are the real ones; the device and its clock are simulated (device/sim)
// and nothing is computed. Rows are not batched: what is measured is work that is done once.
//
//   plexus_sharing_sim DEVICE ROWS BLOCKS WIDTH ROUNDS
//
// Prints one JSON object per point: fraction of the work that is shared, pipelines, share of the
// rounds in which all pipelines are asked about the same input. A round asks every pipeline once;
// kInFlight rounds are under way at any time. Deterministic.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <semaphore>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "device/sim/sim_compiler.h"
#include "device/sim/sim_device.h"
#include "paths/family.h"
#include "pipeline/folding_evaluator.h"
#include "pipeline/path_book.h"
#include "pipeline/request.h"
#include "pipeline/result_cache.h"
#include "pipeline/share_history.h"
#include "program/reference/reference.h"
#include "sched/batching.h"

namespace plexus {
namespace {

constexpr int kFractions[] = {0, 25, 50, 75, 100}, kFanOuts[] = {2, 4, 8};
constexpr int kDuplicates[] = {0, 50, 100};
constexpr int kMostMembers = 8, kBlockNodes = 7;
constexpr size_t kInFlight = 4;
constexpr size_t kFreshBytes = size_t{1} << 20;
constexpr int kLearning = 40;  // rounds before those that count

// Marks a job's outputs by its program and inputs, which is all that flights compare.
class MarkingDevice : public Device {
 public:
  explicit MarkingDevice(SimDevice& device) : device_(device) {}
  const DeviceInfo& info() const override { return device_.info(); }
  void SetSink(DeviceEventSink* sink) override { device_.SetSink(sink); }
  Status Submit(const Launch& launch) override {
    if (launch.kernel.value() == 0 && launch.first_block == 0) Mark(*launch.job);
    return device_.Submit(launch);
  }
  Result<std::unique_ptr<Arena>> AllocateArena(size_t size_bytes) override {
    return device_.AllocateArena(size_bytes);
  }
  void Stop() override { device_.Stop(); }

 private:
  static void Mark(JobContext& job) {
    uint64_t mark =
        HashCombine(reinterpret_cast<uintptr_t>(job.program.get()), SampleHash(job.buffers.inputs));
    for (Tensor& output : job.buffers.outputs) {
      // Larger ones are fresh pages, which are zero and stay unmapped.
      if (output.size_bytes() < kFreshBytes) {
        std::memset(output.raw_mutable(), 0, output.size_bytes());
      }
      std::memcpy(output.raw_mutable(), &mark, std::min(sizeof(mark), output.size_bytes()));
      ++mark;
    }
  }
  SimDevice& device_;
};

struct Ask {
  size_t executable;
  Tensor input;
};
using Round = std::vector<Ask>;

// A server's engine on the simulated device, sharing or not. One thread drives it; plans are built
// on another, which works only while this one waits for it.
class SimServer {
 public:
  SimServer(const SimGpuOptions& gpu, bool share)
      : share_(share),
        device_(DeviceOptions(gpu), clock_),
        marking_(device_),
        compiler_(MakeSimCompiler({gpu, {}}).value()),
        dispatcher_(marking_, MakePolicy(kDefaultPolicy).value(), clock_, profiles_.get(), nullptr),
        plans_(size_t{1} << 30, 1),
        book_(
            profiles_, [] {}, [this](uint64_t id) { plans_.Drop(id); }),
        environment_{dispatcher_,
                     plans_,
                     flights_,
                     results_,
                     ReferenceEvaluator::Get(),
                     folding_,
                     *compiler_,
                     clock_,
                     trace_,
                     *profiles_,
                     std::make_shared<MemoryBudget>("the server", size_t{8} << 30),
                     size_t{8} << 30,
                     *batching_,
                     1,
                     device_.info().units,
                     [](TimePoint, std::weak_ptr<void>, std::function<void()> work) { work(); }} {
    HoldBuilds();
  }
  ~SimServer() { gate_->open.release(); }

  Status Load(const std::string& name, const Graph& graph) {
    PLEXUS_ASSIGN_OR_RETURN(Graph prepared, PrepareGraph(graph, folding_));
    CompileOptions options;
    options.name = name;
    auto loaded = std::make_unique<Loaded>();
    loaded->graph = std::make_shared<const PlannedGraph>(std::move(prepared), options);
    if (share_) book_.Add(loaded->graph);
    loaded_.push_back(std::move(loaded));
    return OkStatus();
  }
  void Cut() { book_.Refresh(); }

  // Simulated time of these rounds.
  Result<Duration> Serve(const std::vector<Round>& rounds) {
    const TimePoint begin = clock_.Now();
    rounds_ = &rounds;
    next_ = ended_ = 0;
    while (next_ < std::min(kInFlight, rounds.size())) StartRound();
    while (ended_ < rounds.size()) {
      if (device_.Step()) continue;
      RunBuilds();
      if (!error_.ok()) return error_;
    }
    while (device_.Step()) {
    }
    return clock_.Now() - begin;
  }
  // Device time so far: of its blocks, by the part of a unit that each takes.
  Duration used() const { return dispatcher_.tenant_stats(TenantId(0)).time; }
  FlightTable::Stats flights() const { return flights_.stats(); }

 private:
  struct Loaded {
    PlannedGraphPtr graph;
    ShareHistory history;
  };
  struct Gate {
    std::binary_semaphore entered{0}, open{0};
  };

  static SimDeviceOptions DeviceOptions(const SimGpuOptions& gpu) {
    SimDeviceOptions options;
    options.unit_addressed = false;
    options.gpu = gpu;
    options.arena_budget_bytes = gpu.memory_bytes;
    options.record_history = false;
    return options;
  }

  // The build thread waits at a gate...
  void HoldBuilds() {
    gate_ = std::make_shared<Gate>();
    plans_.Post([gate = gate_] {
      gate->entered.release();
      gate->open.acquire();
    });
    gate_->entered.acquire();
  }
  // ...and does what has come up before it waits at the next.
  void RunBuilds() {
    const std::shared_ptr<Gate> old = gate_;
    gate_ = std::make_shared<Gate>();
    plans_.Post([gate = gate_] {
      gate->entered.release();
      gate->open.acquire();
    });
    old->open.release();
    gate_->entered.acquire();
  }

  void StartRound() {
    const size_t index = next_++;
    left_.resize(rounds_->size());
    left_[index] = (*rounds_)[index].size();
    for (const Ask& ask : (*rounds_)[index]) Drive(index, *loaded_[ask.executable], ask.input);
  }

  DetachedTask Drive(size_t round, Loaded& loaded, Tensor input) {
    RequestAttributes attributes;
    attributes.request = RequestId(next_request_++);
    attributes.arrival = clock_.Now() + Duration(1);  // 0 would mean that nobody knows
    const auto request = std::make_shared<Request>(environment_, attributes);
    Tensors inputs(1, std::move(input));
    const Result<Tensors> outputs = co_await Walk(*request, loaded, std::move(inputs));
    if (!outputs.ok()) error_ = outputs.status();
    if (--left_[round] == 0) {
      ++ended_;
      if (next_ < rounds_->size()) StartRound();
    }
  }

  // As the runtime does (pipeline/runtime.cc).
  Task<Result<Tensors>> Walk(Request& request, Loaded& loaded, Tensors inputs) {
    if (!share_) co_return co_await request.RunGraph(loaded.graph, std::move(inputs), 0);
    const RunPathPtr path = book_.Find(loaded.graph->id);
    if (path == nullptr) co_return co_await request.RunShared(loaded.graph, std::move(inputs));
    const Companions::Stay stay(companions_, HashCombine(path->family, SampleHash(inputs)));
    Result<Tensors> outputs = Tensors();
    if (stay.met() || loaded.history.WorthAPath(*path)) {
      outputs = co_await request.RunPath(path, std::move(inputs));
    } else {
      outputs = co_await request.RunShared(loaded.graph, std::move(inputs));
      if (request.spent() > Duration{0}) loaded.history.TookWhole(request.spent());
    }
    loaded.history.Met(stay.had_company());
    co_return outputs;
  }

  const bool share_;
  ManualClock clock_;
  SimDevice device_;
  MarkingDevice marking_;
  const std::unique_ptr<BatchPolicy> batching_ = MakeBatchPolicy("none").value();
  const std::unique_ptr<Compiler> compiler_;
  const std::shared_ptr<ProfileStore> profiles_ = std::make_shared<ProfileStore>();
  TraceRecorder trace_;
  Dispatcher dispatcher_;
  const FoldingEvaluator folding_{ReferenceEvaluator::Get()};
  PlanCache plans_;
  FlightTable flights_;
  ResultCache results_{0};  // keeps nothing
  PathBook book_;
  Companions companions_;
  RequestEnvironment environment_;
  std::shared_ptr<Gate> gate_;
  std::vector<std::unique_ptr<Loaded>> loaded_;
  uint64_t next_request_ = 0;
  // Of the rounds being served.
  const std::vector<Round>* rounds_ = nullptr;
  size_t next_ = 0, ended_ = 0;
  std::vector<size_t> left_;
  Status error_;
};

struct Sizes {
  int64_t rows = 0;
  int blocks = 0, width = 0, rounds = 0;
};

// Different tensors in turn: more of them than are asked about at one time.
class Inputs {
 public:
  Result<Tensor> Next(const Sizes& sizes) {
    if (made_.size() == 2 * kInFlight * kMostMembers) return made_[next_++ % made_.size()];
    PLEXUS_ASSIGN_OR_RETURN(Tensor tensor,
                            Tensor::Allocate(DType::kFloat32, {sizes.rows, sizes.width}));
    std::memset(tensor.raw_mutable(), 0, tensor.size_bytes());
    const size_t number = made_.size() + 1;
    std::memcpy(tensor.raw_mutable(), &number, sizeof(number));
    made_.push_back(tensor);
    return tensor;
  }

 private:
  std::vector<Tensor> made_;
  size_t next_ = 0;
};

// Every second round of `duplicates` 50 asks all pipelines about one input.
Result<std::vector<Round>> MakeRounds(Inputs& inputs, const Sizes& sizes, int pipelines,
                                      int duplicates, int count) {
  std::vector<Round> rounds;
  for (int r = 0; r < count; ++r) {
    const bool same = duplicates == 100 || (duplicates == 50 && r % 2 == 0);
    Round round;
    PLEXUS_ASSIGN_OR_RETURN(Tensor input, inputs.Next(sizes));
    for (int p = 0; p < pipelines; ++p) {
      if (p > 0 && !same) {
        PLEXUS_ASSIGN_OR_RETURN(input, inputs.Next(sizes));
      }
      round.push_back({static_cast<size_t>(p), input});
    }
    rounds.push_back(std::move(round));
  }
  return rounds;
}

// Device time of one request alone.
Result<Duration> CostAlone(const SimGpuOptions& gpu, const Graph& graph, Inputs& inputs,
                           const Sizes& sizes) {
  SimServer server(gpu, false);
  PLEXUS_RETURN_IF_ERROR(server.Load("alone", graph));
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<Round> one, MakeRounds(inputs, sizes, 1, 0, 1));
  PLEXUS_RETURN_IF_ERROR(server.Serve(one).status());
  return server.used();
}

class Sweep {
 public:
  Sweep(const SimGpuOptions& gpu, const Sizes& sizes) : gpu_(gpu), sizes_(sizes) {}

  Status Run() {
    for (const int fraction : kFractions) PLEXUS_RETURN_IF_ERROR(RunFraction(fraction));
    return OkStatus();
  }

 private:
  Status RunFraction(int fraction) {
    Family family;
    family.kind = FamilyKind::kLastLayers;
    family.width = sizes_.width;
    family.nodes = sizes_.blocks * kBlockNodes;
    family.changed = sizes_.blocks * (100 - fraction) / 100;
    family.seed = static_cast<uint64_t>(fraction + 1);
    std::vector<Graph> members;
    for (int m = 0; m < kMostMembers; ++m) {
      PLEXUS_ASSIGN_OR_RETURN(Graph member, FamilyMember(family, m));
      members.push_back(std::move(member));
    }
    PLEXUS_ASSIGN_OR_RETURN(const Duration whole, CostAlone(gpu_, members[0], inputs_, sizes_));
    Duration stem{0};
    if (family.changed < sizes_.blocks) {
      family.nodes -= family.changed * kBlockNodes;
      family.changed = 0;
      PLEXUS_ASSIGN_OR_RETURN(const Graph common, FamilyMember(family, 0));
      PLEXUS_ASSIGN_OR_RETURN(stem, CostAlone(gpu_, common, inputs_, sizes_));
    }
    for (const int pipelines : kFanOuts) {
      SimServer shared(gpu_, true), unshared(gpu_, false);
      for (SimServer* server : {&shared, &unshared}) {
        for (int m = 0; m < pipelines; ++m) {
          PLEXUS_RETURN_IF_ERROR(
              server->Load("m" + std::to_string(m), members[static_cast<size_t>(m)]));
        }
        server->Cut();
      }
      for (const int duplicates : kDuplicates) {
        const double once = duplicates / 100.0 * (pipelines - 1) * Ns(stem);
        const double limit = pipelines * Ns(whole) / (pipelines * Ns(whole) - once);
        PLEXUS_RETURN_IF_ERROR(
            RunPoint(fraction, pipelines, duplicates, limit, &shared, &unshared));
      }
    }
    return OkStatus();
  }

  Status RunPoint(int fraction, int pipelines, int duplicates, double limit, SimServer* shared,
                  SimServer* unshared) {
    Duration took[2], used[2];
    uint64_t joined = 0;
    for (SimServer* server : {shared, unshared}) {
      // Others before them to learn from: programs, times, and whether requests come together.
      PLEXUS_ASSIGN_OR_RETURN(const std::vector<Round> before,
                              MakeRounds(inputs_, sizes_, pipelines, duplicates, kLearning));
      PLEXUS_RETURN_IF_ERROR(server->Serve(before).status());
      PLEXUS_ASSIGN_OR_RETURN(const std::vector<Round> rounds,
                              MakeRounds(inputs_, sizes_, pipelines, duplicates, sizes_.rounds));
      const size_t i = server == shared ? 0 : 1;
      const Duration used_before = server->used();
      if (server == shared) joined = server->flights().joined;
      PLEXUS_ASSIGN_OR_RETURN(took[i], server->Serve(rounds));
      if (server == shared) joined = server->flights().joined - joined;
      used[i] = server->used() - used_before;
    }
    std::string text;
    JsonWriter json(&text);
    json.BeginObject();
    json.Key("fraction").Int(fraction);
    json.Key("fan_out").Int(pipelines);
    json.Key("duplicates").Int(duplicates);
    json.Key("gain").Double(Ns(took[1]) / Ns(took[0]));
    json.Key("limit").Double(limit);
    json.Key("device_time_gain").Double(Ns(used[1]) / Ns(used[0]));
    json.Key("shared_ms_per_round").Double(Ns(took[0]) / 1e6 / sizes_.rounds);
    json.Key("unshared_ms_per_round").Double(Ns(took[1]) / 1e6 / sizes_.rounds);
    json.Key("joined_per_round").Double(static_cast<double>(joined) / sizes_.rounds);
    json.EndObject();
    std::printf("%s\n", text.c_str());
    std::fflush(stdout);
    return OkStatus();
  }

  static double Ns(Duration time) { return static_cast<double>(time.count()); }

  const SimGpuOptions gpu_;
  const Sizes sizes_;
  Inputs inputs_;
};

int Number(const char* text) {
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  return parsed.ec == std::errc() && parsed.ptr == end ? value : 0;
}

Status Main(char** argv) {
  PLEXUS_ASSIGN_OR_RETURN(const SimGpuOptions gpu, SimGpuPreset(argv[1]));
  const Sizes sizes = {Number(argv[2]), Number(argv[3]), Number(argv[4]), Number(argv[5])};
  if (sizes.rows < 1 || sizes.rows > 65'536 || sizes.blocks < 1 || sizes.rounds < 1) {
    return InvalidArgumentError("a number is missing or out of range");
  }
  return Sweep(gpu, sizes).Run();
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: plexus_sharing_sim DEVICE ROWS BLOCKS WIDTH ROUNDS\n");
    return 2;
  }
  const plexus::Status status = plexus::Main(argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "plexus_sharing_sim: %s\n", status.ToString().c_str());
  return 1;
}
