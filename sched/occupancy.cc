#include "sched/occupancy.h"

#include <algorithm>
#include <limits>

namespace plexus {

UnitOccupancy::UnitOccupancy(uint32_t units, uint32_t queue_depth)
    : capacity_(1 + queue_depth), units_(units), held_(size_t{units} * (1 + queue_depth)) {
  idle_.Resize(units);
  queueable_.Resize(units);
  for (uint32_t u = 0; u < units; ++u) idle_.Set(u, true);
  num_idle_ = units;
}

void UnitOccupancy::Update(uint32_t unit, uint32_t before) {
  const uint32_t count = units_[unit].count;
  idle_.Set(unit, count == 0);
  queueable_.Set(unit, count > 0 && count < capacity_);
  if (before == 0 && count > 0) --num_idle_;
  if (before > 0 && count == 0) ++num_idle_;
}

uint32_t UnitOccupancy::oldest(UnitId unit) const {
  return held_[size_t{unit.value()} * capacity_].tag;
}

void UnitOccupancy::Add(UnitId unit, uint32_t tag, Duration expected, TimePoint now) {
  Unit& u = units_[unit.value()];
  PLEXUS_CHECK(u.count < capacity_);
  held_[size_t{unit.value()} * capacity_ + u.count] = {tag, expected};
  u.busy_until = std::max(u.busy_until, now) + expected;
  const uint32_t before = u.count++;
  ++total_;
  Update(unit.value(), before);
}

bool UnitOccupancy::Remove(UnitId unit, uint32_t tag, TimePoint now) {
  Unit& u = units_[unit.value()];
  Held* held = &held_[size_t{unit.value()} * capacity_];
  uint32_t i = 0;
  while (i < u.count && held[i].tag != tag) ++i;
  if (i == u.count) return false;
  const uint32_t before = u.count;
  std::copy(held + i + 1, held + u.count, held + i);
  --u.count;
  --total_;
  // What is left starts now: the estimate never drifts further than what the unit holds.
  u.busy_until = now;
  for (uint32_t k = 0; k < u.count; ++k) u.busy_until += held[k].expected;
  Update(unit.value(), before);
  return true;
}

PackedOccupancy::PackedOccupancy(uint32_t units, const UnitLimits& limits, uint32_t max_launches)
    : limits_(limits),
      units_(units),
      slots_(max_launches),
      placed_(size_t{units} * max_launches),
      queue_(max_launches) {}

namespace {
// Saturating: an absurd request must not look small.
int32_t RoundUp(int64_t value, int32_t granularity) {
  const int64_t g = std::max(granularity, 1);
  const int64_t rounded = (value + g - 1) / g * g;
  return static_cast<int32_t>(std::min<int64_t>(rounded, std::numeric_limits<int32_t>::max() / 2));
}
}  // namespace

PackedOccupancy::Footprint PackedOccupancy::FootprintOf(const BlockResources& block) const {
  Footprint f;
  f.threads = RoundUp(std::max(block.threads, 1), limits_.warp_size);
  const int64_t warps = f.threads / std::max(limits_.warp_size, 1);
  const int32_t per_warp =
      RoundUp(int64_t{std::max(block.registers_per_thread, 0)} * std::max(limits_.warp_size, 1),
              limits_.register_granularity);
  f.registers = RoundUp(per_warp * warps, 1);
  f.shared_bytes = RoundUp(std::max(block.shared_bytes, 0), limits_.shared_granularity);
  return f;
}

uint32_t PackedOccupancy::FitsOn(const Unit& unit, const Footprint& f) const {
  // A limit of 0 registers or shared bytes means that the device does not have such a limit.
  int32_t fits = limits_.blocks - unit.blocks;
  fits = std::min(fits, (limits_.threads - unit.threads) / f.threads);
  if (f.registers > 0 && limits_.registers > 0) {
    fits = std::min(fits, (limits_.registers - unit.registers) / f.registers);
  }
  if (f.shared_bytes > 0 && limits_.shared_bytes > 0) {
    fits = std::min(fits, (limits_.shared_bytes - unit.shared_bytes) / f.shared_bytes);
  }
  return static_cast<uint32_t>(std::max(fits, 0));
}

uint32_t PackedOccupancy::Capacity(const BlockResources& block) const {
  return FitsOn(Unit{}, FootprintOf(block)) * static_cast<uint32_t>(units_.size());
}

uint32_t PackedOccupancy::Room(const BlockResources& block, uint32_t wanted) const {
  if (waiting_ > 0) return 0;
  const Footprint f = FootprintOf(block);
  uint32_t room = 0;
  for (const Unit& unit : units_) {
    room += FitsOn(unit, f);
    if (room >= wanted) return wanted;
  }
  return room;
}

bool PackedOccupancy::PlaceOne(uint32_t slot) {
  LaunchSlot& launch = slots_[slot];
  uint32_t best = 0, best_fits = 0;
  for (uint32_t u = 0; u < units_.size(); ++u) {
    const uint32_t fits = FitsOn(units_[u], launch.footprint);
    if (fits > best_fits) {
      best = u;
      best_fits = fits;
    }
  }
  if (best_fits == 0) return false;
  Unit& unit = units_[best];
  ++unit.blocks;
  unit.threads += launch.footprint.threads;
  unit.registers += launch.footprint.registers;
  unit.shared_bytes += launch.footprint.shared_bytes;
  ++placed_[size_t{slot} * units_.size() + best];
  ++launch.resident;
  ++resident_;
  return true;
}

void PackedOccupancy::FreeOne(uint32_t slot) {
  LaunchSlot& launch = slots_[slot];
  uint16_t* placed = &placed_[size_t{slot} * units_.size()];
  const size_t u = std::max_element(placed, placed + units_.size()) - placed;
  Unit& unit = units_[u];
  --placed[u];
  --unit.blocks;
  unit.threads -= launch.footprint.threads;
  unit.registers -= launch.footprint.registers;
  unit.shared_bytes -= launch.footprint.shared_bytes;
  --launch.resident;
  --resident_;
}

void PackedOccupancy::Add(uint32_t slot, const BlockResources& block, uint32_t blocks) {
  LaunchSlot& launch = slots_[slot];
  PLEXUS_CHECK(launch.resident == 0 && launch.waiting == 0);
  launch.footprint = FootprintOf(block);
  uint32_t left = blocks;
  if (waiting_ == 0) {
    while (left > 0 && PlaceOne(slot)) --left;
  }
  if (left == 0) return;
  launch.waiting = left;
  waiting_ += left;
  queue_[(queue_head_ + queue_size_++) % queue_.size()] = slot;
}

void PackedOccupancy::MoveUp() {
  while (queue_size_ > 0) {
    const uint32_t slot = queue_[queue_head_];
    LaunchSlot& launch = slots_[slot];
    while (launch.waiting > 0 && PlaceOne(slot)) {
      --launch.waiting;
      --waiting_;
    }
    if (launch.waiting > 0) return;
    queue_head_ = (queue_head_ + 1) % queue_.size();
    --queue_size_;
  }
}

uint32_t PackedOccupancy::Remove(uint32_t slot, uint32_t blocks) {
  LaunchSlot& launch = slots_[slot];
  uint32_t removed = 0;
  for (; removed < blocks && launch.resident > 0; ++removed) FreeOne(slot);
  // More finished than the mirror had placed: the hardware was faster than the mirror thought.
  const uint32_t unplaced = std::min(blocks - removed, launch.waiting);
  if (unplaced > 0) {
    launch.waiting -= unplaced;
    waiting_ -= unplaced;
    removed += unplaced;
    if (launch.waiting == 0) {
      // Take the slot out of the ring, in order: it may be used again before the ring gets there.
      uint32_t kept = 0;
      for (uint32_t i = 0; i < queue_size_; ++i) {
        const uint32_t s = queue_[(queue_head_ + i) % queue_.size()];
        if (s != slot) queue_[(queue_head_ + kept++) % queue_.size()] = s;
      }
      queue_size_ = kept;
    }
  }
  MoveUp();
  return removed;
}

}  // namespace plexus
