#include "device/sim/sim_gpu.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace plexus {

// A launch or a copy, from its call until its last report. Lives in two lists: its stream's, in
// which it is first while it runs, and its queue's, which it leaves when its last block is placed.
struct SimGpu::Op {
  SimGpuLaunch launch;
  BlockFootprint footprint;
  uint64_t sequence = 0;  // order of the calls
  uint64_t pass = 0;      // the placement that looked at it last
  uint32_t queue = 0;
  uint32_t next_in_stream = kNone, next_in_queue = kNone;
  uint32_t issued = 0, finished = 0;  // blocks
  uint32_t started_unreported = 0, finished_unreported = 0;
  uint32_t started_messages = 0, finished_messages = 0;
  Duration unreported_time{0}, total_time{0};
  Duration copy_time{0};    // > 0: a copy
  uint32_t references = 1;  // its place in the stream, and messages under way
  bool live = false;
  bool arrived = false;
  bool first_in_stream = false;
  bool fresh = false;  // no placement has looked at it yet
  bool aborted = false;
};

// Blocks of one launch that started together and end together.
struct SimGpu::Cohort {
  uint32_t op = kNone;  // kNone: free, or its launch was aborted
  uint32_t first_block = 0, blocks = 0;
  TimePoint begin{};
  UnitPacking::Share share;                // if there is just one
  std::vector<UnitPacking::Share> shares;  // else
};

struct SimGpu::Ending {
  TimePoint at;
  uint64_t sequence;
  uint32_t cohort;
  // For a heap with the earliest on top.
  friend bool operator<(const Ending& a, const Ending& b) {
    return a.at != b.at ? a.at > b.at : a.sequence > b.sequence;
  }
};

