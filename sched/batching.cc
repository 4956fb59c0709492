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
// Runs of a size that is doubted, and of its half, before it is judged: the shortest counts.
constexpr uint32_t kAgain = 12;
// So many batches ago says little about a size that seems to gain nothing.
constexpr uint64_t kLongAgo = 64;

}  // namespace

// --- BatchCurve

BatchCurve::BatchCurve(uint32_t max_rows)
    : limit_(std::bit_floor(std::clamp(max_rows, 1u, kMostRows))), worth_(limit_) {
  entries_.resize(Index(limit_) + 1);
}

uint32_t BatchCurve::Index(uint32_t size) {
  return static_cast<uint32_t>(std::bit_width(size)) - 1;
}

void BatchCurve::SetReady(uint32_t size) {
  if (size <= limit()) largest_ = std::max(largest_, size);
}

void BatchCurve::SetLimit(uint32_t size) {
  limit_ = std::min(limit_, std::max(1u, size));
  largest_ = std::min(largest_, limit_);
}

void BatchCurve::GiveUp(uint32_t size) {
  worth_ = std::min(worth_, std::max(1u, size / 2));
  largest_ = std::min(largest_, worth_);
  remeasured_ = 0;
}

void BatchCurve::TryAgain() {
  worth_ = limit_;
  std::fill(entries_.begin() + Index(largest_) + 1, entries_.end(), Entry{});
}

void BatchCurve::Learn(uint32_t size, Cost measured) {
  if (size > limit() || measured.busy <= Duration{0}) return;
  ++learned_;
  Entry& entry = entries_[Index(size)];
  const bool long_ago = learned_ - entry.last > kLongAgo;
  if (long_ago && SeemsUseless(size)) entry.runs = 0;
  entry.last = learned_;
  const uint32_t trials = entry.doubted || size == remeasured_ ? kAgain : kTrials;
  const double latency = Ns(measured.latency), busy = Ns(measured.busy);
  if (++entry.runs == 1) {
    entry.latency_ns = latency;
    entry.busy_ns = busy;
  } else if (entry.runs <= trials) {  // the first runs find everything cold
    entry.latency_ns = std::min(entry.latency_ns, latency);
    entry.busy_ns = std::min(entry.busy_ns, busy);
  } else {  // one that was held up counts for no more than four usual ones
    entry.latency_ns += (std::min(latency, 4 * entry.latency_ns) - entry.latency_ns) / 8;
    entry.busy_ns += (std::min(busy, 4 * entry.busy_ns) - entry.busy_ns) / 8;
  }
  if (size == remeasured_ && entry.runs >= kAgain) remeasured_ = 0;
  if (size > 1 && remeasured_ == 0) Judge(size);
}

void BatchCurve::Judge(uint32_t size) {
  Entry& entry = entries_[Index(size)];
  Entry& half = entries_[Index(size / 2)];
  if (entry.runs < (entry.doubted ? kAgain : kTrials) || half.runs == 0) return;
  if (!SeemsUseless(size)) {
    entry.doubted = false;
  } else if (entry.doubted) {
    entry.useless = true;
  } else {
    entry.doubted = true;
    remeasured_ = size / 2;
    if (remeasured_ == 1) expected_ = Of(1);
    entry.runs = half.runs = 0;
  }
}

bool BatchCurve::SeemsUseless(uint32_t size) const {
  if (size == 1) return false;
  const Entry& entry = entries_[Index(size)];
  const Entry& half = entries_[Index(size / 2)];
  return entry.runs >= kTrials && half.runs > 0 &&
         entry.busy_ns > (1 - kLeastGain) * 2 * half.busy_ns;
}

BatchCurve::Cost BatchCurve::Of(uint32_t size) const {
  const Entry& entry = entries_[Index(size)];
  const auto measured = [&] {
    return Cost{Duration(static_cast<int64_t>(entry.latency_ns)),
                Duration(static_cast<int64_t>(entry.busy_ns))};
  };
  if (size == 1) return entry.runs > 0 ? measured() : expected_;
  const bool anew = learned_ - entry.last > kLongAgo && SeemsUseless(size);
  if (entry.runs >= (entry.doubted ? kAgain : kTrials) && !anew) return measured();
  const Cost half = Of(size / 2);
  return {Duration(static_cast<int64_t>(Ns(half.latency) * kUntried)),
          Duration(static_cast<int64_t>(Ns(half.busy) * kUntried))};
}

double BatchCurve::Gain() const {
  if (entries_.size() < 2 || entries_[0].runs == 0 || entries_[1].runs < kTrials) return -1;
  return std::clamp(1 - entries_[1].busy_ns / (2 * entries_[0].busy_ns), 0.0, 1.0);
}

uint32_t BatchCurve::Next(bool whatever_it_gains) const {
  if (2 * largest_ > limit()) return 0;
  const bool shown = largest_ == 1 || entries_[Index(largest_)].runs >= kTrials;
  return whatever_it_gains || (shown && !SeemsUseless(largest_)) ? 2 * largest_ : 0;
}

