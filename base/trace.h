// TraceRecorder: what happened when, for Chrome's tracing and Perfetto (docs/tracing.md). Always
// compiled in, switched at run time; when off, it costs one relaxed load.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"

namespace plexus {

// What a TraceEvent tells. Every kind is a span from `begin` to `end`.
enum class TraceKind : uint8_t {
  kBlocks,       // blocks of one launch ran on a unit
  kJob,          // from submission to its end
  kRequest,      // from arrival to answer
  kDecode,       // the request's body was read
  kEncode,       // the answer was written
  kCompileWait,  // the request waited for a compile
  kCompile,      // a graph was compiled for a new shape
  kHostStep,     // an operator ran on the host, between jobs
  kJoin,         // the request waited for equal work of another one that was under way
};

inline constexpr uint64_t kNoTraceId = std::numeric_limits<uint64_t>::max();
inline constexpr uint32_t kNoTraceUnit = std::numeric_limits<uint32_t>::max();

// Plain data of a fixed size, so that recording one is a copy.
struct TraceEvent {
  TraceKind kind = TraceKind::kBlocks;
  uint8_t code = 0;           // kJob, kRequest: the StatusCode it ended with
  uint16_t device = 0;        // kBlocks, kJob: from TraceRecorder::AddDevice
  uint32_t name = 0;          // from Intern or NamesOf: kernel, program, model, node
  TimePoint begin{}, end{};   // end >= begin
  uint64_t job = kNoTraceId;  // kBlocks, kJob
  uint64_t request = kNoTraceId;
  uint32_t unit = kNoTraceUnit;  // kBlocks: none where the hardware does not tell
  uint32_t tenant = 0;
  uint32_t first_block = 0, blocks = 0;  // kBlocks
  // kBlocks: when the launch was decided. kJob: its first launch; TimePoint{} if it had none.
  TimePoint mark{};
  // kBlocks, the decision: the chosen job's policy key and remaining time, and how many jobs were
  // ready, this one among them; 0: not known, or told by an earlier event of the launch.
  double key = 0;
  int64_t remaining_ns = 0;
  uint32_t ready = 0;
  uint32_t label = 0;  // kBlocks: the program's name; kRequest: the tenant's
};
static_assert(sizeof(TraceEvent) == 88);

struct TraceOptions {
  uint32_t sample = 1;  // one request in so many is recorded, the others not at all; > 0
  // What begins later is not recorded; TimePoint::max(): until Stop.
  TimePoint until = TimePoint::max();
};

// Keeps the last `capacity` events. Thread-safe: Record takes no lock and allocates nothing, 10 to
// 20 ns; the ring (96 bytes per event) is allocated by the first Start.
//
// There are two ways of recording, and both may be in use: a standing sample (SetStanding) for as
// long as the process lives, and a trace on demand (Start), which replaces it until it is over.
class TraceRecorder {
 public:
  explicit TraceRecorder(size_t capacity = size_t{1} << 17);  // rounded up to a power of two
  ~TraceRecorder();

  // Forgets what was recorded and records from now on.
  void Start(const TraceOptions& options);
  // Ends a trace on demand; its events stay. The standing sample goes on.
  void Stop();
  // One request in `sample` is recorded whenever no trace on demand is; 0: none.
  void SetStanding(uint32_t sample);

  // Whether events are taken. A hint: relaxed, ordered with nothing.
  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  // Whether this request is one of those recorded: a function of its id and the sample in force,
  // so that all of a request is recorded or nothing. `sample`: another rate than the recorder's.
  bool Samples(uint64_t request) const {
    return Samples(request, sample_.load(std::memory_order_relaxed));  // a rate orders nothing
  }
  static bool Samples(uint64_t request, uint32_t sample);
  // Dropped when not enabled, or when the event begins after the trace's end.
  void Record(const TraceEvent& event);

  // The id of a name, for TraceEvent::name and label. Names are kept in bounded memory; one that
  // no event uses any more may be forgotten, and then gets another id.
  uint32_t Intern(std::string_view name);
  // `owner` has `count` names with consecutive ids, kept as long as it lives; returns the first
  // one's. `name(i)` is called only when the owner is new.
  uint32_t NamesOf(const std::shared_ptr<const void>& owner, size_t count,
                   const std::function<std::string_view(size_t)>& name);
  // A device whose units are shown as "UNIT 0", "UNIT 1" ... ("cpu worker", "SM").
  uint16_t AddDevice(std::string_view name, std::string_view unit);

  struct Device {
    std::string name, unit;
  };
  struct Stats {
    bool recording = false;
    uint32_t sample = 0;   // in force; 0: off
    uint64_t events = 0;   // held now
    uint64_t dropped = 0;  // since Start: overwritten by later ones
  };
  Stats stats() const;
  uint64_t dropped() const { return stats().dropped; }

  // What the ring holds, in the order of recording. Events recorded meanwhile may be missing.
  struct Snapshot {
    std::vector<TraceEvent> events;
    std::vector<Device> devices;
    std::unordered_map<uint32_t, std::string> names;  // of these events
    uint64_t dropped = 0;
  };
  Snapshot Take() const;
  // Chrome trace JSON of that (base/trace_json.h writes it in pieces).
  std::string ToJson() const;

 private:
  static constexpr size_t kWords = sizeof(TraceEvent) / sizeof(uint64_t);
  // `turn` is 2 * position + 1 while the event of that position is written, + 2 once it is there.
  struct Slot {
    std::atomic<uint64_t> turn{0};
    std::atomic<uint64_t> words[kWords];
  };
  struct Names {
    bool owned = false;
    std::weak_ptr<const void> owner;
    const void* key = nullptr;
    std::vector<std::string> texts;
    size_t bytes = 0;
  };

  void Allocate();
  void BeginLocked(uint32_t sample, TimePoint until, bool clear);
  void EndOnDemand(TimePoint until);
  uint32_t AddLocked(Names names);
  void ForgetLocked();

  const size_t capacity_;
  std::atomic<bool> enabled_{false};
  std::atomic<uint32_t> sample_{1};
  std::atomic<int64_t> until_ns_{0};
  std::atomic<uint64_t> next_{0};   // position of the next event
  std::atomic<uint64_t> first_{0};  // where the current trace begins
  std::atomic<Slot*> slots_{nullptr};

  mutable std::mutex mutex_;  // guards everything below
  std::unique_ptr<Slot[]> ring_;
  uint32_t standing_ = 0;
  bool on_demand_ = false;
  std::vector<Device> devices_;
  std::map<uint32_t, Names> names_;  // by first id
  std::unordered_map<const void*, uint32_t> by_owner_;
  std::unordered_map<std::string_view, uint32_t> by_text_;  // keys lie in names_
  uint32_t next_name_ = 1;                                  // 0: no name
  size_t name_bytes_ = 0;
};

}  // namespace plexus
