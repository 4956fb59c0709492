// Budgets for memory whose size a request decides, and the limits under which a piece of host work
// runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"

namespace plexus {

// Counts bytes against a limit and, if it has a parent, against the parent's too. Thread-safe.
class MemoryBudget {
 public:
  // `owner` is how messages name it: "the request".
  MemoryBudget(std::string owner, size_t limit_bytes,
               std::shared_ptr<MemoryBudget> parent = nullptr);

  // Takes `bytes` here and from every parent, or from none: kResourceExhausted names the owner
  // whose limit stands against it, what it holds, and its limit.
  Status Charge(size_t bytes);
  void Release(size_t bytes);  // of what was charged

  size_t used_bytes() const { return used_.load(std::memory_order_relaxed); }  // a statistic
  size_t limit_bytes() const { return limit_; }

 private:
  const std::string owner_;
  const size_t limit_;
  const std::shared_ptr<MemoryBudget> parent_;
  std::atomic<size_t> used_{0};
};

// Bytes charged to a budget until it is destroyed. Move-only; thread-compatible.
class MemoryCharge {
 public:
  MemoryCharge() = default;  // charges nobody
  explicit MemoryCharge(std::shared_ptr<MemoryBudget> budget) : budget_(std::move(budget)) {}
  MemoryCharge(MemoryCharge&& other) noexcept
      : budget_(std::move(other.budget_)), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryCharge& operator=(MemoryCharge&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryCharge() {
    if (budget_ != nullptr) budget_->Release(bytes_);
  }
  Status Grow(size_t bytes);

 private:
  std::shared_ptr<MemoryBudget> budget_;
  size_t bytes_ = 0;
};

// While one lives, tensors that this thread makes are charged to `memory` (null: to nobody), and
// long work asks `alive` now and then whether to go on. Scopes nest; a scope stays on its thread: a
// coroutine must not suspend inside one.
class HostScope {
 public:
  using Alive = std::function<Status()>;

  // Borrows `alive`, which may be null.
  explicit HostScope(std::shared_ptr<MemoryBudget> memory, const Alive* alive = nullptr);
  ~HostScope();
  HostScope(const HostScope&) = delete;
  HostScope& operator=(const HostScope&) = delete;

  // Of the innermost scope on this thread; null and OK without one.
  static std::shared_ptr<MemoryBudget> Memory();
  static Status CheckAlive();

  // For code that cannot return a Status: the first failure is kept until somebody takes it.
  static void Fail(Status status);
  static Status TakeFailure();

 private:
  const std::shared_ptr<MemoryBudget> memory_;
  const Alive* const alive_;
  Status failure_;
  HostScope* const outer_;
};

// Memory that this process may use: the machine's, or its control group's where that is less.
size_t PhysicalMemoryBytes();

}  // namespace plexus
