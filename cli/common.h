// What several commands need.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "graph/dtype.h"
#include "pipeline/runtime.h"

namespace plexus::cli {

RuntimeOptions ToOptions(const RuntimeFlags& flags);

// "name=1,3,224,224" each, or a bare "1,3" for the only input (key ""). kInvalidArgument.
Result<std::map<std::string, Shape>> ParseShapes(const std::vector<std::string>& texts);

// Prints "plexus: message" to stderr; the exit code.
int Fail(const Status& status);

// "1.5 ms", "12 MiB"
std::string HumanTime(Duration time);
std::string HumanBytes(double bytes);

}  // namespace plexus::cli
