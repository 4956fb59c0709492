#include "base/trace.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/hash.h"
#include "base/trace_json.h"

namespace plexus {
namespace {

// Names of owners that are gone, and of none, are forgotten beyond this.
constexpr size_t kNameBytes = size_t{8} << 20;
// What the table spends per name besides its text, roughly.
constexpr size_t kNameOverheadBytes = 64;
// Requests in flight when a trace ends still say when they ended, for so long.
constexpr Duration kLinger = std::chrono::seconds(2);

}  // namespace

TraceRecorder::TraceRecorder(size_t capacity)
    : capacity_(std::bit_ceil(std::max<size_t>(capacity, 1))) {}

TraceRecorder::~TraceRecorder() = default;

// --- Switching

void TraceRecorder::BeginLocked(uint32_t sample, TimePoint until, bool clear) {
  if (ring_ == nullptr) {
    ring_ = std::make_unique<Slot[]>(capacity_);
    slots_.store(ring_.get(), std::memory_order_release);  // publishes the slots
  }
  // Relaxed below: a recorder that sees the old values for a moment does no harm.
  if (clear) first_.store(next_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  sample_.store(sample, std::memory_order_relaxed);
  until_ns_.store(until.time_since_epoch().count(), std::memory_order_relaxed);
  enabled_.store(true, std::memory_order_relaxed);
}

void TraceRecorder::Start(const TraceOptions& options) {
  std::lock_guard lock(mutex_);
  on_demand_ = true;
  BeginLocked(std::max(options.sample, 1u), options.until, /*clear=*/true);
}

void TraceRecorder::Stop() {
  std::lock_guard lock(mutex_);
  if (!on_demand_) return;
  on_demand_ = false;
  if (standing_ > 0) {
    BeginLocked(standing_, TimePoint::max(), /*clear=*/false);
  } else {
    enabled_.store(false, std::memory_order_relaxed);
  }
}

void TraceRecorder::SetStanding(uint32_t sample) {
  std::lock_guard lock(mutex_);
  standing_ = sample;
  if (on_demand_) return;
  if (sample > 0) {
    BeginLocked(sample, TimePoint::max(), /*clear=*/false);
  } else {
    enabled_.store(false, std::memory_order_relaxed);
  }
}

// The trace that ended at `until`, unless another one has begun since.
void TraceRecorder::EndOnDemand(TimePoint until) {
  {
    std::lock_guard lock(mutex_);
    if (until_ns_.load(std::memory_order_relaxed) != until.time_since_epoch().count()) return;
  }
  Stop();
}

bool TraceRecorder::Samples(uint64_t request, uint32_t sample) {
  if (sample <= 1) return sample == 1;
  // Mixed, so that requests that come in a fixed rhythm are all hit.
  return HashCombine(request, 0) % sample == 0;
}

// --- Recording

void TraceRecorder::Record(const TraceEvent& event) {
  if (!enabled()) return;
  const TimePoint until{Duration(until_ns_.load(std::memory_order_relaxed))};
  if (event.begin > until) {
    if (event.begin - until > kLinger) EndOnDemand(until);
    return;
  }
  // Acquire: pairs with the store in BeginLocked.
  Slot* const slots = slots_.load(std::memory_order_acquire);
  if (slots == nullptr) return;
  // Relaxed: hands out positions, publishes nothing.
  const uint64_t position = next_.fetch_add(1, std::memory_order_relaxed);
  Slot& slot = slots[position & (capacity_ - 1)];
  uint64_t turn = slot.turn.load(std::memory_order_relaxed);
  // Odd: a writer that is a whole ring behind is still in this slot. Larger: we are that one.
  if ((turn & 1) != 0 || turn > 2 * position) return;
  // Acquire: our words come after those of the writer before.
  if (!slot.turn.compare_exchange_strong(turn, 2 * position + 1, std::memory_order_acq_rel)) {
    return;
  }
  uint64_t words[kWords];
  std::memcpy(words, &event, sizeof(event));
  // Release: whoever sees one of these words sees the odd turn as well.
  for (size_t i = 0; i < kWords; ++i) slot.words[i].store(words[i], std::memory_order_release);
  slot.turn.store(2 * position + 2, std::memory_order_release);  // publishes the words
}

// --- Names

uint32_t TraceRecorder::Intern(std::string_view name) {
  std::lock_guard lock(mutex_);
  if (const auto it = by_text_.find(name); it != by_text_.end()) return it->second;
  Names names;
  names.texts.emplace_back(name);
  return AddLocked(std::move(names));
}

uint32_t TraceRecorder::NamesOf(const std::shared_ptr<const void>& owner, size_t count,
                                const std::function<std::string_view(size_t)>& name) {
  std::lock_guard lock(mutex_);
  if (const auto it = by_owner_.find(owner.get()); it != by_owner_.end()) {
    Names& known = names_.at(it->second);
    // Another object may lie where a forgotten owner lay.
    if (!known.owner.expired() && known.texts.size() == count) return it->second;
    known.key = nullptr;
    by_owner_.erase(it);
  }
  Names names;
  names.owned = true;
  names.owner = owner;
  names.key = owner.get();
  names.texts.reserve(count);
  for (size_t i = 0; i < count; ++i) names.texts.emplace_back(name(i));
  return AddLocked(std::move(names));
}

uint32_t TraceRecorder::AddLocked(Names names) {
  for (const std::string& text : names.texts) names.bytes += text.size() + kNameOverheadBytes;
  name_bytes_ += names.bytes;
  const uint32_t first = next_name_;
  next_name_ += static_cast<uint32_t>(std::max<size_t>(names.texts.size(), 1));
  const Names& kept = names_.emplace(first, std::move(names)).first->second;
  if (kept.owned) {
    by_owner_[kept.key] = first;
  } else {
    by_text_[kept.texts[0]] = first;
  }
  if (name_bytes_ > kNameBytes) ForgetLocked();
  return first;
}

// Oldest first, down to half: living owners' names stay, they are bounded by what owns them.
void TraceRecorder::ForgetLocked() {
  const uint32_t newest = names_.rbegin()->first;
  for (auto it = names_.begin(); it->first != newest && name_bytes_ > kNameBytes / 2;) {
    const Names& names = it->second;
    if (names.owned && !names.owner.expired()) {
      ++it;
      continue;
    }
    name_bytes_ -= names.bytes;
    if (!names.owned) by_text_.erase(names.texts[0]);
    if (names.key != nullptr) by_owner_.erase(names.key);
    it = names_.erase(it);
  }
}

uint16_t TraceRecorder::AddDevice(std::string_view name, std::string_view unit) {
  std::lock_guard lock(mutex_);
  devices_.push_back({std::string(name), std::string(unit)});
  return static_cast<uint16_t>(devices_.size() - 1);
}

// --- Reading

TraceRecorder::Stats TraceRecorder::stats() const {
  std::lock_guard lock(mutex_);
  Stats stats;
  stats.recording = enabled();
  stats.sample = stats.recording ? sample_.load(std::memory_order_relaxed) : 0;
  const uint64_t recorded =
      next_.load(std::memory_order_relaxed) - first_.load(std::memory_order_relaxed);
  stats.events = std::min<uint64_t>(recorded, capacity_);
  stats.dropped = recorded - stats.events;
  return stats;
}

TraceRecorder::Snapshot TraceRecorder::Take() const {
  Snapshot snapshot;
  const Slot* const slots = slots_.load(std::memory_order_acquire);  // as in Record
  const uint64_t end = next_.load(std::memory_order_relaxed);
  const uint64_t begin = first_.load(std::memory_order_relaxed);
  const uint64_t from = end - std::min<uint64_t>(end - begin, capacity_);
  snapshot.dropped = from - begin;
  if (slots != nullptr) {
    snapshot.events.reserve(end - from);
    for (uint64_t position = from; position != end; ++position) {
      const Slot& slot = slots[position & (capacity_ - 1)];
      const uint64_t whole = 2 * position + 2;
      // Acquire: the words of this turn, or later ones, which the second look finds out.
      if (slot.turn.load(std::memory_order_acquire) != whole) continue;
      uint64_t words[kWords];
      for (size_t i = 0; i < kWords; ++i) words[i] = slot.words[i].load(std::memory_order_acquire);
      if (slot.turn.load(std::memory_order_relaxed) != whole) continue;  // after the words' acquire
      TraceEvent& event = snapshot.events.emplace_back();
      std::memcpy(&event, words, sizeof(event));
    }
  }
  std::lock_guard lock(mutex_);
  snapshot.devices = devices_;
  const auto look_up = [&](uint32_t id) {
    if (id == 0 || snapshot.names.count(id) > 0) return;
    auto it = names_.upper_bound(id);
    if (it == names_.begin()) return;
    --it;
    if (id - it->first < it->second.texts.size()) {
      snapshot.names.emplace(id, it->second.texts[id - it->first]);
    }
  };
  for (const TraceEvent& event : snapshot.events) {
    look_up(event.name);
    look_up(event.label);
  }
  return snapshot;
}

std::string TraceRecorder::ToJson() const {
  std::string json;
  WriteTraceJson(Take(), [&json](std::string_view piece) {
    json += piece;
    return true;
  });
  return json;
}

}  // namespace plexus
