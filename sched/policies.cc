// The policies. To add one: a class and a line in kPolicies.
#include <iterator>
#include <string>

#include "sched/policy.h"

namespace plexus {
namespace {

double Nanoseconds(Duration d) { return static_cast<double>(d.count()); }

// First come, first served, by arrival at the server.
class FifoPolicy : public Policy {
 public:
  std::string_view name() const override { return "fifo"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return Nanoseconds(job.arrival.time_since_epoch());
  }
};

// Shortest remaining processing time: what is left of the job and of its request's path (paella.md,
// "Remaining time"). Least mean completion time on one device; long jobs wait.
class SrptPolicy : public Policy {
 public:
  std::string_view name() const override { return "srpt"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return Nanoseconds(job.remaining_time);
  }
};

template <typename P>
std::unique_ptr<Policy> Make() {
  return std::make_unique<P>();
}

struct PolicyEntry {
  std::string_view name;
  std::unique_ptr<Policy> (*make)();
};
constexpr PolicyEntry kPolicies[] = {
    {"fifo", Make<FifoPolicy>},
    {"srpt", Make<SrptPolicy>},
};

}  // namespace

Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name) {
  std::string known;
  for (const PolicyEntry& entry : kPolicies) {
    if (entry.name == name) return entry.make();
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  return InvalidArgumentError("unknown policy '" + std::string(name) + "'; known: " + known);
}

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  for (const PolicyEntry& entry : kPolicies) names.emplace_back(entry.name);
  return names;
}

}  // namespace plexus
