#include "sched/batching.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <utility>

namespace plexus {
namespace {

double Ns(Duration d) { return static_cast<double>(d.count()); }

// Of the time per row at half the size: less than this is not worth a program, nor a wait.
constexpr double kLeastGain = 0.03;
// What a size that has not been tried is taken for, relative to half of it.
constexpr double kUntried = 1.2;

}  // namespace

// --- BatchCurve

BatchCurve::BatchCurve(uint32_t max_rows)
    : limit_(std::bit_floor(std::clamp(max_rows, 1u, kMostRows))) {
  entries_.resize(Index(limit_) + 1);
}

uint32_t BatchCurve::Index(uint32_t size) {
  return static_cast<uint32_t>(std::bit_width(size)) - 1;
}

void BatchCurve::SetReady(uint32_t size) {
  if (size <= limit_) largest_ = std::max(largest_, size);
}

void BatchCurve::SetLimit(uint32_t size) {
  limit_ = std::min(limit_, std::max(1u, size));
  largest_ = std::min(largest_, limit_);
}

void BatchCurve::Learn(uint32_t size, Cost measured) {
  if (size > limit_ || measured.busy <= Duration{0}) return;
  Entry& entry = entries_[Index(size)];
  const double latency = Ns(measured.latency), busy = Ns(measured.busy);
  if (++entry.runs == 1) {
    entry.latency_ns = latency;
    entry.busy_ns = busy;
  } else if (entry.runs <= kTrials) {  // the first runs find everything cold
    entry.latency_ns = std::min(entry.latency_ns, latency);
    entry.busy_ns = std::min(entry.busy_ns, busy);
  } else {  // one that was held up counts for no more than four usual ones
    entry.latency_ns += (std::min(latency, 4 * entry.latency_ns) - entry.latency_ns) / 8;
    entry.busy_ns += (std::min(busy, 4 * entry.busy_ns) - entry.busy_ns) / 8;
  }
}

BatchCurve::Cost BatchCurve::Of(uint32_t size) const {
  const Entry& entry = entries_[Index(size)];
  if (entry.runs >= kTrials || (size == 1 && entry.runs > 0)) {
    return {Duration(static_cast<int64_t>(entry.latency_ns)),
            Duration(static_cast<int64_t>(entry.busy_ns))};
  }
  if (size == 1) return expected_;
  const Cost half = Of(size / 2);
  return {Duration(static_cast<int64_t>(Ns(half.latency) * kUntried)),
          Duration(static_cast<int64_t>(Ns(half.busy) * kUntried))};
}

bool BatchCurve::Useless(uint32_t size) const {
  if (size < 2 || entries_[Index(size)].runs < kTrials) return false;
  return Ns(Of(size).busy) > (1 - kLeastGain) * 2 * Ns(Of(size / 2).busy);
}

uint32_t BatchCurve::Next(bool whatever_it_gains) const {
  if (2 * largest_ > limit_) return 0;
  const bool shown = largest_ == 1 || entries_[Index(largest_)].runs >= kTrials;
  return whatever_it_gains || (shown && !Useless(largest_)) ? 2 * largest_ : 0;
}

uint32_t BatchCurve::Fit(uint32_t rows) const {
  const uint32_t size = std::bit_ceil(rows);
  return size <= largest_ ? size : 0;
}

// --- Policies

namespace {

using What = BatchChoice::What;

// As many as there is room for, into the open batch if it has any.
BatchChoice TakeAll(const BatchView& view) {
  const uint32_t most = view.curve.largest();
  const auto waiting = static_cast<uint32_t>(view.waiting.size());
  if (view.open_rows > 0 && view.open_rows < most) {
    return {What::kJoin, std::min(waiting, most - view.open_rows), {}};
  }
  return {What::kNew, std::min(waiting, most), {}};
}

class NoBatching : public BatchPolicy {
 public:
  std::string_view name() const override { return "none"; }
  BatchChoice Choose(const BatchView&) const override { return {}; }
  bool batches() const override { return false; }
};

class ImmediateBatching : public BatchPolicy {
 public:
  std::string_view name() const override { return "immediate"; }
  BatchChoice Choose(const BatchView& view) const override { return TakeAll(view); }
};

class TimeoutBatching : public BatchPolicy {
 public:
  static constexpr int64_t kMicroseconds = 1000;
  TimeoutBatching(std::string name, Duration most) : name_(std::move(name)), most_(most) {}
  std::string_view name() const override { return name_; }
  BatchChoice Choose(const BatchView& view) const override {
    const TimePoint until = view.waiting.front().entered + most_;
    if (view.now >= until || view.waiting.size() >= view.curve.largest()) return TakeAll(view);
    return {What::kWait, 0, until};
  }

