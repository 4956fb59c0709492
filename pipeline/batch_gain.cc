#include "pipeline/batch_gain.h"

namespace plexus {
namespace {

// What a batch counts after as many more: a third.
constexpr double kMemory = 16;
// What is saved must make up for who waits for company.
constexpr double kLeastGain = 0.03;

}  // namespace

void BatchGain::Note(Duration alone, Duration together) {
  if (alone <= Duration{0} || together <= Duration{0}) return;
  std::lock_guard lock(mutex_);
  alone_ns_ += static_cast<double>(alone.count()) - alone_ns_ / kMemory;
  together_ns_ += static_cast<double>(together.count()) - together_ns_ / kMemory;
  part_.store(static_cast<float>(1 - together_ns_ / alone_ns_), std::memory_order_relaxed);
}

void BatchGain::None() { part_.store(0, std::memory_order_relaxed); }

void BatchGain::Forget() {
  std::lock_guard lock(mutex_);
  alone_ns_ = together_ns_ = 0;
  part_.store(kUnknown, std::memory_order_relaxed);
  trials_left_.store(kTrials, std::memory_order_relaxed);
  time_left_.store(kTrialTime.count(), std::memory_order_relaxed);
}

std::optional<double> BatchGain::part() const {
  const float part = part_.load(std::memory_order_relaxed);  // a statistic: it orders nothing
  return part == kUnknown ? std::nullopt : std::optional<double>(part);
}

bool BatchGain::in_vain() const { return part().value_or(1) < kLeastGain; }

bool BatchGain::TakeTrial(Duration takes) {
  if (part_.load(std::memory_order_relaxed) != kUnknown) return false;
  if (trials_left_.load(std::memory_order_relaxed) <= 0) return false;
  if (time_left_.load(std::memory_order_relaxed) <= 0) return false;
  trials_left_.fetch_sub(1, std::memory_order_relaxed);  // a few more do no harm
  time_left_.fetch_sub(takes.count(), std::memory_order_relaxed);
  return true;
}

}  // namespace plexus
