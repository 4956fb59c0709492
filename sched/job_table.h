// Job records and their cursors: pools that the dispatcher draws from.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "profile/profile_store.h"
#include "sched/job.h"

namespace plexus {

// What one block of a kernel counts for.
struct BlockCost {
  float block_ns = 0;
  float share = 1;  // of a unit that a block takes
  float width = 1;  // blocks that run at once when the job is alone on the device

  double work_ns() const { return double{block_ns} * share; }   // in time of a whole unit
  double alone_ns() const { return double{block_ns} / width; }  // alone on the device
};

// Where one kernel of a job stands. Blocks are issued from both ends of the grid: units of the
// lower half take the front, those of the upper half the back, so that neighbouring kernels give
// the same rows to the same unit.
struct KernelCursor {
  uint32_t dependencies_left = 0;
  uint32_t front = 0;        // blocks [0, front) are issued
  uint32_t back = 0;         // blocks [back, grid) are issued
  uint32_t done = 0;         // finished blocks
  uint32_t last_unit = ~0u;  // the unit that finished the producer last
  // As expected when the job started; what is left of the job is counted in it, so that it comes to
  // nothing at the end whatever was learned meanwhile.
  BlockCost cost;

  uint32_t unissued() const { return back - front; }
};

// Cursors of a started job; reused, so that starting a job seldom allocates.
struct JobCursor {
  std::vector<KernelCursor> kernels;
  std::vector<uint32_t> ready;  // kernels with dependencies met and blocks to issue
  uint32_t kernels_left = 0;
};

enum class JobState : uint8_t { kFree, kWaiting, kStarted, kEnded };

// One job in the dispatcher. Its address is stable while it lives.
struct JobRecord {
  JobView view;
  JobContext context;
  JobListener* listener = nullptr;
  ProgramProfilePtr profile;
  std::unique_ptr<JobCursor> cursor;  // from start to end
  Status end_status;
  Duration remaining_path{0};
  TimePoint timeout_at = TimePoint::max();
  std::optional<TimePoint> deadline;  // what drop_late holds it to; the view's may be another's
  double work_ns = 0;        // left of this job: of its blocks together, in time of a whole unit
  double alone_ns = 0;       // the same, alone on the device; without the path
  double issued_ns = 0;      // of alone_ns, what is in flight
  bool guessed = false;      // a kernel of it has never run: its time is an estimate
  bool cancelled = false;    // that is how it ends
  uint32_t slot = 0;         // own index
  uint32_t generation = 0;   // tells a JobId from an earlier user of the slot
  uint32_t in_flight = 0;    // launches not reported over, lost ones included
  uint32_t lost = 0;         // launches that were given up (DispatcherOptions::hang_bound)
  uint32_t next = ~0u;       // in the free list or the list of ended jobs
  uint32_t last_unit = ~0u;  // where blocks of it finished last
  TimePoint submitted_at{};
  TimePoint first_launch{};            // TimePoint{}: none yet
  double served_ns = 0;                // device time of finished blocks, as TenantStats counts it
  std::shared_ptr<PlaceHolder> place;  // null: a job like any other
  std::vector<Payer> payers;
  double paid_rows = 0;      // of all payers
  RequestId request;         // for traces
  uint32_t trace_names = 0;  // TraceRecorder's id of the program's name; its kernels' follow
  bool traced = false;       // recorded while a trace is taken
  JobState state = JobState::kFree;
  bool dying = false;  // ends as soon as nothing is in flight
  bool holds_arena = false;
  bool has_turn = false;        // a place whose holder is to answer
  bool may_take_arena = false;  // its turn has come among those that waited for one
  bool delivered = false;       // the listener has heard; only lost launches keep the record
};

// All jobs of a dispatcher, by slot. Thread-compatible; grows in chunks, never moves a record.
class JobTable {
 public:
  // A free record, its state still kFree; grows when none is left.
  JobRecord& Allocate();
  void Free(JobRecord& job);
  JobRecord& at(uint32_t slot) { return chunks_[slot / kChunk][slot % kChunk]; }
  // The live job of that id; nullptr when it has ended or never was.
  JobRecord* Find(JobId id);
  uint32_t capacity() const { return static_cast<uint32_t>(chunks_.size() * kChunk); }
  uint32_t live() const { return live_; }

  // Cursors for jobs of up to `kernels` kernels, so that the next few starts allocate nothing.
  void Provision(size_t kernels);
  std::unique_ptr<JobCursor> TakeCursor();
  void ReturnCursor(std::unique_ptr<JobCursor> cursor);

  template <typename Visit>
  void ForEachLive(Visit visit) {
    for (uint32_t s = 0; s < capacity(); ++s) {
      JobRecord& job = at(s);
      if (job.state == JobState::kWaiting || job.state == JobState::kStarted) visit(job);
    }
  }

 private:
  static constexpr uint32_t kChunk = 256;
  static constexpr size_t kPooledCursors = 256;
  static constexpr size_t kSpareCursors = 8;
  std::vector<std::unique_ptr<JobRecord[]>> chunks_;
  std::vector<std::unique_ptr<JobCursor>> cursors_;
  size_t most_kernels_ = 0;
  uint32_t free_ = ~0u;
  uint32_t live_ = 0;
};

}  // namespace plexus
