// SimGpu: a GPU as a discrete-event model on a manual clock: hardware queues, SMs, latencies.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "device/device.h"
#include "device/packing.h"
#include "device/sim/ring.h"

namespace plexus {

// What is modelled, and with which numbers. See README.md for what that is good for.
struct SimGpuOptions {
  std::string name = "sim";
  uint32_t sms = 1;  // 1..4096
  UnitLimits sm;     // of each; limits below 2^21
  // Hardware queues, 1..1024. A stream's work goes through queue (stream mod queues), in the order
  // of the calls.
  uint32_t queues = 32;
  Duration launch_latency{0};        // from the host's call to the kernel's place in its queue
  Duration kernel_gap{0};            // from a kernel's end to the start of its stream's next
  Duration notification_latency{0};  // from a block message's store to the host's seeing it
  Duration completion_latency{0};    // the same for the end of an uninstrumented kernel or copy
  // Blocks per message; what is left at the kernel's end makes a smaller one, so that a short grid
  // sends one message.
  uint32_t notification_group = 16;
  bool report_starts = true;  // messages also when blocks start
  // Each block's time is multiplied by a lognormal factor of mean 1 and this sigma (0..2; 0:
  // exact).
  double block_jitter = 0;
  uint64_t seed = 1;
  double peak_flops = 0;     // f32, per second
  double bytes_per_sec = 0;  // of device memory
  size_t memory_bytes = size_t{1} << 34;
  double copy_bytes_per_sec = 12e9;  // one engine per direction
  Duration copy_latency{0};
  // Keep every block's place and time for spans(). Grows without bound.
  bool record_spans = false;
};

// The known devices; kInvalidArgument names them when `name` is none of them.
Result<SimGpuOptions> SimGpuPreset(std::string_view name);
std::vector<std::string> SimGpuPresetNames();

struct SimGpuLaunch {
  uint64_t tag = 0;     // the caller's; unique among what is in flight
  uint32_t stream = 0;  // below 2^22; small numbers, the table grows to the largest
  uint32_t blocks = 0;
  BlockResources resources;
  Duration block_time{0};    // of one block, > 0
  bool instrumented = true;  // block messages; else one event at the kernel's end
};

struct SimGpuCopy {
  enum class Direction : uint8_t { kHostToDevice, kDeviceToHost };
  uint64_t tag = 0;
  uint32_t stream = 0;
  size_t bytes = 0;
  Direction direction = Direction::kHostToDevice;
};

// What the host sees, when it sees it: the clock shows the time of the report, `at` when it
// happened on the device.
struct SimGpuEvent {
  enum class Kind : uint8_t {
    kBlocksStarted,   // instrumented kernels, with report_starts
    kBlocksFinished,  // instrumented kernels
    kKernelFinished,  // uninstrumented kernels
    kCopyFinished,
  };
  Kind kind = Kind::kBlocksFinished;
  bool last = false;  // nothing more will be reported of this tag
  uint64_t tag = 0;
  uint32_t blocks = 0;  // how many; kKernelFinished: all
  uint32_t number = 0;  // of the tag's messages of this kind, counted from 0
  TimePoint at{};
  Duration device_time{0};  // summed over the blocks; 0 for starts
};

// Called from Step; may call Launch, Copy and Abort.
class SimGpuListener {
 public:
  virtual ~SimGpuListener() = default;
  virtual void OnGpuEvent(const SimGpuEvent& event) = 0;
};

// Some blocks of one launch that ran on one SM at the same time.
struct SimGpuSpan {
  uint64_t tag = 0;
  uint32_t sm = 0;
  uint32_t first_block = 0, blocks = 0;
  TimePoint begin{}, end{};
};

// The model: a hardware queue is first in, first out; its head waits while
// its stream's predecessor runs, and with it everything behind it. The head leaves the queue when
// its last block has been placed. All heads compete for the SMs, the oldest first; a head whose
// blocks do not fit does not hold up the others. A block goes to the SM with most room for its
// kind. Deterministic: the same calls at the same times and the same seed give the same events.
// Thread-compatible. Nothing allocates per block, nor per launch once the pools have grown.
class SimGpu {
 public:
  // kInvalidArgument names the option that makes no sense. `clock` and `listener` are borrowed;
  // the listener may be null.
  static Result<std::unique_ptr<SimGpu>> Create(const SimGpuOptions& options, ManualClock& clock,
                                                SimGpuListener* listener);
  ~SimGpu();

  const SimGpuOptions& options() const { return options_; }
  void SetListener(SimGpuListener* listener) { listener_ = listener; }

