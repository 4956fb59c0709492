// The file behind `plexus serve --config`: how the server schedules (docs/config.md).
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "pipeline/session_store.h"

namespace plexus {

struct ServerConfig {
  std::optional<std::string> policy;  // as MakePolicy takes it
  std::optional<bool> drop_late;
  std::map<std::string, double> tenant_weights;
  SessionLimits sessions;
};

// YAML is untrusted; errors name the file, the key and the reason: an unknown key or policy, a
// weight out of bounds. An empty text is an empty configuration.
Result<ServerConfig> ParseServerConfig(std::string_view yaml, const std::string& file_name);
// kNotFound when there is no such file.
Result<ServerConfig> ReadServerConfig(const std::filesystem::path& path);

}  // namespace plexus
