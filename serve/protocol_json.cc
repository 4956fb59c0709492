#include "serve/protocol_json.h"

#include "base/json_writer.h"

namespace plexus {
namespace {

// −1 stands for a dimension that the request chooses; so does a tensor's whole unknown shape.
void WriteDims(const SymbolicShape& shape, JsonWriter& json) {
  json.BeginArray();
  if (!shape.has_rank) json.Int(-1);
  for (const SymbolicDim& dim : shape.dims) json.Int(dim.value.value_or(-1));
  json.EndArray();
}

void WriteTensors(const std::vector<TensorMetadata>& tensors, JsonWriter& json) {
  json.BeginArray();
  for (const TensorMetadata& tensor : tensors) {
    json.BeginObject();
    json.Key("name").String(tensor.name);
    json.Key("datatype").String(DTypeProtocolName(tensor.dtype));
    json.Key("shape");
    WriteDims(tensor.shape, json);
    json.EndObject();
  }
  json.EndArray();
}

void WriteConfigTensors(const std::vector<TensorMetadata>& tensors, JsonWriter& json) {
  json.BeginArray();
  for (const TensorMetadata& tensor : tensors) {
    json.BeginObject();
    json.Key("name").String(tensor.name);
    const std::string_view type =
        tensor.dtype == DType::kString ? "STRING" : DTypeProtocolName(tensor.dtype);
    json.Key("data_type").String("TYPE_" + std::string(type));
    json.Key("dims");
    WriteDims(tensor.shape, json);
    json.EndObject();
  }
  json.EndArray();
}

void WriteCount(const char* key, uint64_t count, uint64_t ns, JsonWriter& json) {
  json.Key(key).BeginObject();
  json.Key("count").Uint(count);
  json.Key("ns").Uint(ns);
  json.EndObject();
}

// Counts that order nothing.
uint64_t Get(const std::atomic<uint64_t>& value) { return value.load(std::memory_order_relaxed); }

void WriteStatistics(const Servable& servable, JsonWriter& json) {
  const ServableStats& stats = servable.stats;
  const uint64_t success = Get(stats.success);
  json.BeginObject();
  json.Key("name").String(servable.name);
  json.Key("version").String(servable.version);
  json.Key("last_inference").Uint(Get(stats.last_inference_ms));
  json.Key("inference_count").Uint(success);
  json.Key("execution_count").Uint(success);
  json.Key("inference_stats").BeginObject();
  WriteCount("success", success, Get(stats.request_ns), json);
  WriteCount("fail", Get(stats.failure), Get(stats.failure_ns), json);
  WriteCount("queue", success, Get(stats.queue_ns), json);
  WriteCount("compute_input", success, Get(stats.input_ns), json);
  WriteCount("compute_infer", success, Get(stats.compute_ns), json);
  WriteCount("compute_output", success, Get(stats.output_ns), json);
  WriteCount("cache_hit", Get(stats.cache_hit), Get(stats.cache_hit_ns), json);
  WriteCount("cache_miss", Get(stats.cache_miss), Get(stats.cache_miss_ns), json);
  json.EndObject();
  json.Key("batch_stats").BeginArray();
  json.EndArray();
  json.EndObject();
}

}  // namespace

std::string ServerMetadataJson() {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject();
  json.Key("name").String("plexus");
  json.Key("version").String(kServerVersion);
  json.Key("extensions").BeginArray();
  for (const char* extension : {"binary_tensor_data", "model_configuration", "model_repository",
                                "model_repository(unload_dependents)", "parameters",
                                "schedule_policy", "sequence", "statistics"}) {
    json.String(extension);
  }
  json.EndArray();
  json.EndObject();
  return out;
}

std::string ModelMetadataJson(const Servable& servable, const std::vector<std::string>& versions) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject();
  json.Key("name").String(servable.name);
  json.Key("versions").BeginArray();
  for (const std::string& version : versions) json.String(version);
  json.EndArray();
  json.Key("platform").String(servable.platform);
  json.Key("inputs");
  WriteTensors(servable.inputs, json);
  json.Key("outputs");
  WriteTensors(servable.outputs, json);
  json.EndObject();
  return out;
}

std::string ModelConfigJson(const Servable& servable) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject();
  json.Key("name").String(servable.name);
  json.Key("platform").String(servable.platform);
  json.Key("backend").String("plexus");
  json.Key("max_batch_size").Int(0);
  json.Key("input");
  WriteConfigTensors(servable.inputs, json);
  json.Key("output");
  WriteConfigTensors(servable.outputs, json);
  json.Key("version_policy").BeginObject();
  if (servable.config.versions == ModelConfig::Versions::kAll) {
    json.Key("all").BeginObject();
  } else if (servable.config.versions == ModelConfig::Versions::kListed) {
    json.Key("specific").BeginObject();
    json.Key("versions").BeginArray();
    for (const int64_t version : servable.config.listed_versions) json.Int(version);
    json.EndArray();
  } else {
    json.Key("latest").BeginObject();
    json.Key("num_versions").Int(1);
  }
  json.EndObject();
  json.EndObject();
  if (!servable.states.empty()) {
    json.Key("sequence_batching").BeginObject();
    json.Key("max_sequence_idle_microseconds")
        .Int(std::chrono::duration_cast<std::chrono::microseconds>(servable.session_idle).count());
    json.EndObject();
  }
  json.Key("parameters").BeginObject();
  json.Key("precision").BeginObject();
  const bool bf16 = servable.config.precision == Precision::kBFloat16;
  json.Key("string_value").String(bf16 ? "bf16" : "float32");
  json.EndObject();
  json.EndObject();
  json.EndObject();
  return out;
}

std::string StatisticsJson(const std::vector<ServablePtr>& servables) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject();
  json.Key("model_stats").BeginArray();
  for (const ServablePtr& servable : servables) WriteStatistics(*servable, json);
  json.EndArray();
  json.EndObject();
  return out;
}

std::string ModelListJson(const std::vector<ServablePtr>& servables) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject();
  json.Key("models").BeginArray();
  const std::string* previous = nullptr;  // versions of one model follow each other
  for (const ServablePtr& servable : servables) {
    if (previous == nullptr || *previous != servable->name) json.String(servable->name);
    previous = &servable->name;
  }
  json.EndArray();
  json.EndObject();
  return out;
}

std::string IndexJson(const std::vector<IndexEntry>& entries, bool ready_only) {
  std::string out;
  JsonWriter json(&out);
  json.BeginArray();
  for (const IndexEntry& entry : entries) {
    if (ready_only && !entry.ready) continue;
    json.BeginObject();
    json.Key("name").String(entry.name);
    json.Key("version").String(entry.version);
    json.Key("state").String(entry.ready ? "READY" : "UNAVAILABLE");
    json.Key("reason").String(entry.reason);
    json.EndObject();
  }
  json.EndArray();
  return out;
}

}  // namespace plexus