namespace {

constexpr uint32_t kMaxStreams = 1u << 22;
constexpr int32_t kMaxLimit = 1 << 21;
constexpr size_t kJitterFactors = 1 << 14;

uint64_t NextRandom(uint64_t& state) {  // splitmix64
  uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Lognormal, then scaled so that their mean is exactly 1.
std::vector<float> JitterFactors(double sigma, uint64_t& random) {
  std::vector<float> factors(kJitterFactors);
  const auto uniform = [&] {
    return (static_cast<double>(NextRandom(random) >> 11) + 0.5) * 0x1p-53;
  };
  double sum = 0;
  for (float& f : factors) {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    f = static_cast<float>(std::exp(sigma * radius * std::cos(6.283185307179586 * uniform())));
    sum += f;
  }
  const float mean = static_cast<float>(sum / kJitterFactors);
  for (float& f : factors) f /= mean;
  return factors;
}

Status Check(const SimGpuOptions& o) {
  const auto bad = [&](const std::string& what) {
    return InvalidArgumentError("simulated GPU '" + o.name + "': " + what);
  };
  const auto within = [](int64_t value, int64_t low, int64_t high) {
    return low <= value && value <= high;
  };
  if (!within(o.sms, 1, 4096)) return bad("sms must be 1..4096");
  if (!within(o.queues, 1, 1024)) return bad("queues must be 1..1024");
  if (!within(o.notification_group, 1, 1 << 20)) return bad("notification_group must be 1..2^20");
  const UnitLimits& l = o.sm;
  if (!within(l.blocks, 1, 4096)) return bad("an SM must hold 1..4096 blocks");
  if (!within(l.threads, 1, kMaxLimit)) return bad("an SM must have 1..2^21 threads");
  if (!within(l.registers, 0, kMaxLimit)) return bad("an SM must have 0..2^21 registers");
  if (!within(l.shared_bytes, 0, kMaxLimit)) return bad("an SM must have 0..2^21 shared bytes");
  for (int32_t g : {l.register_granularity, l.shared_granularity, l.warp_size}) {
    if (!within(g, 1, kMaxLimit)) return bad("granularities and the warp size must be 1..2^21");
  }
  for (Duration d : {o.launch_latency, o.kernel_gap, o.notification_latency, o.completion_latency,
                     o.copy_latency}) {
    if (d < Duration{0} || d > std::chrono::hours(1)) return bad("latencies must be 0..1 hour");
  }
  if (!(o.block_jitter >= 0 && o.block_jitter <= 2)) return bad("block_jitter must be 0..2");
  if (!(o.peak_flops >= 0) || !(o.bytes_per_sec >= 0) || !(o.copy_bytes_per_sec > 0)) {
    return bad("peak_flops and bytes_per_sec must be >= 0, copy_bytes_per_sec > 0");
  }
  return OkStatus();
}

}  // namespace

Result<std::unique_ptr<SimGpu>> SimGpu::Create(const SimGpuOptions& options, ManualClock& clock,
                                               SimGpuListener* listener) {
  PLEXUS_RETURN_IF_ERROR(Check(options));
  return std::unique_ptr<SimGpu>(new SimGpu(options, clock, listener));
}

SimGpu::SimGpu(const SimGpuOptions& options, ManualClock& clock, SimGpuListener* listener)
    : options_(options),
      clock_(clock),
      listener_(listener),
      packing_(options.sms, options.sm),
      queues_(options.queues + 2),
      is_freed_(options.sms),
      random_(options.seed) {
  if (options_.block_jitter > 0) jitter_ = JitterFactors(options_.block_jitter, random_);
}

SimGpu::~SimGpu() = default;

uint32_t SimGpu::Capacity(const BlockResources& block) const {
  return packing_.PerUnit(FootprintOf(options_.sm, block)) * packing_.units();
}

// --- The host's side

Status SimGpu::Launch(const SimGpuLaunch& launch) {
  if (launch.blocks == 0) return InvalidArgumentError("a launch without blocks");
  if (launch.block_time <= Duration{0}) return InvalidArgumentError("a block without time");
  Op op;
  op.launch = launch;
  op.footprint = FootprintOf(options_.sm, launch.resources);
  if (const std::string why = WhyNeverFits(options_.sm, op.footprint); !why.empty()) {
    return InvalidArgumentError("simulated GPU '" + options_.name + "': a block " + why);
  }
  op.queue = launch.stream % options_.queues;
  ++stats_.launches;
  return Enqueue(std::move(op));
}

Status SimGpu::Copy(const SimGpuCopy& copy) {
  Op op;
  op.launch.tag = copy.tag;
  op.launch.stream = copy.stream;
  op.launch.blocks = 1;
  const double seconds = static_cast<double>(copy.bytes) / options_.copy_bytes_per_sec;
  op.copy_time = options_.copy_latency + Duration(static_cast<int64_t>(seconds * 1e9) + 1);
  op.queue = options_.queues + (copy.direction == SimGpuCopy::Direction::kHostToDevice ? 0 : 1);
  return Enqueue(std::move(op));
}

Status SimGpu::Enqueue(Op op) {
  if (op.launch.stream >= kMaxStreams) {
    return InvalidArgumentError("stream " + std::to_string(op.launch.stream) + " is out of range");
  }
  if (op.launch.stream >= streams_.size()) {
    streams_.resize(std::max<size_t>(op.launch.stream + 1, 2 * streams_.size()));
  }
  op.sequence = next_sequence_++;
  op.live = true;
  uint32_t index;
  if (free_ops_.empty()) {
    index = static_cast<uint32_t>(ops_.size());
    ops_.push_back(std::move(op));
  } else {
    index = free_ops_.back();
    free_ops_.pop_back();
    ops_[index] = std::move(op);
  }
  arrivals_.push({clock_.Now() + options_.launch_latency, index});
  ++in_flight_;
  return OkStatus();
}

bool SimGpu::Abort(uint64_t tag) {
  uint32_t index = 0;
  while (index < ops_.size() && !(ops_[index].live && ops_[index].launch.tag == tag)) ++index;
  if (index == ops_.size()) return false;
  Op& op = ops_[index];
  op.live = false;
  op.aborted = true;
  --in_flight_;
  // What has not come to the front of its queue and stream ends when it gets there.
  const bool all_placed = op.issued == op.launch.blocks;
  const auto active = std::find(active_.begin(), active_.end(), index);
  if (!all_placed && active == active_.end()) return true;
  if (op.finished == op.launch.blocks) return true;  // over; only reports were under way
  for (Cohort& cohort : cohorts_) {
    if (cohort.op != index) continue;
    cohort.op = kNone;
    if (op.copy_time > Duration{0}) continue;
    const UnitPacking::Share* shares = cohort.shares.empty() ? &cohort.share : &cohort.shares[0];
    for (size_t i = 0; i < std::max<size_t>(cohort.shares.size(), 1); ++i) {
      packing_.Free(op.footprint, shares[i].unit, shares[i].blocks);
      MarkFreed(shares[i].unit);
    }
  }
  const TimePoint now = clock_.Now();
  if (active != active_.end()) active_.erase(active);
  const bool in_queue = !all_placed || op.copy_time > Duration{0};
  FinishOp(index, now);
  if (in_queue) TryActivate(PopQueue(op.queue), now);
  PlaceAll(now);
  return true;
}

void SimGpu::Reset() {
  packing_ = UnitPacking(options_.sms, options_.sm);
  ops_.clear();
  free_ops_.clear();
  streams_.assign(streams_.size(), Stream{});
  queues_.assign(queues_.size(), Queue{});
  active_.clear();
  cohorts_.clear();
  free_cohorts_.clear();
  endings_.clear();
  arrivals_.clear();
  goings_on_.clear();
  notifications_.clear();
  completions_.clear();
  freed_.clear();
  std::fill(is_freed_.begin(), is_freed_.end(), 0);
  in_flight_ = 0;
}

// --- Time

TimePoint SimGpu::NextDeviceAt() const {
  TimePoint next = endings_.empty() ? TimePoint::max() : endings_.front().at;
  if (!arrivals_.empty()) next = std::min(next, arrivals_.front().at);
  if (!goings_on_.empty()) next = std::min(next, goings_on_.front().at);
  return next;
}

TimePoint SimGpu::NextReportAt() const {
  TimePoint next = notifications_.empty() ? TimePoint::max() : notifications_.front().seen_at;
  if (!completions_.empty()) next = std::min(next, completions_.front().seen_at);
  return next;
}

// What is left when nothing is in flight any more (a stream's gap, the end of aborted blocks) is
// done when the next launch gives time a reason to go on.
TimePoint SimGpu::NextAt() const {
  return in_flight_ == 0 ? TimePoint::max() : std::min(NextDeviceAt(), NextReportAt());
}

bool SimGpu::Step() {
  const TimePoint device_at = NextDeviceAt();
  const TimePoint report_at = NextReportAt();
  const TimePoint next = std::min(device_at, report_at);
  if (in_flight_ == 0 || next == TimePoint::max()) return false;
  clock_.AdvanceTo(next);
  if (device_at <= report_at) {
    RunDevice(device_at);
  } else {
    Deliver();
  }
  return true;
}

void SimGpu::CatchUp() {
  for (TimePoint at; (at = NextDeviceAt()) <= clock_.Now();) RunDevice(at);
}

void SimGpu::RunDevice(TimePoint now) {
  while (!endings_.empty() && endings_.front().at <= now) {
    const uint32_t cohort = endings_.front().cohort;
    std::pop_heap(endings_.begin(), endings_.end());
    endings_.pop_back();
    EndCohort(cohort, now);
  }
  while (!goings_on_.empty() && goings_on_.front().at <= now) {
    StreamGoesOn(goings_on_.pop().what, now);
  }
  while (!arrivals_.empty() && arrivals_.front().at <= now) Arrive(arrivals_.pop().what, now);
  PlaceAll(now);
}

// --- Streams and queues

void SimGpu::Arrive(uint32_t index, TimePoint now) {
  Op& op = ops_[index];
  op.arrived = true;
  if (op.aborted) {
    Release(index);
    return;
  }
  Queue& queue = queues_[op.queue];
  if (queue.tail == kNone) {
    queue.head = index;
  } else {
    ops_[queue.tail].next_in_queue = index;
  }
  queue.tail = index;
  Stream& stream = streams_[op.launch.stream];
  if (stream.last == kNone) {
    stream.first = index;
    op.first_in_stream = true;
  } else {
    ops_[stream.last].next_in_stream = index;
  }
  stream.last = index;
  TryActivate(index, now);
}

void SimGpu::StreamGoesOn(uint32_t s, TimePoint now) {
  Stream& stream = streams_[s];
  const uint32_t over = stream.first;
  stream.first = ops_[over].next_in_stream;
  if (stream.first == kNone) stream.last = kNone;
  Release(over);
  if (stream.first == kNone) return;
  ops_[stream.first].first_in_stream = true;
  TryActivate(stream.first, now);
}

// If it is its queue's head and its stream's first, its turn has come.
void SimGpu::TryActivate(uint32_t index, TimePoint now) {
  while (index != kNone) {
    Op& op = ops_[index];
    if (!op.first_in_stream || queues_[op.queue].head != index) return;
    if (op.aborted) {
      FinishOp(index, now);
      index = PopQueue(op.queue);
      continue;
    }
    if (op.copy_time > Duration{0}) {
      op.issued = 1;
      AddCohort(index, 0, nullptr, 0, 1, op.copy_time, now);
      return;
    }
    op.fresh = true;
    const auto older = [&](uint32_t a, uint32_t b) { return ops_[a].sequence < ops_[b].sequence; };
    active_.insert(std::lower_bound(active_.begin(), active_.end(), index, older), index);
    return;
  }
}

uint32_t SimGpu::PopQueue(uint32_t q) {
  Queue& queue = queues_[q];
  queue.head = ops_[queue.head].next_in_queue;
  if (queue.head == kNone) queue.tail = kNone;
  return queue.head;
}

void SimGpu::FinishOp(uint32_t index, TimePoint now) {
  Op& op = ops_[index];
  op.finished = op.issued = op.launch.blocks;
  goings_on_.push({now + options_.kernel_gap, op.launch.stream});
  if (op.aborted) return;
  const bool copy = op.copy_time > Duration{0};
  if (!copy && op.launch.instrumented) return;
  SimGpuEvent event;
  event.kind = copy ? SimGpuEvent::Kind::kCopyFinished : SimGpuEvent::Kind::kKernelFinished;
  event.last = true;
  event.blocks = copy ? 0 : op.launch.blocks;
  event.at = now;
  event.device_time = op.total_time;
  Report(completions_, options_.completion_latency, index, event);
}

void SimGpu::Release(uint32_t index) {
  if (--ops_[index].references == 0) free_ops_.push_back(index);
}

// --- Blocks

void SimGpu::MarkFreed(uint32_t sm) {
  if (is_freed_[sm]) return;
  is_freed_[sm] = 1;
  freed_.push_back(sm);
}

// The oldest head first. A head that was left over from an earlier placement fitted nowhere then,
// so only SMs that have been freed since can take its blocks.
void SimGpu::PlaceAll(TimePoint now) {
  ++pass_;
  if (freed_.size() > 1 && !std::is_sorted(freed_.begin(), freed_.end())) {
    std::sort(freed_.begin(), freed_.end());
  }
  for (size_t i = 0; i < active_.size();) {
    const uint32_t index = active_[i];
    if (ops_[index].pass == pass_) {
      ++i;
      continue;
    }
    ops_[index].pass = pass_;
    PlaceBlocks(index, now);
    if (ops_[index].issued < ops_[index].launch.blocks) {
      ++i;
      continue;
    }
    active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
    TryActivate(PopQueue(ops_[index].queue),
                now);  // another head may come up, older than those behind `i` or not
    i = 0;
  }
  for (uint32_t sm : freed_) is_freed_[sm] = 0;
  freed_.clear();
}

Duration SimGpu::TimeOf(const Op& op, uint32_t block) {
  Duration time = block_time ? block_time(op.launch.tag, block) : op.launch.block_time;
  if (!jitter_.empty()) {
    const float factor = jitter_[NextRandom(random_) % kJitterFactors];
    time = Duration(static_cast<int64_t>(static_cast<double>(time.count()) * factor));
  }
  return std::max(time, Duration{1});
}

void SimGpu::PlaceBlocks(uint32_t index, TimePoint now) {
  Op& op = ops_[index];
  if (!op.fresh && freed_.empty()) return;
  const uint32_t left = op.launch.blocks - op.issued;
  shares_.clear();
  uint32_t placed;
  if (op.fresh || 4 * freed_.size() >= packing_.units()) {
    placed = packing_.Place(op.footprint, left, &shares_);
  } else {
    placed = packing_.PlaceAmong(freed_, op.footprint, left, &shares_);
  }
  op.fresh = false;
  if (placed == 0) return;
  uint32_t block = op.issued;
  op.issued += placed;
  stats_.blocks_started += placed;
  if (jitter_.empty() && !block_time) {
    AddCohort(index, block, shares_.data(), shares_.size(), placed, op.launch.block_time, now);
  } else {
    for (const UnitPacking::Share& share : shares_) {
      const UnitPacking::Share one{share.unit, 1};
      for (uint32_t n = 0; n < share.blocks; ++n, ++block) {
        AddCohort(index, block, &one, 1, 1, TimeOf(op, block), now);
      }
    }
  }
  if (op.launch.instrumented && options_.report_starts) {
    ReportBlocks(index, SimGpuEvent::Kind::kBlocksStarted, placed, Duration{0}, now);
  }
}

void SimGpu::AddCohort(uint32_t op, uint32_t first_block, const UnitPacking::Share* shares,
                       size_t count, uint32_t blocks, Duration time, TimePoint now) {
  uint32_t index;
  if (free_cohorts_.empty()) {
    index = static_cast<uint32_t>(cohorts_.size());
    cohorts_.emplace_back();
  } else {
    index = free_cohorts_.back();
    free_cohorts_.pop_back();
  }
  Cohort& cohort = cohorts_[index];
  cohort.op = op;
  cohort.first_block = first_block;
  cohort.blocks = blocks;
  cohort.begin = now;
  cohort.shares.clear();
  if (count == 1) {
    cohort.share = *shares;
  } else {
    cohort.shares.assign(shares, shares + count);
  }
  endings_.push_back({now + time, next_sequence_++, index});
  std::push_heap(endings_.begin(), endings_.end());
}

void SimGpu::EndCohort(uint32_t index, TimePoint now) {
  Cohort& cohort = cohorts_[index];
  free_cohorts_.push_back(index);
  const uint32_t op_index = std::exchange(cohort.op, kNone);
  if (op_index == kNone) return;
  Op& op = ops_[op_index];
  if (op.copy_time > Duration{0}) {
    FinishOp(op_index, now);
    TryActivate(PopQueue(op.queue), now);
    return;
  }
  uint32_t block = cohort.first_block;
  const UnitPacking::Share* shares = cohort.shares.empty() ? &cohort.share : &cohort.shares[0];
  for (size_t i = 0; i < std::max<size_t>(cohort.shares.size(), 1); ++i) {
    const UnitPacking::Share& share = shares[i];
    packing_.Free(op.footprint, share.unit, share.blocks);
    MarkFreed(share.unit);
    if (!options_.record_spans) continue;
    spans_.push_back({op.launch.tag, share.unit, block, share.blocks, cohort.begin, now});
    block += share.blocks;
  }
  const Duration each = now - cohort.begin;
  op.finished += cohort.blocks;
  op.total_time += cohort.blocks * each;
  stats_.blocks_finished += cohort.blocks;
  stats_.busy += cohort.blocks * each;
  if (op.launch.instrumented) {
    ReportBlocks(op_index, SimGpuEvent::Kind::kBlocksFinished, cohort.blocks, each, now);
  }
  if (op.finished == op.launch.blocks) FinishOp(op_index, now);
}

// --- Reports

// One message for each full group, and one for what is left at the end of the kernel.
void SimGpu::ReportBlocks(uint32_t index, SimGpuEvent::Kind kind, uint32_t blocks, Duration each,
                          TimePoint now) {
  Op& op = ops_[index];
  const bool starts = kind == SimGpuEvent::Kind::kBlocksStarted;
  uint32_t& unreported = starts ? op.started_unreported : op.finished_unreported;
  const bool all = (starts ? op.issued : op.finished) == op.launch.blocks;
  while (blocks > 0) {
    const uint32_t n = std::min(blocks, options_.notification_group - unreported);
    unreported += n;
    blocks -= n;
    op.unreported_time += n * each;
    const bool end = all && blocks == 0;
    if (unreported < options_.notification_group && !end) return;
    SimGpuEvent event;
    event.kind = kind;
    event.last = end && !starts;
    event.blocks = std::exchange(unreported, 0);
    event.number = (starts ? op.started_messages : op.finished_messages)++;
    event.at = now;
    if (!starts) event.device_time = std::exchange(op.unreported_time, Duration{0});
    Report(notifications_, options_.notification_latency, index, event);
  }
}

void SimGpu::Report(Ring<Message>& ring, Duration latency, uint32_t index,
                    const SimGpuEvent& event) {
  ++ops_[index].references;
  Message message;
  message.event = event;
  message.event.tag = ops_[index].launch.tag;
  message.seen_at = event.at + latency;
  message.op = index;
  ring.push(message);
}

void SimGpu::Deliver() {
  const bool completion =
      notifications_.empty() ||
      (!completions_.empty() && completions_.front().seen_at < notifications_.front().seen_at);
  const Message message = (completion ? completions_ : notifications_).pop();
  Op& op = ops_[message.op];
  const bool aborted = op.aborted;
  if (message.event.last && !aborted) {
    op.live = false;
    --in_flight_;
  }
  Release(message.op);
  if (aborted) return;
  ++stats_.reports;
  if (listener_ != nullptr) listener_->OnGpuEvent(message.event);
}

}  // namespace plexus
