#include <cstdio>
#include <tuple>

#include "base/json_writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/files.h"
#include "cli/inspect_text.h"
#include "cli/targets.h"
#include "graph/constant_store.h"
#include "paths/drawing.h"
#include "serve/path_index.h"

namespace plexus::cli {
namespace {

void Summarise(const Graph& graph, Inspection* out) {
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
    json.Key("shape").String(ShapeText(tensor.shape));
    json.EndObject();
  }
  json.EndArray();
}

void WriteValues(const std::vector<ProgramValue>& values, JsonWriter& json) {
  json.BeginArray();
  for (const ProgramValue& value : values) {
    json.String(value.name + " " + std::string(DTypeProtocolName(value.dtype)) +
                ShapeToString(value.shape));
  }
  json.EndArray();
}

void WriteStages(const std::vector<PipelineStage>& stages, JsonWriter& json) {
  json.BeginArray();
  for (const PipelineStage& stage : stages) {
    json.BeginObject();
    json.Key("name").String(stage.name);
    json.Key(stage.model.empty() ? "op" : "model")
        .String(stage.model.empty() ? stage.op : stage.model);
    json.Key("map_rows").Bool(stage.map_rows);
    json.Key("inputs").BeginArray();
    for (const std::string& input : stage.inputs) json.String(input);
    json.EndArray();
    json.Key("nodes").Uint(stage.nodes);
    json.Key("constant_bytes").Uint(stage.constant_bytes);
    json.EndObject();
  }
  json.EndArray();
}

void WriteRegion(const Program& program, JsonWriter& json) {
  json.BeginObject();
  json.Key("name").String(program.name);
  json.Key("inputs");
  WriteValues(program.inputs, json);
  json.Key("outputs");
  WriteValues(program.outputs, json);
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

Inspection Look(const Target& target, const Shapes& shapes, Runtime& runtime) {
  Inspection inspection;
  inspection.trial = Try(target, shapes, runtime);
  inspection.trial.inputs.clear();
  if (target.servable == nullptr) return inspection;
  Summarise(target.servable->executable->graph(), &inspection);
  inspection.programs = runtime.Programs(target.servable->executable);
  return inspection;
}

void WriteTarget(const Target& target, const Inspection& inspection, JsonWriter& json) {
  const Trial& trial = inspection.trial;
  json.BeginObject();
  json.Key("name").String(target.name);
  if (!trial.status.ok()) json.Key("error").String(trial.status.message());
  if (!trial.advice.empty()) json.Key("advice").String(trial.advice);
  if (target.servable != nullptr) {
    const Servable& servable = *target.servable;
    json.Key("platform").String(servable.platform);
    json.Key("load_us").Double(Microseconds(target.load_time));
    json.Key("inputs");
    WriteTensors(servable.inputs, json);
    json.Key("outputs");
    WriteTensors(servable.outputs, json);
    json.Key("stages");
    WriteStages(servable.stages, json);
    json.Key("nodes").Uint(inspection.nodes);
    json.Key("operators").BeginObject();
    for (const auto& [op, count] : inspection.operators) json.Key(op).Uint(count);
    json.EndObject();
    json.Key("constants").Uint(inspection.constants.size());
    json.Key("constant_bytes").Uint(inspection.constant_bytes);
    json.Key("shapes").String(trial.shapes);
    json.Key("regions").BeginArray();
    for (const ProgramPtr& program : inspection.programs) WriteRegion(*program, json);
    json.EndArray();
    const Totals totals = Sum(inspection.programs);
    json.Key("kernels").Uint(totals.kernels);
    json.Key("flops").Double(totals.flops);
    json.Key("estimated_us").Double(Microseconds(totals.estimated));
    json.Key("arena_bytes").Uint(totals.arena_bytes);
  }
  json.EndObject();
}

// Text goes out target by target: a large repository takes a while.
bool InspectAll(const std::vector<Target>& targets, const Shapes& shapes, PathIndex& index,
                Runtime& runtime, bool as_json) {
  std::string text;
  JsonWriter json(&text);
  json.BeginObject();
  json.Key("models").BeginArray();
  bool ok = true, any = false;
  std::vector<Inspection> inspections;
  for (const Target& target : targets) {
    inspections.push_back(Look(target, shapes, runtime));
    const Inspection& inspection = inspections.back();
    const Status& status = inspection.trial.status;
    ok &= status.ok();
    any |= target.servable != nullptr;
    if (as_json) {
      WriteTarget(target, inspection, json);
      continue;
    }
    if (target.servable != nullptr) PrintTarget(target, inspection);
    if (!status.ok()) {
      std::fflush(stdout);
      std::fprintf(stderr, "plexus: %s\n", Complaint(target, status).c_str());
    }
  }
  json.EndArray();
  const PathSummary paths = index.Summary(shapes);
  json.Key("paths");
  WriteSummary(paths, json);
  const ConstantStore::Stats store = ConstantStore::Get().GetStats();
  json.Key("stored_constant_bytes").Uint(store.plain_bytes);
  json.Key("packed_constant_bytes").Uint(store.derived_bytes);
  json.Key("shared_constant_bytes").Uint(store.shared_bytes);
  json.EndObject();
  if (as_json) {
    std::printf("%s\n", text.c_str());
  } else if (any) {
    if (targets.size() > 1) PrintSummary(targets, inspections);
    std::printf("weights in memory: %s as in the files, %s packed for kernels, %s not held twice\n",
                HumanBytes(static_cast<double>(store.plain_bytes)).c_str(),
                HumanBytes(static_cast<double>(store.derived_bytes)).c_str(),
                HumanBytes(static_cast<double>(store.shared_bytes)).c_str());
    if (paths.pipelines > 1) PrintPaths(paths);
  }
  return ok;
}

Status WriteDrawings(PathIndex& index, const Shapes& shapes, const InspectFlags& flags) {
  if (flags.dot_path.empty() && flags.svg_path.empty()) return OkStatus();
  const PathSummary paths = index.Summary(shapes);
  if (!flags.dot_path.empty()) PLEXUS_RETURN_IF_ERROR(WriteFile(flags.dot_path, DrawDot(paths)));
  if (!flags.svg_path.empty()) PLEXUS_RETURN_IF_ERROR(WriteFile(flags.svg_path, DrawSvg(paths)));
  return OkStatus();
}

// Why `flags.diff`'s second pipeline does not use all that the first one does, and the other way
// about.
int ShowDifference(PathIndex& index, const InspectFlags& flags) {
  const std::string &a = flags.diff[0], &b = flags.diff[1];
  const Result<std::string> there = index.FirstDifference(a, b);
  const Result<std::string> back = index.FirstDifference(b, a);
  if (!there.ok()) return Fail(there.status());
  if (!back.ok()) return Fail(back.status());
  if (flags.json) {
    std::string text;
    JsonWriter json(&text);
    WriteDifference(a, b, *there, *back, json);
    std::printf("%s\n", text.c_str());
    return kExitOk;
  }
  for (const auto& [from, to, why] : {std::tuple{&a, &b, &*there}, std::tuple{&b, &a, &*back}}) {
    if (why->empty()) {
      std::printf("all that '%s' computes, '%s' computes too\n", from->c_str(), to->c_str());
    } else {
      std::printf("'%s' leaves what it shares with '%s' at\n  %s\n", from->c_str(), to->c_str(),
                  why->c_str());
    }
  }
  return kExitOk;
}

}  // namespace

int Inspect(const InspectFlags& flags) {
  const Result<Shapes> shapes = ParseShapes(flags.shapes);
  if (!shapes.ok()) return FailUsage("inspect", shapes.status().message());
  RuntimeOptions options = ToOptions(flags.runtime);
  options.share_work = false;  // each model and pipeline by itself, in one piece
  Result<std::unique_ptr<Runtime>> runtime = Runtime::Create(options);
  if (!runtime.ok()) return Fail(runtime.status());
  const Result<std::vector<Target>> targets = LoadTargets(flags.path, **runtime);
  if (!targets.ok()) return Fail(targets.status());
  const Status known = CheckShapes(*targets, *shapes);
  if (!known.ok()) return FailUsage("inspect", known.message());
  PathIndex index(PathIndex::Parts::kLeftOut);
  std::vector<ServablePtr> loaded;
  for (const Target& target : *targets) {
    if (target.servable != nullptr) loaded.push_back(target.servable);
  }
  index.Update(loaded);
  const Status drawn = WriteDrawings(index, *shapes, flags);
  if (!drawn.ok()) return Fail(drawn);
  if (!flags.diff.empty()) return ShowDifference(index, flags);
  return InspectAll(*targets, *shapes, index, **runtime, flags.json) ? kExitOk : kExitFailure;
}

}  // namespace plexus::cli
