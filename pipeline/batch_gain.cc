#include "pipeline/batch_gain.h"

#include <algorithm>

namespace plexus {
namespace {

// What a batch counts after as many more: a third.
constexpr double kMemory = 16;
// So many batches tell something. One that was held up counts for no more than twice its rows.
constexpr uint32_t kNotes = 6;
// What is saved must make up for who waits for company.
constexpr double kLeastGain = 0.03;
constexpr auto kRelaxed = std::memory_order_relaxed;  // statistics: they order nothing

}  // namespace

void BatchGain::Note(Duration alone, Duration together) {
  if (alone <= Duration{0} || together <= Duration{0}) return;
  std::lock_guard lock(mutex_);
  const auto apart = static_cast<double>(alone.count());
  const double at_once = std::min(static_cast<double>(together.count()), 2 * apart);
  alone_ns_ += apart - alone_ns_ / kMemory;
  together_ns_ += at_once - together_ns_ / kMemory;
  if (++noted_ < kNotes) return;
  part_.store(static_cast<float>(1 - together_ns_ / alone_ns_), kRelaxed);
}

void BatchGain::None() { trials_left_.store(0, kRelaxed); }

void BatchGain::Forget() {
  std::lock_guard lock(mutex_);
  alone_ns_ = together_ns_ = 0;
  noted_ = 0;
  part_.store(kUnknown, kRelaxed);
  trials_left_.store(kTrials, kRelaxed);
  time_left_.store(kTrialTime.count(), kRelaxed);
}

std::optional<double> BatchGain::part() const {
  const float part = part_.load(kRelaxed);
  return part == kUnknown ? std::nullopt : std::optional<double>(part);
}

bool BatchGain::in_vain() const { return part().value_or(1) < kLeastGain; }

bool BatchGain::TakeTrial(Duration takes) {
  const bool known = part().has_value();
  if (known && !in_vain()) return false;
  const int32_t left = trials_left_.load(kRelaxed);
  const bool has_time = time_left_.load(kRelaxed) > 0 || left > kTrials - kLeastTrials;
  if (known || left <= 0 || !has_time) {
    NoteRefusal();
    return false;
  }
  trials_left_.fetch_sub(1, kRelaxed);
  time_left_.fetch_sub(takes.count(), kRelaxed);
  return true;
}

bool BatchGain::RefuseTrial() {
  if (!in_vain()) return false;
  NoteRefusal();
  return true;
}

void BatchGain::NoteRefusal() {
  const uint32_t most = most_refusals_.load(kRelaxed);
  if (refusals_.fetch_add(1, kRelaxed) + 1 != most) return;  // one of them comes through
  refusals_.store(0, kRelaxed);
  most_refusals_.store(std::min(2 * most, kMostRefusals), kRelaxed);
  Forget();
}

}  // namespace plexus
