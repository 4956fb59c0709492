// A group: several servables that answer one request together, named in the request or by a file
// of pipelines/.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serve/repository.h"

namespace plexus {

inline constexpr size_t kMaxGroupMembers = 64;

// `members` as one: inputs of equal names are one input, output `o` of member `m` is `m.o`, and
// what members have in common runs once. kInvalidArgument names two members that do not go together
// or one that stands twice, and a group that is too large or empty.
Result<std::shared_ptr<Servable>> MakeGroup(Runtime& runtime, const std::string& name,
                                            std::span<const ServablePtr> members);

// The members that a pipeline file names under `group`; nothing for a file without that key.
// kInvalidArgument names the file and the key.
Result<std::optional<GroupFile>> ParseGroup(std::string_view yaml, const std::string& file_name);

// "a,b,c" to its names; empty for a name without a comma.
std::vector<std::string> SplitGroup(const std::string& text);

}  // namespace plexus
