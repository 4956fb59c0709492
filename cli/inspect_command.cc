#include <algorithm>
#include <cstdio>
#include <set>

#include "base/json_writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/targets.h"
#include "graph/constant_store.h"

namespace plexus::cli {
namespace {

struct GraphSummary {
  size_t nodes = 0;
  std::map<std::string, size_t> operators;
  std::set<const Constant*> constants;
  size_t constant_bytes = 0;
};

void Summarise(const Graph& graph, GraphSummary* out) {
  for (const Value& value : graph.values()) {
    if (value.IsConstant() && out->constants.insert(value.constant.get()).second) {
      out->constant_bytes += value.constant->size_bytes();
    }
  }
  for (const Node& node : graph.nodes()) {
    ++out->nodes;
    ++out->operators[node.domain.empty() ? node.op : node.domain + "." + node.op];
    for (const auto& [name, attribute] : node.attributes) {
      const auto* body = std::get_if<std::shared_ptr<const Graph>>(&attribute);
      if (body != nullptr && *body != nullptr) Summarise(**body, out);
    }
  }
}

double Microseconds(Duration time) { return static_cast<double>(time.count()) / 1000; }

void WriteTensors(const std::vector<TensorMetadata>& tensors, JsonWriter& json) {
  json.BeginArray();
  for (const TensorMetadata& tensor : tensors) {
    json.BeginObject();
    json.Key("name").String(tensor.name);
    json.Key("datatype").String(DTypeProtocolName(tensor.dtype));
    json.Key("shape").String(tensor.shape.ToString());
    json.EndObject();
  }
  json.EndArray();
}

void WriteRegion(const Program& program, JsonWriter& json) {
  json.BeginObject();
  json.Key("name").String(program.name);
  json.Key("inputs").BeginArray();
  for (const ProgramValue& value : program.inputs) {
    json.String(value.name + " " + std::string(DTypeProtocolName(value.dtype)) +
                ShapeToString(value.shape));
  }
  json.EndArray();
  json.Key("arena_bytes").Uint(program.arena_bytes);
  json.Key("constant_bytes").Uint(program.constant_bytes);
  json.Key("flops").Double(program.flops);
  json.Key("estimated_us").Double(Microseconds(program.EstimatedTime()));
  json.Key("kernels").BeginArray();
  for (const Kernel& kernel : program.kernels) {
    json.BeginObject();
    json.Key("name").String(kernel.name);
    json.Key("grid").Uint(kernel.grid);
    json.Key("flops").Double(kernel.flops);
    json.Key("bytes").Double(kernel.bytes);
    json.Key("estimated_us").Double(Microseconds(kernel.estimated_block_time * kernel.grid));
    json.EndObject();
  }
  json.EndArray();
  json.EndObject();
}

void PrintRegion(const Program& program, size_t index) {
  std::printf(
      "  region %zu: %zu kernels, %s arena, %s packed constants, %.4g MFLOP, %s estimated\n", index,
      program.kernels.size(), HumanBytes(program.arena_bytes).c_str(),
      HumanBytes(program.constant_bytes).c_str(), program.flops / 1e6,
      HumanTime(program.EstimatedTime()).c_str());
  std::printf("    %6s %10s %10s %10s  %s\n", "grid", "MFLOP", "bytes", "estimated", "kernel");
  for (const Kernel& kernel : program.kernels) {
    std::printf("    %6u %10.4g %10s %10s  %s\n", kernel.grid, kernel.flops / 1e6,
                HumanBytes(kernel.bytes).c_str(),
                HumanTime(kernel.estimated_block_time * kernel.grid).c_str(), kernel.name.c_str());
  }
}

void PrintGraph(const Target& target, const GraphSummary& summary) {
  std::printf("%s (%s, loaded in %s)\n", target.name.c_str(), target.servable->platform.c_str(),
              HumanTime(target.load_time).c_str());
  for (const auto& [label, tensors] : {std::pair{"input", &target.servable->inputs},
                                       std::pair{"output", &target.servable->outputs}}) {
    for (const TensorMetadata& tensor : *tensors) {
      std::printf("  %-6s %s: %s%s\n", label, tensor.name.c_str(),
                  std::string(DTypeProtocolName(tensor.dtype)).c_str(),
                  tensor.shape.ToString().c_str());
    }
  }
  std::printf("  %zu nodes:", summary.nodes);
  std::vector<std::pair<size_t, std::string>> by_count;
  for (const auto& [op, count] : summary.operators) by_count.emplace_back(count, op);
  std::sort(by_count.rbegin(), by_count.rend());
  for (const auto& [count, op] : by_count) std::printf(" %s %zu", op.c_str(), count);
  std::printf("\n  %zu constants, %s\n", summary.constants.size(),
              HumanBytes(summary.constant_bytes).c_str());
}

// Writes one target; false when it failed.
bool InspectTarget(const Target& target, const std::map<std::string, Shape>& shapes,
                   Runtime& runtime, bool as_json, JsonWriter& json) {
  Status status = target.status;
  std::vector<ProgramPtr> programs;
  GraphSummary summary;
  if (status.ok()) {
    Summarise(target.servable->executable->graph(), &summary);
    if (!as_json) PrintGraph(target, summary);
    const Result<std::vector<Tensor>> inputs = ZeroInputs(*target.servable, shapes);
    status = inputs.status();
    if (inputs.ok()) status = runtime.Warm(target.servable->executable, *inputs);
    programs = runtime.Programs(target.servable->executable);
    if (!status.ok()) {
      status = status.WithContext("cannot compile for these shapes (see --shape)");
    }
  }
  if (!as_json) {
    for (size_t i = 0; i < programs.size(); ++i) PrintRegion(*programs[i], i);
    if (!status.ok()) {
      std::fflush(stdout);
      std::fprintf(stderr, "plexus: %s: %s\n", target.name.c_str(), status.message().c_str());
    }
    return status.ok();
  }
  json.BeginObject();
  json.Key("name").String(target.name);
  if (!status.ok()) json.Key("error").String(status.message());
  if (target.servable != nullptr) {
    json.Key("platform").String(target.servable->platform);
    json.Key("load_us").Double(Microseconds(target.load_time));
    json.Key("inputs");
    WriteTensors(target.servable->inputs, json);
    json.Key("outputs");
    WriteTensors(target.servable->outputs, json);
    json.Key("nodes").Uint(summary.nodes);
    json.Key("operators").BeginObject();
    for (const auto& [op, count] : summary.operators) json.Key(op).Uint(count);
    json.EndObject();
    json.Key("constants").Uint(summary.constants.size());
    json.Key("constant_bytes").Uint(summary.constant_bytes);
    json.Key("regions").BeginArray();
    for (const ProgramPtr& program : programs) WriteRegion(*program, json);
    json.EndArray();
  }
  json.EndObject();
  return status.ok();
}

}  // namespace

int Inspect(const InspectFlags& flags) {
  const auto shapes = ParseShapes(flags.shapes);
  if (!shapes.ok()) {
    Fail(shapes.status());
    return kExitUsage;
  }
  Result<std::unique_ptr<Runtime>> runtime = Runtime::Create(ToOptions(flags.runtime));
  if (!runtime.ok()) return Fail(runtime.status());
  const Result<std::vector<Target>> targets = LoadTargets(flags.path, **runtime);
  if (!targets.ok()) return Fail(targets.status());
  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("models").BeginArray();
  bool ok = true;
  for (const Target& target : *targets) {
    ok &= InspectTarget(target, *shapes, **runtime, flags.json, json);
  }
  json.EndArray();
  const ConstantStore::Stats store = ConstantStore::Get().GetStats();
  json.Key("stored_constant_bytes").Uint(store.plain_bytes);
  json.Key("packed_constant_bytes").Uint(store.derived_bytes);
  json.Key("shared_constant_bytes").Uint(store.shared_bytes);
  json.EndObject();
  if (flags.json) {
    std::printf("%s\n", text.c_str());
  } else {
    std::printf("all constants: %s stored, %s packed, %s not stored twice\n",
                HumanBytes(store.plain_bytes).c_str(), HumanBytes(store.derived_bytes).c_str(),
                HumanBytes(store.shared_bytes).c_str());
  }
  return ok ? kExitOk : kExitFailure;
}

}  // namespace plexus::cli
