#include "base/memory_budget.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace plexus {
namespace {

thread_local HostScope* innermost = nullptr;

}  // namespace

MemoryBudget::MemoryBudget(std::string owner, size_t limit_bytes,
                           std::shared_ptr<MemoryBudget> parent)
    : owner_(std::move(owner)), limit_(limit_bytes), parent_(std::move(parent)) {}

Status MemoryBudget::Charge(size_t bytes) {
  size_t used = used_.load(std::memory_order_relaxed);
  do {
    if (bytes > limit_ || used > limit_ - bytes) {
      return ResourceExhaustedError(std::to_string(bytes) + " bytes are needed, " + owner_ +
                                    " holds " + std::to_string(used) + " of at most " +
                                    std::to_string(limit_));
    }
    // Relaxed: the count orders nothing.
  } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  if (parent_ == nullptr) return OkStatus();
  Status status = parent_->Charge(bytes);
  if (!status.ok()) used_.fetch_sub(bytes, std::memory_order_relaxed);  // as above
  return status;
}

void MemoryBudget::Release(size_t bytes) {
  used_.fetch_sub(bytes, std::memory_order_relaxed);  // as above
  if (parent_ != nullptr) parent_->Release(bytes);
}

Status MemoryCharge::Grow(size_t bytes) {
  if (budget_ == nullptr) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(budget_->Charge(bytes));
  bytes_ += bytes;
  return OkStatus();
}

HostScope::HostScope(std::shared_ptr<MemoryBudget> memory, const Alive* alive)
    : memory_(std::move(memory)), alive_(alive), outer_(innermost) {
  innermost = this;
}

HostScope::~HostScope() { innermost = outer_; }

std::shared_ptr<MemoryBudget> HostScope::Memory() {
  return innermost == nullptr ? nullptr : innermost->memory_;
}

Status HostScope::CheckAlive() {
  const bool asks = innermost != nullptr && innermost->alive_ != nullptr;
  return asks ? (*innermost->alive_)() : OkStatus();
}

void HostScope::Fail(Status status) {
  if (innermost != nullptr && innermost->failure_.ok()) innermost->failure_ = std::move(status);
}

Status HostScope::TakeFailure() {
  return innermost == nullptr ? OkStatus() : std::exchange(innermost->failure_, OkStatus());
}

size_t PhysicalMemoryBytes() {
  size_t bytes =
      static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
  for (const char* file :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    size_t limit = 0;  // "max" reads as nothing
    if (std::ifstream(file) >> limit && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace plexus
