// The policies. To add one: a class and a line in kPolicies (docs/scheduling.md).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "sched/policy.h"

namespace plexus {
namespace {

double Nanoseconds(Duration d) { return static_cast<double>(d.count()); }
double Nanoseconds(TimePoint t) { return Nanoseconds(t.time_since_epoch()); }

// First come, first served, by arrival at the server.
class FifoPolicy : public Policy {
 public:
  std::string_view name() const override { return "fifo"; }
  PolicyKey Key(const JobView& job, TimePoint) const override { return Nanoseconds(job.arrival); }
};

// Shortest job first, by the whole request's time; what it has had so far does not count.
class SjfPolicy : public Policy {
 public:
  std::string_view name() const override { return "sjf"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return Nanoseconds(job.service_time);
  }
};

// Shortest remaining processing time: what is left of the job and of its request's path.
// Least mean completion time on one device; long jobs wait.
class SrptPolicy : public Policy {
 public:
  std::string_view name() const override { return "srpt"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return Nanoseconds(job.remaining_time);
  }
};

// Round robin: whose last turn is longest ago. A new job counts as served when it was submitted, so
// that a stream of new ones does not hold up the old.
class RoundRobinPolicy : public Policy {
 public:
  std::string_view name() const override { return "rr"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return static_cast<double>(job.last_turn);
  }
};

// Earliest deadline first. Jobs without a deadline come after all others, by arrival.
class EdfPolicy : public Policy {
 public:
  std::string_view name() const override { return "edf"; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return job.deadline ? std::min(Nanoseconds(*job.deadline), kNever)
                        : kNever + Nanoseconds(job.arrival);
  }

 private:
  static constexpr double kNever = 1e17;  // three years; leaves arrivals beside it 16 ns apart
};

// The most urgent level first (1), by arrival within a level. A request without a priority is of
// the default level, so that there is room above and below it.
class PriorityPolicy : public Policy {
 public:
  static constexpr double kDefaultLevel = 2;
  explicit PriorityPolicy(std::string name, double default_level)
      : name_(std::move(name)), default_level_(default_level) {}
  std::string_view name() const override { return name_; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    const double level = job.priority == 0 ? default_level_ : job.priority;
    return level * kYear + Nanoseconds(job.arrival);  // a server's clock starts near 0
  }

 private:
  static constexpr double kYear = 3.2e16;
  const std::string name_;
  const double default_level_;
};

// Bounded slowdown: as if every job were due k times its own time after it arrived. Short jobs
// overtake long ones, but only those that arrived up to k times the long one's time later.
class StretchPolicy : public Policy {
 public:
  static constexpr double kFactor = 8;
  explicit StretchPolicy(std::string name, double k) : name_(std::move(name)), k_(k) {}
  std::string_view name() const override { return name_; }
  PolicyKey Key(const JobView& job, TimePoint) const override {
    return Nanoseconds(job.arrival) + k_ * Nanoseconds(job.service_time);
  }

 private:
  const std::string name_;
  const double k_;
};

// Another policy's order, and the dispatcher keeps the tenants' shares (sched/fair_share.h).
class FairPolicy : public Policy {
 public:
  FairPolicy(std::string name, std::unique_ptr<Policy> inner, Duration threshold)
      : name_(std::move(name)), inner_(std::move(inner)), threshold_(threshold) {}
  std::string_view name() const override { return name_; }
  PolicyKey Key(const JobView& job, TimePoint now) const override { return inner_->Key(job, now); }
  std::optional<Duration> fair_threshold() const override { return threshold_; }

