#include "program/program.h"

#include <limits>

namespace plexus {

Duration Program::EstimatedTime() const {
  // Saturates: an absurd estimate must not wrap round to a short one.
  constexpr auto kMax = std::numeric_limits<Duration::rep>::max();
  Duration::rep total = 0;
  for (const Kernel& kernel : kernels) {
    Duration::rep part;
    if (__builtin_mul_overflow(kernel.estimated_block_time.count(),
                               static_cast<Duration::rep>(kernel.grid), &part) ||
        __builtin_add_overflow(total, part, &total)) {
      return Duration(kMax);
    }
  }
  return Duration(total);
}

Status ValidateProgram(const Program& program) {
  const size_t count = program.kernels.size();
  auto fail = [&](size_t i, const std::string& what) {
    return InternalError("program '" + program.name + "', kernel " + std::to_string(i) + " '" +
                         program.kernels[i].name + "': " + what);
  };
  std::vector<uint32_t> incoming(count, 0);
  for (size_t i = 0; i < count; ++i) {
    const Kernel& kernel = program.kernels[i];
    if (kernel.grid == 0) return fail(i, "has no blocks");
    if (kernel.estimated_block_time <= Duration::zero()) {
      return fail(i, "estimated_block_time is not positive");
    }
    std::vector<bool> seen(count, false);
    for (KernelId successor : kernel.successors) {
      if (!successor.valid() || successor.value() >= count) {
        return fail(i, "names a successor that does not exist");
      }
      if (seen[successor.value()]) return fail(i, "names a successor twice");
      seen[successor.value()] = true;
      ++incoming[successor.value()];
    }
  }
  std::vector<size_t> ready;
  for (size_t i = 0; i < count; ++i) {
    if (incoming[i] != program.kernels[i].dependencies) {
      return fail(i, "counts " + std::to_string(program.kernels[i].dependencies) +
                         " dependencies, but is the successor of " + std::to_string(incoming[i]));
    }
    if (incoming[i] == 0) ready.push_back(i);
  }
  size_t finished = 0;
  while (!ready.empty()) {
    const size_t i = ready.back();
    ready.pop_back();
    ++finished;
    for (KernelId successor : program.kernels[i].successors) {
      if (--incoming[successor.value()] == 0) ready.push_back(successor.value());
    }
  }
  for (size_t i = 0; finished < count && i < count; ++i) {
    if (incoming[i] > 0) return fail(i, "waits on a cycle of kernels");
  }
  return OkStatus();
}

}  // namespace plexus
