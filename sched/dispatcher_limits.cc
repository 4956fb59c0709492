// What ends jobs from outside: time limits, launches that never report, a lost device.
#include <algorithm>
#include <cmath>
#include <utility>

#include "sched/dispatcher_core.h"

namespace plexus {

void Dispatcher::Core::LoseDevice(const Status& why, bool events_end) {
  if (device_status_.ok()) {
    device_status_ = UnavailableError("device " + info_.name + " is gone" +
                                      (why.message().empty() ? "" : ": " + why.message()));
  }
  if (events_end) {
    for (uint32_t slot = 0; slot < launches_.size(); ++slot) {
      LaunchRecord& launch = launches_[slot];
      if (launch.job == kNone) continue;
      if (launch.lost) {
        ForgetLost(slot);
        continue;
      }
      if (packed_) packed_->Remove(slot, launch.blocks - launch.done);
      ForgetLaunch(slot, now_);
    }
  }
  jobs_.ForEachLive([&](JobRecord& job) {
    Kill(job, device_status_);
    Settle(job);
  });
}

// --- Time limits

// From when on the job cannot meet its deadline, if that ends it. What is in flight counts as done:
// a job is only dropped when it is late for certain.
TimePoint Dispatcher::Core::LatestStart(const JobRecord& job) const {
  if (!options_.drop_late || !job.deadline) return TimePoint::max();
  if (job.guessed) return *job.deadline;
  const auto left = Duration(static_cast<int64_t>(std::max(0.0, job.alone_ns - job.issued_ns)));
  // The path is told in time on one unit; at best it spreads over all.
  return *job.deadline - left - job.remaining_path / (units_ ? info_.units : 1);
}

void Dispatcher::Core::SetTimer(JobRecord& job) {
  TimePoint at = job.timeout_at;
  if (const TimePoint latest = LatestStart(job); latest < at) at = latest + Duration{1};
  if (at == TimePoint::max()) return;
  const double now = static_cast<double>(now_.time_since_epoch().count());
  double key = static_cast<double>(at.time_since_epoch().count());
  // A time that is due at once fires at once; one that lies ahead must not round to now.
  if (at > now_ && key <= now) key = std::nextafter(now, HUGE_VAL);
  timers_.Set(job.slot, key, job.view.sequence);
}

void Dispatcher::Core::FireTimers() {
  const double now = static_cast<double>(now_.time_since_epoch().count());
  while (!timers_.empty() && timers_.top_key() <= now) {
    JobRecord& job = jobs_.at(timers_.top());
    const TimePoint latest = LatestStart(job);
    if (job.timeout_at <= now_) {
      Kill(job, DeadlineExceededError("program " + job.context.program->name +
                                      ": timed out before it was done"));
    } else if (latest < now_) {
      const auto us = [](Duration d) { return std::to_string(d.count() / 1000) + " us"; };
      Kill(job, DeadlineExceededError(
                    "program " + job.context.program->name +
                    ": dropped, it cannot meet its deadline any more: " + us(*job.deadline - now_) +
                    " are left, what remains takes at least " + us(*job.deadline - latest)));
    } else {
      SetTimer(job);  // some of it was done since
      continue;
    }
    Settle(job);
  }
}

void Dispatcher::Core::GiveUpHung() {
  for (uint32_t slot = 0; slot < launches_.size(); ++slot) {
    LaunchRecord& launch = launches_[slot];
    if (launch.job == kNone || launch.lost || launch.at + options_.hang_bound > now_) continue;
    JobRecord& job = jobs_.at(launch.job);
    Kill(job, UnavailableError(Where(job, launch.kernel) +
                               ": the device never reported the end of a launch"));
    ++stats_.launches_lost;
    if (units_ && device_.IsIdle(launch.unit)) {  // only the report got lost
      ForgetLaunch(slot, now_);
      Settle(job);
      continue;
    }
    launch.lost = true;
    // Whether only the report got lost or the unit hangs cannot be told: it gets nothing more until
    // it reports something, so that it takes no other job with it.
    if (units_) {
      units_->Remove(launch.unit, slot, now_);
      blocked_.Set(launch.unit.value(), true);
      // But rather a unit in doubt than none.
      if (!blocked_.AnyClear(info_.units)) blocked_.Resize(info_.units);
    }
    if (packed_) packed_->Remove(slot, launch.blocks - launch.done);
    if (++job.lost == job.in_flight) --running_jobs_;
    Settle(job);
  }
}

}  // namespace plexus
