#include "serve/group.h"

#include <algorithm>
#include <set>
#include <utility>

#include "pipeline/stage_scope.h"
#include "serve/tenants.h"
#include "yaml/yaml_reader.h"

namespace plexus {

Result<std::shared_ptr<Servable>> MakeGroup(Runtime& runtime, const std::string& name,
                                            std::span<const ServablePtr> members) {
  if (members.empty() || members.size() > kMaxGroupMembers) {
    return InvalidArgumentError("a group has 1 to " + std::to_string(kMaxGroupMembers) +
                                " members, '" + name.substr(0, 80) + "' has " +
                                std::to_string(members.size()));
  }
  auto group = std::make_shared<Servable>();
  group->name = name;
  group->version = "1";
  group->platform = "plexus_group";
  std::set<std::string> names;
  std::vector<ExecutablePtr> executables;
  for (const ServablePtr& member : members) {
    if (!names.insert(member->name).second) {
      return InvalidArgumentError("'" + member->name + "' stands twice in '" + name + "'");
    }
    if (!member->states.empty()) {
      return InvalidArgumentError("'" + member->name +
                                  "' keeps state from request to request: it is asked by itself");
    }
    group->models.push_back(member->name);
    executables.push_back(member->executable);
    for (TensorMetadata output : member->outputs) {
      output.name = member->name + "." + output.name;
      // A model's declared sizes may be an example's: nothing to hold its results against.
      if (member->platform == "onnx") output.shape = SymbolicShape();
      group->outputs.push_back(std::move(output));
    }
    group->config.request_memory_bytes =
        std::max(group->config.request_memory_bytes, member->config.request_memory_bytes);
    group->config.batching = group->config.batching && member->config.batching;
    group->config.precision = member->config.precision;  // the same in all, or it is not loaded
    if (member->config.trace_sample) group->config.trace_sample = member->config.trace_sample;
  }
  PLEXUS_ASSIGN_OR_RETURN(group->executable, runtime.LoadGroup(name, executables));
  const Graph& graph = group->executable->graph();
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    group->inputs.push_back({value.name, value.dtype, value.shape});
  }
  group->members.assign(members.begin(), members.end());
  return group;
}

Result<std::optional<GroupFile>> ParseGroup(std::string_view yaml, const std::string& file_name) {
  try {
    PLEXUS_ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file_name));
    YamlMap map(root, file_name);
    const YAML::Node members = map.Child("group");
    if (members.IsNull()) return std::optional<GroupFile>();
    GroupFile file;
    file.name = map.String("name");
    file.tenant = map.String("tenant", "");
    if (!members.IsSequence() || members.size() == 0 || members.size() > kMaxGroupMembers) {
      map.Fail("group", "expected a list of 1 to " + std::to_string(kMaxGroupMembers) +
                            " models and pipelines");
    } else {
      file.members = map.Strings("group");
    }
    PLEXUS_RETURN_IF_ERROR(map.Finish());
    if (!IsStageName(file.name)) {
      return InvalidArgumentError(file_name + ": 'name' must be letters, digits, '-' and '_'");
    }
    return std::optional<GroupFile>(std::move(file));
  } catch (const std::exception& e) {  // yaml-cpp reports by exceptions
    return InvalidArgumentError(file_name + ": " + e.what());
  }
}

std::vector<std::string> SplitGroup(const std::string& text) {
  std::vector<std::string> names;
  if (text.find(',') == text.npos) return names;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    names.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

}  // namespace plexus