uint32_t BatchCurve::Fit(uint32_t rows) const {
  const uint32_t size = std::bit_ceil(rows);
  return size <= largest_ ? size : 0;
}

// --- Policies

namespace {

uint32_t RowsOf(std::span<const Waiting> waiting) {
  uint32_t rows = 0;
  for (const Waiting& each : waiting) rows += each.rows;
  return rows;
}

// The first of those and as many from `from` on as there is room for.
BatchChoice TakeFrom(std::span<const Waiting> waiting, size_t from, uint32_t room) {
  BatchChoice choice{from, 0};
  uint32_t rows = waiting[0].rows;
  for (const Waiting& each : waiting.subspan(from)) {
    if (rows + each.rows > room) break;
    rows += each.rows;
    ++choice.count;
  }
  return choice;
}

BatchChoice TakeAll(const BatchView& view) {
  return TakeFrom(view.waiting, 1, view.curve.largest());
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
  TimePoint InLineAt(const BatchView& view) const override {
    if (RowsOf(view.waiting) >= view.curve.largest()) return view.now;
    return view.waiting.front().entered + most_;
  }
  BatchChoice Choose(const BatchView& view) const override { return TakeAll(view); }

 private:
  const std::string name_;
  const Duration most_;
};

class DeferredBatching : public BatchPolicy {
 public:
  std::string_view name() const override { return "deferred"; }
  TimePoint InLineAt(const BatchView& view) const override {
    const uint32_t rows = RowsOf(view.waiting);
    if (rows >= view.curve.largest()) return view.now;
    TimePoint first = TimePoint::max();
    for (const Waiting& row : view.waiting) first = std::min(first, row.due);
    if (first == TimePoint::max()) return view.now;
    // Half of the time to spare: the other half is for what the device is at.
    const Duration takes = view.curve.Of(view.curve.Fit(rows)).latency;
    const TimePoint entered = view.waiting.front().entered;
    return entered + std::max(Duration{0}, first - takes - entered) / 2;
  }
  BatchChoice Choose(const BatchView& view) const override { return TakeAll(view); }
};

class PathAwareBatching : public BatchPolicy {
 public:
  std::string_view name() const override { return "path-aware"; }
  bool timely_first() const override { return true; }
  bool takes_any_gain() const override { return false; }

  BatchChoice Choose(const BatchView& view) const override {
    const uint32_t least = view.curve.Fit(view.waiting[0].rows);
    Batch best = Pick(view, least);
    for (uint32_t size = 2 * least; size <= view.curve.largest(); size *= 2) {
      const Batch larger = Pick(view, size);
      if (larger.rows <= size / 2) break;
      if (Better(view, best, larger)) best = larger;
    }
    return best.choice;
  }

 private:
  struct Batch {
    BatchChoice choice;
    BatchCurve::Cost cost;
    uint32_t rows = 0;
    uint32_t in_time = 0;  // of them
  };

  // Those that would be in time in a batch of this size, the most urgent first, then those that are
  // late anyway.
  static Batch Pick(const BatchView& view, uint32_t size) {
    const BatchCurve::Cost alone = view.curve.Of(1);
    Batch batch;
    batch.cost = view.curve.Of(size);
    const auto in_time = [&](const Waiting& row) {
      return row.due >= view.now + batch.cost.latency;
    };
    const auto all = view.waiting;
    size_t from = 1;
    while (from < all.size() && !in_time(all[from]) && all[from].due >= view.now + alone.latency) {
      ++from;
    }
    batch.choice = TakeFrom(all, from, size);
    const auto add = [&](const Waiting& each) {
      batch.rows += each.rows;
      if (in_time(each)) batch.in_time += each.rows;
    };
    add(all[0]);
    for (const Waiting& each : all.subspan(from, batch.choice.count)) add(each);
    return batch;
  }

  static bool Better(const BatchView& view, const Batch& batch, const Batch& larger) {
    // Those in the batch end later by what it grows, those that come to it and everybody else wait
    // less by what is saved.
    const uint32_t more = larger.rows - batch.rows;
    const double apart = Ns(view.curve.Of(view.curve.Fit(more)).busy);
    const double later = Ns(larger.cost.latency - batch.cost.latency);
    const double saved = apart - Ns(larger.cost.busy - batch.cost.busy);
    const double behind =
        view.others + static_cast<double>(RowsOf(view.waiting)) - static_cast<double>(batch.rows);
    if (saved <= kLeastGain * apart || batch.rows * later >= behind * saved) return false;
    // Who would be late in the larger one is given up only if the others were late behind him, and
    // if more are in time for the device's time.
    const auto all = view.waiting;
    const TimePoint ends = view.now + larger.cost.latency;
    const bool first_lost = all[0].due < ends && all[0].due >= view.now + batch.cost.latency;
    if (!first_lost && larger.choice.from == batch.choice.from) return true;
    bool may_wait = true;
    for (const Waiting& each : all.subspan(larger.choice.from, larger.choice.count)) {
      may_wait = may_wait && (each.due >= ends + batch.cost.busy || each.due < ends);
    }
    return !may_wait && larger.in_time * Ns(batch.cost.busy) > batch.in_time * Ns(larger.cost.busy);
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
