// Who arrives when, from the seed alone.
#include <cmath>
#include <numbers>

#include "simulate/workload.h"

namespace plexus {
namespace {

// SplitMix64 (Steele, Lea and Flood 2014): the same numbers with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // In (0, 1].
  double Uniform() { return static_cast<double>((Next() >> 11) + 1) * 0x1p-53; }
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

}  // namespace

std::vector<Arrival> MakeArrivals(const Workload& workload) {
  const Arrivals& how = workload.arrivals;
  std::vector<Arrival> out;
  out.reserve(workload.jobs);
  if (how.kind == Arrivals::Kind::kTrace) {
    for (const Arrivals::Entry& entry : how.trace)
      out.push_back({TimePoint(entry.at), entry.model});
    return out;
  }
  // Gaps and models are drawn apart, so that the mix is the same at every load and sigma.
  Random gaps(workload.seed), models(workload.seed ^ 0x6d6f64656c73);
  double total = 0;
  for (const SimModel& model : workload.models) total += model.share;
  const double mean_ns = static_cast<double>(how.mean_gap.count());
  const double mu = std::log(mean_ns) - how.sigma * how.sigma / 2;
  double at_ns = 0;
  for (uint32_t j = 0; j < workload.jobs; ++j) {
    if (how.kind == Arrivals::Kind::kLognormal) at_ns += std::exp(mu + how.sigma * gaps.Normal());
    if (how.kind == Arrivals::Kind::kPoisson) at_ns -= mean_ns * std::log(gaps.Uniform());
    double pick = models.Uniform() * total;
    uint32_t model = 0;
    while (model + 1 < workload.models.size() && pick > workload.models[model].share) {
      pick -= workload.models[model++].share;
    }
    // A year is long enough for any queue; it keeps the clock far from its end.
    constexpr double kYearNs = 3.2e16;
    out.push_back({TimePoint(Duration(static_cast<int64_t>(std::min(at_ns, kYearNs)))), model});
  }
  return out;
}

Duration MeanAloneTime(const Workload& workload) {
  double total = 0, shares = 0;
  for (const SimModel& model : workload.models) {
    total += model.share * static_cast<double>(model.alone_time.count());
    shares += model.share;
  }
  return Duration(static_cast<int64_t>(shares > 0 ? total / shares : 0));
}

}  // namespace plexus
