#include "serve/model_config.h"

#include "yaml/yaml_reader.h"

namespace plexus {
namespace {

constexpr size_t kMaxWarmUps = 64;
constexpr int64_t kMaxTraceSample = 1'000'000;

Status ReadVersions(const YAML::Node& yaml, const std::string& file, ModelConfig* config) {
  if (yaml.IsScalar() && yaml.Scalar() == "latest") {
    config->versions = ModelConfig::Versions::kLatest;
  } else if (yaml.IsScalar() && yaml.Scalar() == "all") {
    config->versions = ModelConfig::Versions::kAll;
  } else if (yaml.IsSequence() && yaml.size() > 0) {
    config->versions = ModelConfig::Versions::kListed;
    for (const YAML::Node& version : yaml) {
      const auto number = version.as<int64_t>();
      if (number < 1) return InvalidArgumentError(file + ": key 'versions': versions start at 1");
      config->listed_versions.push_back(number);
    }
  } else {
    return InvalidArgumentError(file + ": key 'versions': expected latest, all or a list");
  }
  return OkStatus();
}

Status ReadWarmUp(const YAML::Node& yaml, const std::string& file, ModelConfig* config) {
  if (!yaml.IsSequence() || yaml.size() > kMaxWarmUps) {
    return InvalidArgumentError(file + ": key 'warm_up': expected a list of at most 64 entries");
  }
  for (const YAML::Node& entry : yaml) {
    if (!entry.IsMap()) {
      return InvalidArgumentError(file + ": key 'warm_up': expected {input: [shape], ...}");
    }
    std::map<std::string, Shape> shapes;
    for (const auto& input : entry) {
      const auto shape = input.second.as<std::vector<int64_t>>();
      const Status fits = NumElements(shape, int64_t{1} << 28).status();
      if (!fits.ok()) return InvalidArgumentError(file + ": key 'warm_up': " + fits.message());
      shapes[input.first.as<std::string>()] = shape;
    }
    config->warm_up.push_back(std::move(shapes));
  }
  return OkStatus();
}

}  // namespace

Result<ModelConfig> ParseModelConfig(std::string_view yaml, const std::string& file_name) {
  ModelConfig config;
  if (yaml.find_first_not_of(" \t\r\n") == std::string_view::npos) return config;
  try {
    PLEXUS_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file_name));
    YamlMap map(root, file_name);
    const std::string precision = map.String("precision", "float32");
    if (precision == "bf16" || precision == "bfloat16") {
      config.precision = Precision::kBFloat16;
    } else if (precision != "float32") {
      map.Fail("key 'precision': expected float32 or bf16");
    }
    const int64_t memory = map.Int("request_memory_bytes", 0);
    if (memory < 1 && map.Has("request_memory_bytes")) {
      map.Fail("key 'request_memory_bytes': expected a positive number of bytes");
    }
    config.request_memory_bytes = static_cast<size_t>(memory);
    config.batching = map.Bool("batching", true);
    if (map.Has("trace_sample")) {
      const int64_t sample = map.Int("trace_sample");
      if (sample < 0 || sample > kMaxTraceSample) {
        map.Fail("trace_sample", "expected a whole number from 0 to 1000000");
      } else {
        config.trace_sample = static_cast<uint32_t>(sample);
      }
    }
    const YAML::Node versions = map.Child("versions");
    const YAML::Node warm_up = map.Child("warm_up");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    if (!versions.IsNull()) PLEXUS_RETURN_IF_ERROR(ReadVersions(versions, file_name, &config));
    if (!warm_up.IsNull()) PLEXUS_RETURN_IF_ERROR(ReadWarmUp(warm_up, file_name, &config));
  } catch (const std::exception& e) {
    return InvalidArgumentError(file_name + ": " + e.what());
  }
  return config;
}

}  // namespace plexus