 private:
  const std::string name_;
  const std::unique_ptr<Policy> inner_;
  const Duration threshold_;
};

// --- By name

struct PolicyEntry {
  std::string_view name;
  std::unique_ptr<Policy> (*make)();
  // With an argument, "name(argument)"; null where there is none. A null result: a bad argument.
  std::unique_ptr<Policy> (*make_with)(const std::string& text, double argument) = nullptr;
  std::string_view argument_name = "";
  std::string_view argument = "";  // what it must be
};

template <typename P>
std::unique_ptr<Policy> Make() {
  return std::make_unique<P>();
}

constexpr PolicyEntry kPolicies[] = {
    {"fifo", Make<FifoPolicy>},
    {"sjf", Make<SjfPolicy>},
    {"rr", Make<RoundRobinPolicy>},
    {"srpt", Make<SrptPolicy>},
    {"edf", Make<EdfPolicy>},
    {"priority",
     []() -> std::unique_ptr<Policy> {
       return std::make_unique<PriorityPolicy>("priority", PriorityPolicy::kDefaultLevel);
     },
     [](const std::string& text, double level) -> std::unique_ptr<Policy> {
       if (!(level >= 1 && level <= 1e6) || level != std::floor(level)) return nullptr;
       return std::make_unique<PriorityPolicy>(text, level);
     },
     "LEVEL", "the level of requests without a priority, a whole number from 1"},
    {"stretch",
     []() -> std::unique_ptr<Policy> {
       return std::make_unique<StretchPolicy>("stretch", StretchPolicy::kFactor);
     },
     [](const std::string& text, double k) -> std::unique_ptr<Policy> {
       if (!(k >= 0 && k <= 1e6)) return nullptr;
       return std::make_unique<StretchPolicy>(text, k);
     },
     "K", "the slowdown that is aimed at, a number from 0 to 1000000"},
};

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<double> ParseNumber(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || std::isnan(value)) return {};
  return value;
}

// "name" or "name(inside)", spaces allowed; nullopt when parentheses do not fit.
struct Call {
  std::string_view name;
  std::optional<std::string_view> inside;
};
std::optional<Call> SplitCall(std::string_view text) {
  text = Trim(text);
  const size_t open = text.find('(');
  if (open == text.npos) return Call{text, std::nullopt};
  if (text.back() != ')') return std::nullopt;
  return Call{Trim(text.substr(0, open)), Trim(text.substr(open + 1, text.size() - open - 2))};
}

Status Wrong(std::string_view text, const std::string& why) {
  return InvalidArgumentError("policy '" + std::string(text.substr(0, 80)) + "': " + why);
}

Status Unknown(std::string_view text, std::string_view name) {
  return InvalidArgumentError(
      "unknown policy '" + std::string(name.substr(0, 80)) + "'" +
      (name == text ? "" : " in '" + std::string(text.substr(0, 80)) + "'") +
      "; known: " + PolicyUsage());
}

// All but fair().
Result<std::unique_ptr<Policy>> MakePlain(std::string_view text) {
  const std::optional<Call> call = SplitCall(text);
  if (!call) return Wrong(text, "parentheses do not match");
  for (const PolicyEntry& entry : kPolicies) {
    if (entry.name != call->name) continue;
    if (!call->inside) return entry.make();
    if (entry.make_with == nullptr) return Wrong(text, "takes no argument");
    const std::optional<double> argument = ParseNumber(*call->inside);
    const std::string canonical = std::string(call->name) + "(" + std::string(*call->inside) + ")";
    std::unique_ptr<Policy> policy = argument ? entry.make_with(canonical, *argument) : nullptr;
    if (policy == nullptr) return Wrong(text, "expected " + std::string(entry.argument));
    return policy;
  }
  return Unknown(text, call->name);
}

Result<std::unique_ptr<Policy>> MakeFair(std::string_view text, std::string_view inside) {
  const size_t comma = inside.rfind(',');
  if (comma == inside.npos) {
    return Wrong(text, "expected a policy and a threshold in microseconds: fair(srpt, 1000)");
  }
  const std::string_view inner_text = Trim(inside.substr(0, comma));
  const std::string_view number = Trim(inside.substr(comma + 1));
  PLEXUS_ASSIGN_OR_RETURN(std::unique_ptr<Policy> inner, MakePlain(inner_text));
  const std::optional<double> microseconds = ParseNumber(number);
  if (!microseconds || *microseconds < 0) {
    return Wrong(text, "the threshold is microseconds of device time, at least 0, or inf; got '" +
                           std::string(number.substr(0, 40)) + "'");
  }
  // Beyond a year it cannot be told from infinity.
  const Duration threshold =
      *microseconds >= 3e13 ? Duration::max() : Duration(std::llround(*microseconds * 1e3));
  std::string name = "fair(" + std::string(inner->name()) + ", " + std::string(number) + ")";
  return std::unique_ptr<Policy>(
      std::make_unique<FairPolicy>(std::move(name), std::move(inner), threshold));
}

}  // namespace

Result<std::unique_ptr<Policy>> MakePolicy(std::string_view text) {
  if (text.size() > 200) return Wrong(text, "is too long for a policy");
  const std::optional<Call> call = SplitCall(text);
  if (!call) return Wrong(text, "parentheses do not match");
  if (call->name != "fair") return MakePlain(text);
  return MakeFair(text, call->inside.value_or(""));
}

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  for (const PolicyEntry& entry : kPolicies) names.emplace_back(entry.name);
  return names;
}

std::string PolicyUsage() {
  std::string usage;
  for (const PolicyEntry& entry : kPolicies) {
    usage += std::string(entry.name);
    if (!entry.argument_name.empty()) usage += "[(" + std::string(entry.argument_name) + ")]";
    usage += ", ";
  }
  return usage + "fair(POLICY, MICROSECONDS)";
}

}  // namespace plexus
