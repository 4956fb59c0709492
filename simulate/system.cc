#include "simulate/system.h"

#include "simulate/host.h"

namespace plexus {
namespace {

using Make = std::unique_ptr<SystemRun> (*)(const Workload&, const std::vector<Arrival>&,
                                            const RunHooks&);
struct Entry {
  const char* name;
  Make make;
};
constexpr Entry kSystems[] = {
    {"one-stream", MakeSubmitAll}, {"stream-per-job", MakeSubmitAll},
    {"job-by-job", MakeSubmitAll}, {"kernel-by-kernel", MakeKernelByKernel},
    {"paella", MakePaella},        {"bounded", MakeBounded},
    {"plexus", MakePlexus},
};

}  // namespace

std::vector<std::string> SystemNames() {
  std::vector<std::string> names;
  for (const Entry& entry : kSystems) names.emplace_back(entry.name);
  return names;
}

Result<SimulationResult> RunWorkload(const Workload& workload, const std::vector<Arrival>& arrivals,
                                     const RunHooks& hooks) {
  PLEXUS_RETURN_IF_ERROR(CheckWorkload(workload));
  for (const Entry& entry : kSystems) {
    if (workload.system.name == entry.name) return entry.make(workload, arrivals, hooks)->Run();
  }
  return InternalError("system '" + workload.system.name + "' passed the check");
}

}  // namespace plexus
