// plexus_bench_worker [--threads N]: one JSON command per line on stdin, one JSON answer per line
// on stdout. bench/workers.py documents the commands; its OrtWorker speaks the same.
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/log.h"
#include "bench/load.h"
#include "graph/onnx/onnx_import.h"
#include "pipeline/runtime.h"
#include "sched/policy.h"

namespace plexus {
namespace {

using Json = nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

double MsSince(SteadyClock::time_point from) {
  return std::chrono::duration<double, std::milli>(SteadyClock::now() - from).count();
}

// A field of /proc/self/status in bytes: "VmRSS", "VmHWM".
int64_t StatusBytes(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

Result<Tensor> ReadTensor(const Json& spec) {
  const std::optional<DType> dtype =
      DTypeFromProtocolName(spec.at("dtype").get_ref<const std::string&>());
  if (!dtype) return InvalidArgumentError("unknown dtype");
  PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(*dtype, spec.at("shape").get<Shape>()));
  std::ifstream in(spec.at("file").get<std::string>(), std::ios::binary);
  in.read(reinterpret_cast<char*>(tensor.raw_mutable()),
          static_cast<std::streamsize>(tensor.size_bytes()));
  if (!in) return InvalidArgumentError("input file is too short");
  return tensor;
}

class Worker {
 public:
  explicit Worker(std::unique_ptr<Runtime> runtime)
      : runtime_(std::move(runtime)), load_(*runtime_) {}

  Result<Json> Handle(const Json& command) {
    const auto& name = command.at("cmd").get_ref<const std::string&>();
    if (name == "load") return Load(command);
    if (name == "run") return Run(command);
    if (name == "kernels") return Kernels(command);
    if (name == "prepare") return Prepare(command);
    if (name == "replay") return load_.Replay(command);
    if (name == "clients") return load_.RunClients(command);
    if (name == "policy") return SetPolicy(command);
    if (name == "weight") return SetWeight(command);
    if (name == "unload") {
      load_.Forget(command.at("name").get<std::string>());
      models_.erase(command.at("name").get<std::string>());
      return Json::object();
    }
    if (name == "memory") {
      return Json{{"rss_bytes", StatusBytes("VmRSS")}, {"peak_bytes", StatusBytes("VmHWM")}};
    }
    return InvalidArgumentError("unknown command " + name);
  }

 private:
  Result<Json> Load(const Json& command) {
    const auto begin = SteadyClock::now();
    PLEXUS_ASSIGN_OR_RETURN(const GraphPtr graph,
                            ImportOnnxFile(command.at("path").get<std::string>()));
    const auto name = command.at("name").get<std::string>();
    CompileOptions options;
    if (command.value("precision", "") == "bf16") options.precision = Precision::kBFloat16;
    PLEXUS_ASSIGN_OR_RETURN(models_[name], runtime_->Load(name, graph, options));
    return Json{{"ms", MsSince(begin)}};
  }

  Result<ExecutablePtr> Find(const Json& command) const {
    const auto found = models_.find(command.at("name").get<std::string>());
    if (found == models_.end()) return NotFoundError("model is not loaded");
    return found->second;
  }

  static Result<std::vector<Tensor>> ReadInputs(const Graph& graph, const Json& set) {
    std::vector<Tensor> inputs;
    for (ValueId id : graph.inputs()) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor tensor, ReadTensor(set.at(graph.value(id).name)));
      inputs.push_back(std::move(tensor));
    }
    return inputs;
  }

