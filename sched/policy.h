// Policy: a pure order on ready jobs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "sched/job.h"

namespace plexus {

// Smaller runs first; ties go to the smaller sequence. Never NaN.
using PolicyKey = double;

// Pure: no clock, no allocation, no state. A job's key may change only on that job's own events,
// so `now` may enter only in ways that keep the order of waiting jobs. Thread-safe.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  virtual PolicyKey Key(const JobView& job, TimePoint now) const = 0;
};

// "fifo", "srpt", ...; kInvalidArgument lists the known names. To add one: a class and a line in
// the table in policies.cc (docs/scheduling.md).
Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name);
std::vector<std::string> PolicyNames();

}  // namespace plexus
