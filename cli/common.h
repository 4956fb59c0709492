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

// The command line itself is wrong: prints "plexus: message (see plexus COMMAND --help)" to stderr;
// the exit code. `command` is "" where none was named.
int FailUsage(const std::string& command, const std::string& message);

// "1.50 ms", "12.0 MiB": three digits.
std::string HumanTime(Duration time);
std::string HumanBytes(double bytes);

}  // namespace plexus::cli