  // Never call back. kInvalidArgument, with nothing taken, for a block that fits no SM (the message
  // says why), no blocks, no time, or a stream out of range.
  Status Launch(const SimGpuLaunch& launch);
  Status Copy(const SimGpuCopy& copy);
  // The launch stops at once, wherever it is; nothing of it is reported from now on, and its stream
  // goes on with the next. Whether it was in flight. Takes time in what is in flight.
  bool Abort(uint64_t tag);
  // The device is gone: everything stops, nothing is reported.
  void Reset();

  // Advances the clock to the next thing that happens, either all that the device does at one time
  // or one report to the host; false when nothing is in flight.
  bool Step();
  TimePoint NextAt() const;  // TimePoint::max() when nothing is in flight
  // Does what the device does up to the clock's time, without reporting and without going on.
  void CatchUp();

  // Blocks of this kind that the empty device holds; 0 if none fits.
  uint32_t Capacity(const BlockResources& block) const;
  uint32_t resident(uint32_t sm) const { return packing_.blocks_on(sm); }
  uint32_t in_flight() const { return in_flight_; }  // launches and copies not reported over

  // All of it grows only.
  struct Stats {
    uint64_t launches = 0, blocks_started = 0, blocks_finished = 0, reports = 0;
    Duration busy{0};  // block time of finished blocks
  };
  const Stats& stats() const { return stats_; }
  const std::vector<SimGpuSpan>& spans() const { return spans_; }  // in the order of their ends

  // One block's time, where set, instead of the launch's; jitter applies on top.
  std::function<Duration(uint64_t tag, uint32_t block)> block_time;

 private:
  static constexpr uint32_t kNone = ~0u;
  struct Op;
  struct Cohort;
  struct Ending;
  struct Stream {
    uint32_t first = kNone, last = kNone;
  };
  struct Queue {
    uint32_t head = kNone, tail = kNone;
  };
  struct Timed {
    TimePoint at{};
    uint32_t what = 0;  // op or stream
  };
  struct Message {
    TimePoint seen_at{};
    SimGpuEvent event;
    uint32_t op = 0;
  };

  SimGpu(const SimGpuOptions& options, ManualClock& clock, SimGpuListener* listener);
  Status Enqueue(Op op);
  TimePoint NextDeviceAt() const;
  TimePoint NextReportAt() const;
  void RunDevice(TimePoint now);
  void Arrive(uint32_t op, TimePoint now);
  void StreamGoesOn(uint32_t stream, TimePoint now);
  void TryActivate(uint32_t op, TimePoint now);
  uint32_t PopQueue(uint32_t queue);  // the new head
  void PlaceAll(TimePoint now);
  void PlaceBlocks(uint32_t op, TimePoint now);
  void AddCohort(uint32_t op, uint32_t first_block, const UnitPacking::Share* shares, size_t count,
                 uint32_t blocks, Duration time, TimePoint now);
  void EndCohort(uint32_t cohort, TimePoint now);
  void FinishOp(uint32_t op, TimePoint now);
  void Report(Ring<Message>& ring, Duration latency, uint32_t op, const SimGpuEvent& event);
  void ReportBlocks(uint32_t op, SimGpuEvent::Kind kind, uint32_t blocks, Duration each,
                    TimePoint now);
  void Deliver();
  void Release(uint32_t op);
  void MarkFreed(uint32_t sm);
  Duration TimeOf(const Op& op, uint32_t block);

  SimGpuOptions options_;
  ManualClock& clock_;
  SimGpuListener* listener_;
  UnitPacking packing_;
  std::vector<Op> ops_;
  std::vector<uint32_t> free_ops_;
  std::vector<Stream> streams_;
  std::vector<Queue> queues_;     // the hardware queues, then one per copy direction
  std::vector<uint32_t> active_;  // heads that have blocks to place, oldest first
  std::vector<Cohort> cohorts_;
  std::vector<uint32_t> free_cohorts_;
  std::vector<Ending> endings_;       // heap: when cohorts end
  Ring<Timed> arrivals_, goings_on_;  // constant latencies: in the order of time by themselves
  Ring<Message> notifications_, completions_;
  std::vector<uint32_t> freed_;  // SMs with more room than before the last placement
  std::vector<uint8_t> is_freed_;
  std::vector<UnitPacking::Share> shares_;
  std::vector<float> jitter_;  // factors, drawn by random_
  uint64_t random_ = 0;
  uint64_t next_sequence_ = 0;
  uint64_t pass_ = 0;
  uint32_t in_flight_ = 0;
  Stats stats_;
  std::vector<SimGpuSpan> spans_;
};

}  // namespace plexus
