// A server's sessions, and the thread that notices when one of them is due.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "pipeline/session_store.h"

namespace plexus {

// Thread-safe. Sleeps while nothing is due; the destructor joins. The clock runs with real time.
class SessionKeeper {
 public:
  SessionKeeper(const Clock& clock, SessionLimits limits)
      : clock_(clock), store_(clock, limits, [this] { Wake(); }), thread_([this] { Loop(); }) {}
  ~SessionKeeper() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  SessionStore& store() { return store_; }
  SessionStore::Stats stats() const { return store_.stats(); }

 private:
  void Wake() {
    {
      std::lock_guard lock(mutex_);
      woken_ = true;
    }
    wake_.notify_one();
  }
  void Loop() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      woken_ = false;
      lock.unlock();
      const std::optional<TimePoint> next = store_.Tick();
      lock.lock();
      const auto due = [this] { return stopping_ || woken_; };
      if (next) {
        wake_.wait_for(lock, *next - clock_.Now(), due);
      } else {
        wake_.wait(lock, due);
      }
    }
  }

  const Clock& clock_;
  SessionStore store_;
  std::mutex mutex_;  // guards the next two
  std::condition_variable wake_;
  bool stopping_ = false, woken_ = false;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace plexus
