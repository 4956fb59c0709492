#include "pipeline/housekeeper.h"

#include <algorithm>
#include <utility>

namespace plexus {

Housekeeper::Housekeeper(Duties duties, const Clock& clock)
    : duties_(std::move(duties)),
      clock_(clock),
      last_save_(clock.Now()),
      thread_([this] { Loop(); }) {}

Housekeeper::~Housekeeper() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Housekeeper::Expect(TimePoint at, std::weak_ptr<void> whose, std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (due_.size() >= trim_at_) TrimLocked();
    const bool first = due_.empty() || at < due_.front().at;
    due_.push_back({at, std::move(whose), std::move(work)});
    std::push_heap(due_.begin(), due_.end(), std::greater<>());
    if (!first) return;
  }
  wake_.notify_one();
}

size_t Housekeeper::num_expected() const {
  std::lock_guard lock(mutex_);
  return due_.size();
}

// Each time that as many have come as were left: each pays for a few.
void Housekeeper::TrimLocked() {
  std::erase_if(due_, [](const Due& due) { return due.whose.expired(); });
  std::make_heap(due_.begin(), due_.end(), std::greater<>());
  trim_at_ = std::max(kTrimAt, 2 * due_.size());
}

void Housekeeper::Loop() {
  std::unique_lock lock(mutex_);
  std::vector<Due> now_due;
  while (!stopping_) {
    const TimePoint now = clock_.Now();
    const TimePoint next_round = last_round_ + kRound;
    const TimePoint next_save = last_save_ + duties_.save_every;
    TimePoint wake_at = std::min({next_round, next_save, pump_at_});
    if (!due_.empty()) wake_at = std::min(wake_at, due_.front().at);
    if (now < wake_at) {
      wake_.wait_for(lock, wake_at - now);
      continue;
    }
    while (!due_.empty() && due_.front().at <= now) {
      std::pop_heap(due_.begin(), due_.end(), std::greater<>());
      now_due.push_back(std::move(due_.back()));
      due_.pop_back();
    }
    lock.unlock();
    if (now >= next_round) {
      last_round_ = now;
      duties_.tidy();
    }
    if (now >= next_save) {
      last_save_ = now;
      duties_.save();
    }
    pump_at_ = duties_.pump(now);
    for (const Due& due : now_due) {
      if (const std::shared_ptr<void> alive = due.whose.lock()) due.work();
    }
    now_due.clear();
    lock.lock();
  }
}

}  // namespace plexus
