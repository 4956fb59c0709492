// plexus_trace_overhead [--rounds N] [--first MODE] NAME=FILE=COUNT...: the same requests with the
// trace recorder on, off and absent, in turn, in one process. Prints one JSON object;
// bench/trace_overhead.py makes the result of it.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "graph/onnx/onnx_import.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

using Json = nlohmann::json;

// Requests in flight: enough that a worker never waits for the next one.
constexpr size_t kInFlight = 4;
constexpr const char* kModes[] = {"absent", "off", "on"};

struct Model {
  std::string name, path;
  int count = 1;  // requests per round
  std::vector<Tensor> inputs;
};

double Seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

Result<std::vector<Tensor>> RandomInputs(const Graph& graph) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<Tensor> inputs;
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    Shape shape;
    for (const SymbolicDim& dim : value.shape.dims) shape.push_back(dim.value.value_or(1));
    PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(value.dtype, shape));
    if (value.dtype != DType::kFloat32) return UnimplementedError("input " + value.name);
    float* data = reinterpret_cast<float*>(tensor.raw_mutable());
    for (int64_t i = 0; i < tensor.num_elements(); ++i) data[i] = normal(random);
    inputs.push_back(std::move(tensor));
  }
  return inputs;
}

// A runtime with every model loaded, and a closed loop on it.
class Subject {
 public:
  Status Load(bool tracing, std::vector<Model>& models) {
    RuntimeOptions options;
    options.tracing = tracing;
    // Requests bring the same input again and again: each is to be computed, and by itself.
    options.share_work = false;
    options.batching = "none";
    PLEXUS_ASSIGN_OR_RETURN(runtime_, Runtime::Create(options));
    for (Model& model : models) {
      PLEXUS_ASSIGN_OR_RETURN(const GraphPtr graph, ImportOnnxFile(model.path));
      PLEXUS_ASSIGN_OR_RETURN(ExecutablePtr loaded, runtime_->Load(model.name, graph, {}));
      if (model.inputs.empty()) {
        PLEXUS_ASSIGN_OR_RETURN(model.inputs, RandomInputs(loaded->graph()));
      }
      executables_.push_back(std::move(loaded));
    }
    return OkStatus();
  }
  TraceRecorder& trace() { return runtime_->trace(); }

  // Every request of `order` (indices into models), kInFlight at a time.
  Status Run(const std::vector<Model>& models, const std::vector<size_t>& order) {
    models_ = &models;
    order_ = &order;
    next_ = done_ = 0;
    for (size_t i = 0; i < kInFlight; ++i) StartNext();
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return done_ == order.size(); });
    return failure_;
  }

 private:
  void StartNext() {
    size_t request;
    {
      std::lock_guard lock(mutex_);
      if (next_ == order_->size()) return;
      request = (*order_)[next_++];
    }
    runtime_->Start(executables_[request], (*models_)[request].inputs, {}, [this](RunResult r) {
      StartNext();
      std::lock_guard lock(mutex_);
      if (!r.status.ok()) failure_ = r.status;
      if (++done_ == order_->size()) finished_.notify_one();
    });
  }

  std::vector<ExecutablePtr> executables_;
  const std::vector<Model>* models_ = nullptr;
  const std::vector<size_t>* order_ = nullptr;
  std::mutex mutex_;  // guards everything below
  std::condition_variable finished_;
  size_t next_ = 0, done_ = 0;
  Status failure_;
  std::unique_ptr<Runtime> runtime_;  // last: its threads use the others until it is gone
};

// One event on `threads` threads at once, ns.
double NsPerEvent(int threads) {
  TraceRecorder recorder;
  recorder.Start({});
  constexpr int kEvents = 2'000'000;
  const double begin = Seconds(CLOCK_MONOTONIC);
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&recorder] {
      TraceEvent event;
      for (int i = 0; i < kEvents; ++i) {
        event.job = static_cast<uint64_t>(i);
        recorder.Record(event);
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  return (Seconds(CLOCK_MONOTONIC) - begin) / kEvents * 1e9;
}

Result<Json> Measure(std::vector<Model> models, int rounds, const std::string& first) {
  Subject with, without;
  // Which one is made first is what the memory looks like: the caller runs both.
  PLEXUS_RETURN_IF_ERROR((first == "absent" ? without : with).Load(first != "absent", models));
  PLEXUS_RETURN_IF_ERROR((first == "absent" ? with : without).Load(first == "absent", models));
  // Long and short ones mixed, the same for all.
  std::vector<size_t> order;
  for (size_t m = 0; m < models.size(); ++m) order.insert(order.end(), models[m].count, m);
  std::mt19937 random(1);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  Json measured{{"rounds", Json::array()}};
  double on_seconds = 0;
  uint64_t events = 0;
  for (int round = -2; round < rounds; ++round) {  // the first two warm up
    Json times;
    for (int step = 0; step < 3; ++step) {
      const int mode = round % 2 == 0 ? step : 2 - step;
      Subject& subject = mode == 0 ? without : with;
      if (mode == 2) subject.trace().Start({});
      const double cpu = Seconds(CLOCK_PROCESS_CPUTIME_ID);
      const double wall = Seconds(CLOCK_MONOTONIC);
      PLEXUS_RETURN_IF_ERROR(subject.Run(models, order));
      const double took = Seconds(CLOCK_MONOTONIC) - wall;
      times[kModes[mode]] = {{"ms", took * 1e3},
                             {"cpu_ms", (Seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e3}};
      if (mode != 2) continue;
      subject.trace().Stop();
      const TraceRecorder::Stats stats = subject.trace().stats();
      on_seconds += took;
      events += stats.events + stats.dropped;
    }
    if (round >= 0) measured["rounds"].push_back(times);
  }
  measured["requests_per_round"] = order.size();
  measured["events_per_s"] = static_cast<double>(events) / on_seconds;
  measured["ns_per_event"] = NsPerEvent(1);
  measured["ns_per_event_2_threads"] = NsPerEvent(2);
  return measured;
}

int Main(int argc, char** argv) {
  SetLogLevel(LogLevel::kWarning);
  int rounds = 10;
  std::string first = "off";
  std::vector<Model> models;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--rounds" && i + 1 < argc) {
      rounds = std::atoi(argv[++i]);
    } else if (arg == "--first" && i + 1 < argc) {
      first = argv[++i];
    } else {
      const size_t from = arg.find('='), to = arg.rfind('=');
      if (from == to) {
        std::cerr
            << "usage: plexus_trace_overhead [--rounds N] [--first MODE] NAME=FILE=COUNT...\n";
        return 2;
      }
      models.push_back({arg.substr(0, from),
                        arg.substr(from + 1, to - from - 1),
                        std::atoi(arg.c_str() + to + 1),
                        {}});
    }
  }
  const Result<Json> measured = Measure(std::move(models), rounds, first);
  if (!measured.ok()) {
    std::cerr << measured.status().ToString() << "\n";
    return 1;
  }
  std::cout << measured->dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) { return plexus::Main(argc, argv); }
