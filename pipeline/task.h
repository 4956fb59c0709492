// Task<T>: a lazy coroutine that its awaiter resumes from; one allocation, no thread of its own.
#pragma once

#include <atomic>
#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "base/status.h"

namespace plexus {

// Starts when awaited; resumes its awaiter on whichever thread finished it. A task that ends
// without suspending never suspends its awaiter either, so that a loop over such tasks needs no
// stack, whether or not the compiler turns resumption into tail calls. Move-only; destroying a
// suspended Task destroys its frame. Exceptions do not cross: an escaped one ends the process (our
// code throws none).
template <typename T>
class [[nodiscard]] Task {
 public:
  struct promise_type {
    std::optional<T> value;
    std::coroutine_handle<> awaiter;
    // Set by whichever comes first: the end of this task, or its awaiter having suspended.
    std::atomic<bool> met{false};

    Task get_return_object() { return Task(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    struct FinalAwaiter {
      bool await_ready() noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> h) noexcept {
        promise_type& promise = h.promise();
        const std::coroutine_handle<> awaiter = promise.awaiter;
        // acq_rel: the value must be visible to the awaiter, the suspended awaiter to us. When the
        // awaiter has not suspended it may destroy this frame at once: nothing of it is touched.
        if (promise.met.exchange(true, std::memory_order_acq_rel)) awaiter.resume();
      }
      void await_resume() noexcept {}
    };
    FinalAwaiter final_suspend() noexcept { return {}; }
    void return_value(T result) { value.emplace(std::move(result)); }
    void unhandled_exception() noexcept { std::terminate(); }
  };
  using Handle = std::coroutine_handle<promise_type>;

  explicit Task(Handle handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiter) noexcept {
    const Handle handle = handle_;  // this Task lives in the awaiter's frame
    handle.promise().awaiter = awaiter;
    handle.resume();
    // acq_rel as above; true: it has not ended yet, its end will resume the awaiter. If it ends on
    // another thread right here, the exchange below is what it waits for.
    return !handle.promise().met.exchange(true, std::memory_order_acq_rel);
  }
  T await_resume() { return std::move(*handle_.promise().value); }

 private:
  Handle handle_;
};

// The root of a request: starts at once and frees itself when it ends.
struct DetachedTask {
  struct promise_type {
    DetachedTask get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

}  // namespace plexus
