#include "serve/server_config.h"

#include <fstream>

#include "sched/fair_share.h"
#include "sched/policy.h"
#include "serve/tenants.h"
#include "yaml/yaml_reader.h"

namespace plexus {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;

Status ReadTenants(const YAML::Node& yaml, const std::string& where, ServerConfig* config) {
  if (!yaml.IsMap()) {
    return InvalidArgumentError(where + ": key 'tenants': expected {NAME: {weight: 3}, ...}");
  }
  for (const auto& entry : yaml) {
    const std::string name = entry.first.as<std::string>();
    YamlMap tenant(entry.second, where + ": tenant '" + name + "'");
    if (const Status good = TenantTable::CheckName(name); !good.ok()) tenant.Fail(good.message());
    const double weight = tenant.Double("weight", 1);
    if (const Status good = FairShare::CheckWeight(weight); !good.ok()) {
      tenant.Fail("weight", good.message());
    }
    PLEXUS_RETURN_IF_ERROR(tenant.Finish());
    config->tenant_weights[name] = weight;
  }
  return OkStatus();
}

Status ReadSessions(const YAML::Node& yaml, const std::string& where, SessionLimits* limits) {
  YamlMap map(yaml, where + ": key 'sessions'");
  const auto read = [&map](const char* key, size_t* limit) {
    const int64_t value = map.Int(key, static_cast<int64_t>(*limit));
    if (value < 1) map.Fail(key, "expected at least 1");
    *limit = static_cast<size_t>(value);
  };
  read("max", &limits->max_sessions);
  read("max_bytes", &limits->max_bytes);
  read("max_waiting", &limits->max_waiting);
  return map.Finish();
}

}  // namespace

Result<ServerConfig> ParseServerConfig(std::string_view yaml, const std::string& file_name) {
  ServerConfig config;
  if (yaml.find_first_not_of(" \t\r\n") == std::string_view::npos) return config;
  try {
    PLEXUS_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file_name));
    YamlMap map(root, file_name);
    if (map.Has("policy")) {
      config.policy = map.String("policy");
      const auto policy = MakePolicy(*config.policy);
      if (!policy.ok()) map.Fail("policy", policy.status().message());
    }
    if (map.Has("drop_late")) config.drop_late = map.Bool("drop_late", false);
    const YAML::Node tenants = map.Child("tenants");
    const YAML::Node sessions = map.Child("sessions");
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    if (!sessions.IsNull()) {
      PLEXUS_RETURN_IF_ERROR(ReadSessions(sessions, file_name, &config.sessions));
    }
    if (!tenants.IsNull()) PLEXUS_RETURN_IF_ERROR(ReadTenants(tenants, file_name, &config));
  } catch (const std::exception& e) {
    return InvalidArgumentError(file_name + ": " + e.what());
  }
  return config;
}

Result<ServerConfig> ReadServerConfig(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFoundError("configuration file '" + path.string() + "' cannot be read");
  std::string text(kMaxFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (in.bad() || text.size() > kMaxFileBytes) {
    return InvalidArgumentError("configuration file '" + path.string() +
                                "' cannot be read or is larger than 1 MiB");
  }
  return ParseServerConfig(text, path.string());
}

}  // namespace plexus
