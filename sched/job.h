// Job: one run of a Program for one batch, as the dispatcher sees it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "device/device.h"

namespace plexus {

using TenantId = Id<struct TenantTag>;
using RequestId = Id<struct RequestTag, uint64_t>;

// What a job inherits from its request.
struct RequestAttributes {
  RequestId request;
  TenantId tenant{0};
  TimePoint arrival{};                  // scheduled arrival at the server
  std::optional<TimePoint> deadline;    // for edf and early drop
  std::optional<TimePoint> timeout_at;  // the job is dropped at its next boundary after this
  uint32_t priority = 0;                // 0 default, 1 highest, larger is lower
  size_t memory_bytes = 0;              // for its values outside arenas; 0: the runtime's default
  Duration service_time{0};             // whole request, as ExpectedTime counts; 0: this job's own
  Duration remaining_path{0};           // expected after this job, as ExpectedTime counts
  bool may_batch = true;                // with rows of other requests
  bool traced = true;                   // recorded while a trace is taken (TraceRecorder::Samples)
  bool use_cache = true;                // finished results may answer it, and it may leave its own
  // Ids of tenants that are not heard of for long are given away: unlike those who had this one
  // before.
  uint64_t tenant_since = 0;
};

// How soon somebody wants a job who waits for it beside its own request.
struct Urgency {
  std::optional<TimePoint> deadline;
  uint32_t priority = 0;  // as in RequestAttributes
};

// How a job ended. Called once, outside the dispatcher's lock, by whichever thread reported the
// last event (or by Submit/Cancel/Pump); it may submit further jobs, must not block for long.
class JobListener {
 public:
  virtual ~JobListener() = default;
  // `buffers` come back to the listener, outputs filled when `status` is OK.
  virtual void OnJobDone(JobId job, Status status, JobBuffers buffers) = 0;
  // Just before, by the same thread: the device time of the job's finished blocks, as
  // TenantStats::time counts it.
  virtual void OnDeviceTime(JobId, Duration) {}
};

// A job that is not put together before its turn comes: until then its place in line is kept.
class PlaceHolder : public JobListener {
 public:
  // The place's turn has come: what it would be launched on is kept free until it is replaced
  // (Dispatcher::Replace), withdrawn or cancelled, which is to be soon. Once, outside the
  // dispatcher's lock, by any thread; maybe before Submit has told the id, maybe after another
  // thread has withdrawn the place or it has ended.
  virtual void OnTurn(JobId place) = 0;
};

// One of those that a job of several requests is charged to.
struct Payer {
  TenantId tenant;
  uint32_t rows = 1;  // of the job's that are its own; > 0
};

struct JobSpec {
  ProgramPtr program;
  JobBuffers buffers;
  RequestAttributes attributes;
  uint32_t rows = 1;                // batch rows; profiles are learned per (program, kernel, rows)
  JobListener* listener = nullptr;  // outlives the job
  // Whose device time the job's is, in parts as they have rows; empty: all of it is that of the
  // attributes' tenant, whose turn it takes in any case.
  std::vector<Payer> payers;
  // If set, nothing is ever launched: the job keeps a place in line, by its attributes and by the
  // time of its program. Needs no buffers; its listener is the holder, kept until it has ended.
  std::shared_ptr<PlaceHolder> place;
};

// The dispatcher's summary of one job, all that a policy may look at. Times are as
// Dispatcher::ExpectedTime counts them: on one unit (core) where units are addressed, alone on the
// device where it places blocks itself. Learned where the program ran before, estimated otherwise.
struct JobView {
  JobId id;
  TenantId tenant;
  TimePoint arrival{};
  std::optional<TimePoint> deadline;
  uint32_t priority = 0;       // 0: none given
  Duration service_time{0};    // the whole request, or this job if that is unknown; constant, > 0
  Duration remaining_time{0};  // what is left of this job plus its remaining path, > 0
  Duration attained_time{0};   // device time used so far
  uint64_t last_turn = 0;      // a counter that runs on at every submit and every launch (rr)
  uint64_t sequence = 0;       // submission order, the tie breaker
};

}  // namespace plexus