 private:
  const std::string name_;
  const Duration most_;
};

class DeferredBatching : public BatchPolicy {
 public:
  std::string_view name() const override { return "deferred"; }
  BatchChoice Choose(const BatchView& view) const override {
    const uint32_t most = view.curve.largest();
    const uint32_t rows = std::min(static_cast<uint32_t>(view.waiting.size()), most);
    if (rows == most) return TakeAll(view);
    TimePoint first = TimePoint::max();
    for (const WaitingRow& row : view.waiting) first = std::min(first, row.due);
    if (first == TimePoint::max()) return TakeAll(view);
    // Half of the time to spare: the other half is for what the device is at.
    const Duration takes = view.curve.Of(view.curve.Fit(rows)).latency;
    const TimePoint entered = view.waiting.front().entered;
    const TimePoint latest = entered + std::max(Duration{0}, first - takes - entered) / 2;
    if (view.now >= latest) return TakeAll(view);
    return {What::kWait, 0, latest};
  }
};

class PathAwareBatching : public BatchPolicy {
 public:
  std::string_view name() const override { return "path-aware"; }
  bool takes_any_gain() const override { return false; }
  BatchChoice Choose(const BatchView& view) const override {
    if (view.open_rows > 0) {
      const uint32_t grown = Grow(view, view.open_rows, view.open_due, 0);
      if (grown > 0) return {What::kJoin, grown, {}};
    }
    return {What::kNew, 1 + Grow(view, 1, view.waiting.front().due, 1), {}};
  }

 private:
  // How many rows of those that wait, from the one at `first` on, should go with the `rows` that
  // have to be done by `due`.
  static uint32_t Grow(const BatchView& view, uint32_t rows, TimePoint due, size_t first) {
    uint32_t grown = 0;
    const BatchCurve::Cost one = view.curve.Of(1);
    for (size_t i = first; i < view.waiting.size(); ++i) {
      const uint32_t from = view.curve.Fit(rows), to = view.curve.Fit(rows + 1);
      if (from == 0 || to == 0) break;
      const BatchCurve::Cost before = view.curve.Of(from), after = view.curve.Of(to);
      // Those in the batch end later by what it grows, the new one and everybody else waits less by
      // what is saved.
      const double later = Ns(after.latency - before.latency);
      const double saved = Ns(one.busy - (after.busy - before.busy));
      const double behind = 1 + view.others + static_cast<double>(view.waiting.size() - 1 - i);
      if (saved <= kLeastGain * Ns(one.busy) || rows * later >= behind * saved) break;
      const bool in_time = view.now + after.latency <= std::min(due, view.waiting[i].due);
      const bool late_anyway = view.now + before.latency > due;
      if (!in_time && !late_anyway) break;
      due = std::min(due, view.waiting[i].due);
      ++rows;
      ++grown;
    }
    return grown;
  }
};

Status UnknownPolicy(std::string_view text) {
  std::string names;
  for (const std::string& name : BatchPolicyNames()) names += (names.empty() ? "" : ", ") + name;
  return InvalidArgumentError("no batching policy '" + std::string(text) + "'; there are " + names +
                              " and timeout(MICROSECONDS)");
}

}  // namespace

std::vector<std::string> BatchPolicyNames() {
  return {"none", "immediate", "timeout", "deferred", "path-aware"};
}

Result<std::unique_ptr<BatchPolicy>> MakeBatchPolicy(std::string_view text) {
  using Made = std::unique_ptr<BatchPolicy>;
  if (text == "none") return Made(new NoBatching());
  if (text == "immediate") return Made(new ImmediateBatching());
  if (text == "deferred") return Made(new DeferredBatching());
  if (text == "path-aware") return Made(new PathAwareBatching());
  std::string_view argument = text;
  if (!argument.starts_with("timeout")) return UnknownPolicy(text);
  argument.remove_prefix(std::string_view("timeout").size());
  int64_t us = TimeoutBatching::kMicroseconds;
  if (!argument.empty()) {
    if (!argument.starts_with('(') || !argument.ends_with(')')) return UnknownPolicy(text);
    argument = argument.substr(1, argument.size() - 2);
    const char* const end = argument.data() + argument.size();
    const auto [rest, error] = std::from_chars(argument.data(), end, us);
    if (error != std::errc() || rest != end || us < 0 || us > 10'000'000) {
      return InvalidArgumentError("timeout(" + std::string(argument) +
                                  "): expected whole microseconds from 0 to 10000000");
    }
  }
  return Made(new TimeoutBatching(std::string(text), std::chrono::microseconds(us)));
}

}  // namespace plexus
