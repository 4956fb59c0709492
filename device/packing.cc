#include "device/packing.h"

#include <algorithm>
#include <limits>

namespace plexus {
namespace {

// Saturating: an absurd request must not look small.
int32_t RoundUp(int64_t value, int32_t granularity) {
  const int64_t g = std::max(granularity, 1);
  const int64_t rounded = (value + g - 1) / g * g;
  return static_cast<int32_t>(std::min<int64_t>(rounded, std::numeric_limits<int32_t>::max() / 2));
}

int32_t FitsIn(int32_t slots, int32_t threads, int32_t registers, int32_t shared,
               const UnitLimits& limits, const BlockFootprint& b) {
  int32_t fits = std::min(slots, threads / b.threads);
  if (b.registers > 0 && limits.registers > 0) fits = std::min(fits, registers / b.registers);
  if (b.shared_bytes > 0 && limits.shared_bytes > 0) {
    fits = std::min(fits, shared / b.shared_bytes);
  }
  return std::max(fits, 0);
}

}  // namespace

BlockFootprint FootprintOf(const UnitLimits& limits, const BlockResources& block) {
  const int32_t warp = std::max(limits.warp_size, 1);
  BlockFootprint f;
  f.threads = RoundUp(std::max(block.threads, 1), warp);
  const int32_t per_warp =
      RoundUp(int64_t{std::max(block.registers_per_thread, 0)} * warp, limits.register_granularity);
  f.registers = RoundUp(int64_t{per_warp} * (f.threads / warp), 1);
  f.shared_bytes = RoundUp(std::max(block.shared_bytes, 0), limits.shared_granularity);
  return f;
}

std::string WhyNeverFits(const UnitLimits& limits, const BlockFootprint& block) {
  const auto why = [](int32_t needs, int32_t has, const char* what) {
    return "needs " + std::to_string(needs) + " " + what + ", a unit has " + std::to_string(has);
  };
  if (limits.blocks < 1) return "a unit of this device holds no blocks";
  if (block.threads > limits.threads) return why(block.threads, limits.threads, "threads");
  if (limits.registers > 0 && block.registers > limits.registers) {
    return why(block.registers, limits.registers, "registers");
  }
  if (limits.shared_bytes > 0 && block.shared_bytes > limits.shared_bytes) {
    return why(block.shared_bytes, limits.shared_bytes, "bytes of shared memory");
  }
  return "";
}

UnitPacking::UnitPacking(uint32_t units, const UnitLimits& limits)
    : limits_(limits),
      slots_(units, limits.blocks),
      threads_(units, limits.threads),
      registers_(units, limits.registers),
      shared_(units, limits.shared_bytes),
      free_slots_(int64_t{units} * limits.blocks),
      free_threads_(int64_t{units} * limits.threads),
      fits_(units),
      at_least_(static_cast<size_t>(std::max(limits.blocks, 0)) + 1) {}

uint32_t UnitPacking::PerUnit(const BlockFootprint& block) const {
  return static_cast<uint32_t>(FitsIn(limits_.blocks, limits_.threads, limits_.registers,
                                      limits_.shared_bytes, limits_, block));
}

uint32_t UnitPacking::FitsOn(uint32_t unit, const BlockFootprint& block) const {
  return static_cast<uint32_t>(
      FitsIn(slots_[unit], threads_[unit], registers_[unit], shared_[unit], limits_, block));
}

// Multiplies by reciprocals: four units at a time, where a division would take longer than all
// else. The half keeps exact multiples from rounding down (limits are below 2^21).
void UnitPacking::FitAll(const BlockFootprint& block) const {
  const uint32_t n = units();
  const float per_thread = 1.0f / static_cast<float>(block.threads);
  const bool by_registers = block.registers > 0 && limits_.registers > 0;
  const bool by_shared = block.shared_bytes > 0 && limits_.shared_bytes > 0;
  const float per_register = by_registers ? 1.0f / static_cast<float>(block.registers) : 0;
  const float per_byte = by_shared ? 1.0f / static_cast<float>(block.shared_bytes) : 0;
  const float no_registers = by_registers ? 0 : 1e9f, no_shared = by_shared ? 0 : 1e9f;
  const int32_t* slots = slots_.data();
  const int32_t* threads = threads_.data();
  const int32_t* registers = registers_.data();
  const int32_t* shared = shared_.data();
  int32_t* fits = fits_.data();
  for (uint32_t u = 0; u < n; ++u) {
    float f = static_cast<float>(slots[u]);
    const float t = (static_cast<float>(threads[u]) + 0.5f) * per_thread;
    const float r = (static_cast<float>(registers[u]) + 0.5f) * per_register + no_registers;
    const float s = (static_cast<float>(shared[u]) + 0.5f) * per_byte + no_shared;
    f = f < t ? f : t;
    f = f < r ? f : r;
    f = f < s ? f : s;
    fits[u] = static_cast<int32_t>(f);
  }
}

uint32_t UnitPacking::Room(const BlockFootprint& block, uint32_t wanted) const {
  if (free_slots_ <= 0 || free_threads_ < block.threads || PerUnit(block) == 0) return 0;
  FitAll(block);
  int64_t room = 0;
  for (int32_t f : fits_) room += f;
  return static_cast<uint32_t>(std::min<int64_t>(room, wanted));
}

void UnitPacking::Take(const BlockFootprint& block, uint32_t unit, uint32_t blocks) {
  const int32_t n = static_cast<int32_t>(blocks);
  slots_[unit] -= n;
  threads_[unit] -= n * block.threads;
  registers_[unit] -= limits_.registers > 0 ? n * block.registers : 0;
  shared_[unit] -= limits_.shared_bytes > 0 ? n * block.shared_bytes : 0;
  free_slots_ -= n;
  free_threads_ -= int64_t{n} * block.threads;
}

void UnitPacking::Free(const BlockFootprint& block, uint32_t unit, uint32_t blocks) {
  const int32_t n = static_cast<int32_t>(blocks);
  slots_[unit] += n;
  threads_[unit] += n * block.threads;
  registers_[unit] += limits_.registers > 0 ? n * block.registers : 0;
  shared_[unit] += limits_.shared_bytes > 0 ? n * block.shared_bytes : 0;
  free_slots_ += n;
  free_threads_ += int64_t{n} * block.threads;
}

uint32_t UnitPacking::Place(const BlockFootprint& block, uint32_t blocks,
                            std::vector<Share>* shares) {
  if (free_slots_ <= 0 || free_threads_ < block.threads || PerUnit(block) == 0) return 0;
  FitAll(block);
  return Distribute(nullptr, units(), block, blocks, shares);
}

uint32_t UnitPacking::PlaceAmong(std::span<const uint32_t> among, const BlockFootprint& block,
                                 uint32_t blocks, std::vector<Share>* shares) {
  if (free_slots_ <= 0 || free_threads_ < block.threads) return 0;
  // Most often the unit has no room even for one, and comparing is cheaper than dividing.
  bool any = false;
  for (uint32_t u : among) {
    const bool one = slots_[u] > 0 && threads_[u] >= block.threads &&
                     (limits_.registers == 0 || registers_[u] >= block.registers) &&
                     (limits_.shared_bytes == 0 || shared_[u] >= block.shared_bytes);
    fits_[u] = one ? static_cast<int32_t>(FitsOn(u, block)) : 0;
    any = any || one;
  }
  if (!any) return 0;
  return Distribute(among.data(), static_cast<uint32_t>(among.size()), block, blocks, shares);
}

// One block after the other on the unit with most room is the same as cutting the units' room down
// to one level, the lowest numbers one further.
uint32_t UnitPacking::Distribute(const uint32_t* among, uint32_t count, const BlockFootprint& block,
                                 uint32_t blocks, std::vector<Share>* shares) {
  const auto unit = [&](uint32_t i) { return among != nullptr ? among[i] : i; };
  int32_t most = 0;
  int64_t room = 0;
  for (uint32_t i = 0; i < count; ++i) {
    most = std::max(most, fits_[unit(i)]);
    room += fits_[unit(i)];
  }
  if (room == 0 || blocks == 0) return 0;
  int32_t level = 0;   // what each unit has room for afterwards, at most
  uint32_t extra = 0;  // units that go one below it
  if (room > blocks) {
    std::fill(at_least_.begin(), at_least_.begin() + most + 1, 0);
    for (uint32_t i = 0; i < count; ++i) ++at_least_[static_cast<size_t>(fits_[unit(i)])];
    for (int32_t f = most; f-- > 1;) at_least_[static_cast<size_t>(f)] += at_least_[f + 1];
    level = most;
    extra = blocks;
    while (extra >= at_least_[static_cast<size_t>(level)]) {
      extra -= at_least_[static_cast<size_t>(level)];
      --level;
    }
  }
  uint32_t placed = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t u = unit(i);
    if (fits_[u] < level || fits_[u] == 0) continue;
    uint32_t n = static_cast<uint32_t>(fits_[u] - level);
    if (extra > 0) {
      ++n;
      --extra;
    }
    if (n == 0) continue;
    Take(block, u, n);
    placed += n;
    shares->push_back({u, n});
  }
  return placed;
}

}  // namespace plexus
