// Policy: a pure order on ready jobs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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
  // As MakePolicy takes it: "srpt", "stretch(16)", "fair(srpt, 1000)".
  virtual std::string_view name() const = 0;
  virtual PolicyKey Key(const JobView& job, TimePoint now) const = 0;
  // How much device time a tenant may lack of its share before it goes first; Duration::max():
  // any. nullopt: the dispatcher keeps no shares. Constant.
  virtual std::optional<Duration> fair_threshold() const { return std::nullopt; }
};

// What a server runs unless it is told otherwise.
inline constexpr std::string_view kDefaultPolicy = "stretch";

// "fifo", "srpt", ..., "priority(LEVEL)", "stretch(K)", "fair(POLICY, MICROSECONDS)" where POLICY
// is any but fair and the threshold is device time, at least 0, or inf. kInvalidArgument says what
// is wrong and lists the known names. To add one: a class and a line in the table in policies.cc
// (docs/scheduling.md).
Result<std::unique_ptr<Policy>> MakePolicy(std::string_view text);
// Those that need no argument.
std::vector<std::string> PolicyNames();
// All, for people: "fifo, ..., stretch[(K)], fair(POLICY, MICROSECONDS)".
std::string PolicyUsage();

}  // namespace plexus
