// The texts of the workload presets. Internal.
#pragma once

#include <span>

namespace plexus {

struct WorkloadPresetText {
  const char* name;
  const char* yaml;
};
extern const std::span<const WorkloadPresetText> kWorkloadPresets;

}  // namespace plexus
