#include "sched/job_table.h"

#include <algorithm>
#include <utility>

namespace plexus {
namespace {
constexpr uint32_t kNone = ~0u;
}

JobRecord& JobTable::Allocate() {
  if (free_ == kNone) {
    const uint32_t first = capacity();
    chunks_.push_back(std::make_unique<JobRecord[]>(kChunk));
    for (uint32_t i = kChunk; i-- > 0;) {
      JobRecord& job = chunks_.back()[i];
      job.slot = first + i;
      job.next = free_;
      free_ = job.slot;
    }
  }
  JobRecord& job = at(free_);
  free_ = job.next;
  job.next = kNone;
  ++live_;
  ++job.generation;
  job.view = JobView{};
  job.view.id = JobId((uint64_t{job.generation} << 32) | job.slot);
  return job;
}

void JobTable::Free(JobRecord& job) {
  job.state = JobState::kFree;
  job.listener = nullptr;
  job.profile.reset();
  job.end_status = Status();
  job.context.program.reset();
  job.context.arena.reset();
  job.in_flight = 0;
  job.lost = 0;
  job.last_unit = kNone;
  job.timeout_at = TimePoint::max();
  job.dying = false;
  job.cancelled = false;
  job.holds_arena = false;
  job.has_turn = false;
  job.place.reset();
  job.may_take_arena = false;
  job.delivered = false;
  job.next = free_;
  free_ = job.slot;
  --live_;
}

JobRecord* JobTable::Find(JobId id) {
  if (!id.valid()) return nullptr;
  const uint32_t slot = static_cast<uint32_t>(id.value());
  if (slot >= capacity()) return nullptr;
  JobRecord& job = at(slot);
  const bool live = job.state == JobState::kWaiting || job.state == JobState::kStarted;
  return live && job.view.id == id ? &job : nullptr;
}

void JobTable::Provision(size_t kernels) {
  most_kernels_ = std::max(most_kernels_, kernels);
  const size_t room = std::max<size_t>(kPooledCursors, live_);
  if (cursors_.capacity() < room) cursors_.reserve(std::max(room, 2 * cursors_.capacity()));
  while (cursors_.size() < kSpareCursors) cursors_.push_back(std::make_unique<JobCursor>());
  // The ones to be taken next; the others had their turn when they were.
  for (size_t i = 0; i < kSpareCursors; ++i) {
    JobCursor& cursor = *cursors_[cursors_.size() - 1 - i];
    cursor.kernels.reserve(most_kernels_);
    cursor.ready.reserve(most_kernels_);
  }
}

std::unique_ptr<JobCursor> JobTable::TakeCursor() {
  if (cursors_.empty()) {
    // More jobs are started at once than ever before.
    auto cursor = std::make_unique<JobCursor>();
    cursor->kernels.reserve(most_kernels_);
    cursor->ready.reserve(most_kernels_);
    return cursor;
  }
  std::unique_ptr<JobCursor> cursor = std::move(cursors_.back());
  cursors_.pop_back();
  return cursor;
}

void JobTable::ReturnCursor(std::unique_ptr<JobCursor> cursor) {
  // As many as there are jobs that could want one; Provision made room for them.
  if (cursor != nullptr && cursors_.size() < std::max<size_t>(kPooledCursors, live_)) {
    cursors_.push_back(std::move(cursor));
  }
}

}  // namespace plexus
