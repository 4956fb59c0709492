// Housekeeper: what a runtime does at a time, and now and then.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace plexus {

// Thread-safe. Sleeps while nothing is due; the destructor joins. The clock runs with real time.
class Housekeeper {
 public:
  // Called from its thread, without a lock held.
  struct Duties {
    std::function<TimePoint(TimePoint now)> pump;  // whenever something is due, and every
                                                   // kRound; returns when it is due next itself
    std::function<void()> tidy;                    // every kRound
    std::function<void()> save;                    // every save_every
    Duration save_every;
  };
  static constexpr Duration kRound = std::chrono::seconds(5);

  Housekeeper(Duties duties, const Clock& clock);
  ~Housekeeper();

  // Calls `work` then or somewhat later, after a pump, unless `whose` is gone by then; keeps
  // `whose` meanwhile. What is expected for who has gone is forgotten long before its time, lest
  // clients that ask for long timeouts fill the memory.
  void Expect(TimePoint at, std::weak_ptr<void> whose, std::function<void()> work);
  // How much is expected, some of it perhaps for who has gone.
  size_t num_expected() const;

 private:
  struct Due {
    TimePoint at;
    std::weak_ptr<void> whose;
    std::function<void()> work;
    friend bool operator>(const Due& a, const Due& b) { return a.at > b.at; }
  };
  static constexpr size_t kTrimAt = 1024;

  void Loop();
  void TrimLocked();

  const Duties duties_;
  const Clock& clock_;
  // Of its own thread.
  TimePoint last_round_{}, last_save_;
  TimePoint pump_at_ = TimePoint::max();

  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable wake_;
  bool stopping_ = false;
  std::vector<Due> due_;  // a heap, the earliest first
  size_t trim_at_ = kTrimAt;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace plexus
