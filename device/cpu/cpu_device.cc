#include "device/cpu/cpu_device.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "device/cpu/arena_pool.h"
#include "device/cpu/worker.h"

namespace plexus {
namespace {

// A futex wake-up until the woken thread runs, as measured on virtual machines; and what is left of
// it, on average, once it is under way.
constexpr Duration kWakeLatency = std::chrono::microseconds(40);
constexpr Duration kWakingLatency = std::chrono::microseconds(20);

std::vector<int> AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int c = 0; c < CPU_SETSIZE; ++c) {
      if (CPU_ISSET(c, &set)) cores.push_back(c);
    }
  }
  if (cores.empty()) cores.push_back(0);
  return cores;
}

// Cores' worth of CPU time that the control group allows, rounded up; a large number without a
// quota.
uint32_t QuotaCores() {
  std::ifstream in("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(in >> quota >> period) || quota == "max" || period <= 0) return 1u << 16;
  const double cores = std::strtod(quota.c_str(), nullptr) / period;
  return cores > 0 ? static_cast<uint32_t>(std::min(cores + 0.999, 65536.0)) : 1u << 16;
}

}  // namespace

class CpuDevice::Impl {
 public:
  Impl(const CpuDeviceOptions& options, const Clock& clock)
      : options_(options), shared_(clock), arenas_(options.arena_budget_bytes, clock) {
    const std::vector<int> cores = AllowedCores();
    info_.kind = "cpu";
    info_.name = "cpu";
    info_.units = options.workers;
    if (info_.units == 0) {
      info_.units = std::max(1u, std::min(static_cast<uint32_t>(cores.size()), QuotaCores()));
    }
    info_.queue_depth = 1;
    info_.unit_addressed = true;
    info_.arena_budget_bytes = options.arena_budget_bytes;
    shared_.spin = options.spin;
    if (options.pin.value_or(info_.units > 1 && info_.units == cores.size())) {
      for (uint32_t u = 0; u < info_.units; ++u) core_of_.push_back(cores[u % cores.size()]);
    }
    for (uint32_t u = 0; u < info_.units; ++u) {
      units_.push_back(std::make_unique<CpuUnit>(u, shared_));
    }
    for (uint32_t u = 0; u < info_.units; ++u) {
      units_[u]->thread = std::thread([this, u] { WorkerMain(*units_[u]); });
      if (!core_of_.empty()) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core_of_[u], &set);
        // Best effort: an unpinned worker works as well.
        pthread_setaffinity_np(units_[u]->thread.native_handle(), sizeof(set), &set);
      }
    }
  }

  void WorkerMain(CpuUnit& unit) {
    pthread_setname_np(pthread_self(), ("plexus-w" + std::to_string(unit.index())).c_str());
    SetOpenMpThreads(1);
    if (options_.thread_init) options_.thread_init(unit.index());
    ThreadUnit() = &unit;
    unit.WorkerLoop([this] { return AnyRunning(); });
  }

  bool AnyRunning() const {
    return std::any_of(units_.begin(), units_.end(), [](const auto& u) { return u->running(); });
  }

  // Where workers are pinned, the parked one of the caller's core: the others then have the other
  // cores. Else the lowest parked unit, so that the same arena and caches are used again; else one
  // that spins.
  CpuUnit* Take() {
    if (!core_of_.empty()) {
      const auto own = std::find(core_of_.begin(), core_of_.end(), sched_getcpu());
      CpuUnit* unit = own != core_of_.end() ? units_[own - core_of_.begin()].get() : nullptr;
      if (unit != nullptr && unit->TryTake(/*spinning_too=*/false)) return unit;
    }
    for (const bool spinning_too : {false, true}) {
      for (const auto& unit : units_) {
        if (unit->TryTake(spinning_too)) return unit.get();
      }
    }
    return nullptr;
  }

  CpuUnit* LocalUnit() const {
    CpuUnit* unit = ThreadUnit();
    const bool ours =
        unit != nullptr && unit->index() < units_.size() && units_[unit->index()].get() == unit;
    return ours ? unit : nullptr;
  }

  void Stop() {
    std::lock_guard lock(stop_mutex_);
    shared_.stopping.store(true);
    for (const auto& unit : units_) unit->WakeToStop();
    for (const auto& unit : units_) {
      if (unit->thread.joinable()) unit->thread.join();
    }
  }

  void NotifyDone() {
    // Sequentially consistent, both: a caller that is about to block either sees the new epoch or
    // is seen here.
    epoch_.fetch_add(1);
    if (blocked_.load() > 0) epoch_.notify_all();
  }

  void BlockUntil(const std::function<bool()>& done) {
    blocked_.fetch_add(1);
    for (;;) {
      const uint32_t epoch = epoch_.load();
      if (done()) break;
      epoch_.wait(epoch);
    }
    blocked_.fetch_sub(1);
  }

  const CpuDeviceOptions options_;
  CpuShared shared_;
  DeviceInfo info_;
  ArenaPool arenas_;
  std::vector<int> core_of_;  // by unit; empty: not pinned
  std::vector<std::unique_ptr<CpuUnit>> units_;
  std::mutex stop_mutex_;  // one Stop at a time
  std::atomic<uint32_t> epoch_{0};
  std::atomic<uint32_t> blocked_{0};
};

