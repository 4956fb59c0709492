// The documents of the Open Inference Protocol v2 that describe the server and its models.
#pragma once

#include <string>
#include <vector>

#include "serve/repository.h"

namespace plexus {

inline constexpr char kServerVersion[] = PLEXUS_VERSION;

std::string ServerMetadataJson();
// `versions`: all that are loaded.
std::string ModelMetadataJson(const Servable& servable, const std::vector<std::string>& versions);
std::string ModelConfigJson(const Servable& servable);
std::string StatisticsJson(const std::vector<ServablePtr>& servables);
std::string ModelListJson(const std::vector<ServablePtr>& servables);
std::string IndexJson(const std::vector<IndexEntry>& entries, bool ready_only);

}  // namespace plexus