  Result<Json> Prepare(const Json& command) {
    PLEXUS_ASSIGN_OR_RETURN(const ExecutablePtr model, Find(command));
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> inputs,
                            ReadInputs(model->graph(), command.at("inputs")));
    std::vector<float> expected;
    for (const Json& spec : command.at("expected")) {
      PLEXUS_ASSIGN_OR_RETURN(const Tensor tensor, ReadTensor(spec));
      const std::span<const float> values = tensor.data<float>();
      expected.insert(expected.end(), values.begin(), values.end());
    }
    load_.Prepare(command.value("as", model->name()), model, std::move(inputs),
                  std::move(expected));
    return Json::object();
  }

  Result<Json> SetPolicy(const Json& command) {
    PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<Policy> policy,
                            MakePolicy(command.at("policy").get_ref<const std::string&>()));
    runtime_->dispatcher().SetPolicy(std::move(policy));
    return Json::object();
  }

  Result<Json> SetWeight(const Json& command) {
    PLEXUS_RETURN_IF_ERROR(runtime_->dispatcher().SetTenantWeight(
        TenantId(command.at("tenant").get<uint32_t>()), command.at("weight").get<double>()));
    return Json::object();
  }

  // Runs every input set once per iteration, in turn; one time per run.
  Result<Json> Run(const Json& command) {
    PLEXUS_ASSIGN_OR_RETURN(const ExecutablePtr model, Find(command));
    std::vector<std::vector<Tensor>> sets;
    for (const Json& set : command.at("inputs")) {
      PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> inputs, ReadInputs(model->graph(), set));
      sets.push_back(std::move(inputs));
    }
    const int iterations = command.at("iterations").get<int>();
    Json times = Json::array();
    RunResult result;
    for (int i = 0; i < iterations; ++i) {
      for (const std::vector<Tensor>& inputs : sets) {
        const auto begin = SteadyClock::now();
        result = runtime_->Run(model, inputs);
        times.push_back(MsSince(begin));
        PLEXUS_RETURN_IF_ERROR(result.status);
      }
    }
    Json answer{{"ms", times}};
    if (command.contains("outputs_to")) {
      PLEXUS_ASSIGN_OR_RETURN(answer["outputs"],
                              WriteOutputs(result, command.at("outputs_to").get<std::string>()));
    }
    return answer;
  }

  static Result<Json> WriteOutputs(const RunResult& result, const std::string& prefix) {
    Json outputs = Json::array();
    for (size_t i = 0; i < result.outputs.size(); ++i) {
      const Tensor& t = result.outputs[i];
      const std::string file = prefix + "." + std::to_string(i) + ".bin";
      std::ofstream out(file, std::ios::binary);
      out.write(reinterpret_cast<const char*>(t.raw()),
                static_cast<std::streamsize>(t.size_bytes()));
      if (!out) return InternalError("cannot write " + file);
      outputs.push_back(
          {{"dtype", DTypeProtocolName(t.dtype())}, {"shape", t.shape()}, {"file", file}});
    }
    return outputs;
  }

  // The kernels of the model's programs, for finding out where time goes.
  Result<Json> Kernels(const Json& command) {
    Json programs = Json::array();
    for (const ProgramPtr& program :
         runtime_->Programs(models_.at(command.at("name").get<std::string>()))) {
      Json kernels = Json::array();
      for (const Kernel& k : program->kernels) {
        kernels.push_back({{"name", k.name},
                           {"grid", k.grid},
                           {"flops", k.flops},
                           {"bytes", k.bytes},
                           {"block_us", k.estimated_block_time.count() * 1e-3}});
      }
      programs.push_back({{"arena_bytes", program->arena_bytes}, {"kernels", kernels}});
    }
    return Json{{"programs", programs}};
  }

  std::unique_ptr<Runtime> runtime_;
  std::map<std::string, ExecutablePtr> models_;
  LoadDriver load_;
};

int Main(int argc, char** argv) {
  SetLogLevel(LogLevel::kWarning);
  RuntimeOptions options;
  // Every request to a model brings the same input, which stands for inputs that differ: each is to
  // be computed, and by itself, as it is in ONNX Runtime.
  options.share_work = false;
  options.batching = "none";
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--threads") options.threads = static_cast<uint32_t>(std::stoi(argv[i + 1]));
    if (flag == "--policy") options.policy = argv[i + 1];
    // For requests whose inputs do differ (prepare's `as`).
    if (flag == "--batching") {
      options.batching = argv[i + 1];
      options.share_work = true;
    }
  }
  Result<std::unique_ptr<Runtime>> runtime = Runtime::Create(options);
  if (!runtime.ok()) {
    std::cerr << runtime.status().ToString() << "\n";
    return 1;
  }
  Worker worker(std::move(*runtime));
  for (std::string line; std::getline(std::cin, line);) {
    Json answer;
    try {
      Result<Json> handled = worker.Handle(Json::parse(line));
      answer = handled.ok() ? *handled : Json{{"error", handled.status().ToString()}};
    } catch (const std::exception& e) {
      answer = {{"error", e.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace plexus

int main(int argc, char** argv) { return plexus::Main(argc, argv); }