CpuDevice::CpuDevice(const CpuDeviceOptions& options, const Clock& clock)
    : impl_(std::make_unique<Impl>(options, clock)) {}

CpuDevice::~CpuDevice() { Stop(); }

const DeviceInfo& CpuDevice::info() const { return impl_->info_; }
void CpuDevice::SetSink(DeviceEventSink* sink) { impl_->shared_.sink = sink; }

Status CpuDevice::Submit(const Launch& launch) {
  if (!launch.unit.valid() || launch.unit.value() >= impl_->units_.size()) {
    return InvalidArgumentError("launch without a worker of this device");
  }
  // The queues close as they run empty; from here on nothing new is taken.
  if (impl_->shared_.stopping.load()) return UnavailableError("the CPU device has stopped");
  return impl_->units_[launch.unit.value()]->Submit(launch);
}

Duration CpuDevice::WakeLatency(UnitId unit) const {
  switch (impl_->units_[unit.value()]->state()) {
    case CpuUnit::kParked:
      return kWakeLatency;
    case CpuUnit::kWaking:
      return kWakingLatency;
    default:
      return Duration{0};
  }
}

bool CpuDevice::IsIdle(UnitId unit) const { return !impl_->units_[unit.value()]->HasWork(); }

UnitId CpuDevice::LocalUnit() const {
  const CpuUnit* unit = impl_->LocalUnit();
  return unit != nullptr ? UnitId(unit->index()) : UnitId();
}

Result<std::unique_ptr<Arena>> CpuDevice::AllocateArena(size_t size_bytes) {
  return impl_->arenas_.Allocate(size_bytes);
}

void CpuDevice::Stop() { impl_->Stop(); }
void CpuDevice::NotifyDone() { impl_->NotifyDone(); }
size_t CpuDevice::TrimArenas(Duration unused_for) { return impl_->arenas_.Trim(unused_for); }
size_t CpuDevice::pooled_arena_bytes() const { return impl_->arenas_.pooled_bytes(); }

uint32_t CpuDevice::parked_units() const {
  return static_cast<uint32_t>(
      std::count_if(impl_->units_.begin(), impl_->units_.end(),
                    [](const auto& u) { return u->state() == CpuUnit::kParked; }));
}

void CpuDevice::Participate(const std::function<bool()>& done) {
  Participant(*this).RunUntil(done);
}

CpuDevice::Participant::Participant(CpuDevice& device) : device_(device) {
  unit_ = device.impl_->LocalUnit();  // a worker, or inside another Participant: its own unit
  if (unit_ != nullptr) return;
  unit_ = device.impl_->Take();
  if (unit_ == nullptr) {
    // A worker that has just woken this thread may stand preempted by it, a microsecond before it
    // would be idle: let it get there.
    std::this_thread::yield();
    unit_ = device.impl_->Take();
  }
  if (unit_ == nullptr) return;
  owned_ = true;
  ThreadUnit() = unit_;
  omp_threads_ = SetOpenMpThreads(1);
}

CpuDevice::Participant::~Participant() { Release(); }

void CpuDevice::Participant::Release() {
  if (owned_) {
    ThreadUnit() = nullptr;
    if (omp_threads_ > 0) SetOpenMpThreads(omp_threads_);
    unit_->GiveBack();
  }
  owned_ = false;
  unit_ = nullptr;
}

void CpuDevice::Participant::RunUntil(const std::function<bool()>& done) {
  Impl& impl = *device_.impl_;
  while (unit_ != nullptr) {
    if (done()) return;
    if (unit_->RunOne()) continue;
    const bool found = unit_->Spin([&] { return impl.AnyRunning(); }, done);
    // A unit that is not ours to give back stays with this thread: keep running it.
    if (!found && owned_) Release();
    if (!found && !owned_ && unit_ != nullptr) std::this_thread::yield();
  }
  impl.BlockUntil(done);
}

}  // namespace plexus
