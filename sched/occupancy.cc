#include "sched/occupancy.h"

#include <algorithm>

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
    : packing_(units, limits),
      slots_(max_launches),
      placed_(size_t{units} * max_launches),
      queue_(max_launches),
      is_freed_(units),
      last_footprint_(plexus::FootprintOf(limits, last_block_)) {
  freed_.reserve(units);
  nowhere_.reserve(max_launches);
  shares_.reserve(units);
}

const BlockFootprint& PackedOccupancy::FootprintOf(const BlockResources& block) const {
  if (block.threads != last_block_.threads ||
      block.registers_per_thread != last_block_.registers_per_thread ||
      block.shared_bytes != last_block_.shared_bytes) {
    last_block_ = block;
    last_footprint_ = plexus::FootprintOf(packing_.limits(), block);
  }
  return last_footprint_;
}

uint32_t PackedOccupancy::Capacity(const BlockResources& block) const {
  return packing_.PerUnit(FootprintOf(block)) * packing_.units();
}

uint32_t PackedOccupancy::Room(const BlockResources& block, uint32_t wanted) const {
  return packing_.Room(FootprintOf(block), wanted);
}

uint32_t PackedOccupancy::PlaceBlocks(uint32_t slot, uint32_t blocks, bool anywhere) {
  LaunchSlot& launch = slots_[slot];
  shares_.clear();
  const uint32_t placed = anywhere
                              ? packing_.Place(launch.footprint, blocks, &shares_)
                              : packing_.PlaceAmong(freed_, launch.footprint, blocks, &shares_);
  int16_t* row = &placed_[size_t{slot} * packing_.units()];
  for (const UnitPacking::Share& share : shares_) {
    row[share.unit] = static_cast<int16_t>(row[share.unit] + share.blocks);
  }
  return placed;
}

// Requires that the launch has that many on units.
void PackedOccupancy::FreeBlocks(uint32_t slot, uint32_t blocks) {
  LaunchSlot& launch = slots_[slot];
  const uint32_t units = packing_.units();
  int16_t* row = &placed_[size_t{slot} * units];
  launch.resident -= blocks;
  resident_ -= blocks;
  freed_.clear();
  const uint32_t nowhere = std::min(blocks, launch.nowhere);
  blocks -= nowhere;
  launch.nowhere -= nowhere;
  if (nowhere > 0 && launch.nowhere == 0) std::erase(nowhere_, slot);
  if (launch.resident == 0) {
    for (uint32_t u = 0; u < units; ++u) {
      if (row[u] == 0) continue;
      packing_.Free(launch.footprint, u, static_cast<uint32_t>(row[u]));
      row[u] = 0;
      freed_.push_back(u);
    }
    return;
  }
  while (blocks > 0) {
    const size_t before = freed_.size();
    int16_t most = 0;
    for (uint32_t u = 0; u < units; ++u) most = row[u] > most ? row[u] : most;
    for (uint32_t u = 0; u < units && blocks > 0; ++u) {
      if (row[u] != most) continue;
      --row[u];
      --blocks;
      packing_.Free(launch.footprint, u, 1);
      if (is_freed_[u] != 0) continue;
      is_freed_[u] = 1;
      freed_.push_back(u);
    }
    if (before > 0 && freed_.size() > before) std::sort(freed_.begin(), freed_.end());
  }
  for (uint32_t u : freed_) is_freed_[u] = 0;
}

void PackedOccupancy::Add(uint32_t slot, const BlockResources& block, uint32_t blocks,
                          bool passes) {
  LaunchSlot& launch = slots_[slot];
  PLEXUS_CHECK(launch.resident == 0 && launch.waiting == 0);
  launch.started = launch.finished = 0;
  launch.footprint = FootprintOf(block);
  launch.fresh = waiting_ > 0 && !(passes && Room(block, blocks) == blocks);
  launch.resident = launch.fresh ? 0 : PlaceBlocks(slot, blocks, true);
  resident_ += launch.resident;
  if (launch.resident == blocks) return;
  launch.waiting = blocks - launch.resident;
  waiting_ += launch.waiting;
  queue_[(queue_head_ + queue_size_++) % queue_.size()] = slot;
}

// What runs without a place gets one first. Who was first in the queue before fitted nowhere, so it
// fits only where something was freed.
void PackedOccupancy::MoveUp() {
  for (size_t i = 0; i < nowhere_.size();) {
    LaunchSlot& launch = slots_[nowhere_[i]];
    launch.nowhere -= PlaceBlocks(nowhere_[i], launch.nowhere, false);
    if (launch.nowhere > 0) {
      ++i;
    } else {
      nowhere_.erase(nowhere_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  while (queue_size_ > 0) {
    const uint32_t slot = queue_[queue_head_];
    LaunchSlot& launch = slots_[slot];
    const uint32_t placed = PlaceBlocks(slot, launch.waiting, launch.fresh);
    launch.fresh = false;
    launch.resident += placed;
    resident_ += placed;
    launch.waiting -= placed;
    waiting_ -= placed;
    if (launch.waiting > 0) return;
    queue_head_ = (queue_head_ + 1) % static_cast<uint32_t>(queue_.size());
    --queue_size_;
  }
}

uint32_t PackedOccupancy::Remove(uint32_t slot, uint32_t blocks) {
  LaunchSlot& launch = slots_[slot];
  uint32_t removed = std::min(blocks, launch.resident);
  freed_.clear();
  if (removed > 0) FreeBlocks(slot, removed);
  // More finished than the mirror had placed: the hardware was faster than the mirror thought.
  const uint32_t early = std::min(blocks - removed, launch.waiting);
  if (early > 0) {
    StopWaiting(slot, early);
    removed += early;
  }
  launch.finished += removed;
  MoveUp();
  return removed;
}

void PackedOccupancy::Start(uint32_t slot, uint32_t blocks) {
  LaunchSlot& launch = slots_[slot];
  launch.started += std::min(blocks, ~0u - launch.started);
  const uint32_t known = launch.resident + launch.finished;
  if (launch.started <= known || launch.waiting == 0) return;
  const uint32_t more = std::min(launch.started - known, launch.waiting);
  StopWaiting(slot, more);
  launch.resident += more;
  resident_ += more;
  const uint32_t placed = PlaceBlocks(slot, more, true);
  if (placed == more) return;
  if (launch.nowhere == 0) nowhere_.push_back(slot);
  launch.nowhere += more - placed;
}

void PackedOccupancy::StopWaiting(uint32_t slot, uint32_t blocks) {
  slots_[slot].waiting -= blocks;
  waiting_ -= blocks;
  if (slots_[slot].waiting > 0) return;
  // Take the slot out of the ring, in order: it may be used again before the ring gets there.
  uint32_t kept = 0;
  for (uint32_t i = 0; i < queue_size_; ++i) {
    const uint32_t s = queue_[(queue_head_ + i) % queue_.size()];
    if (s != slot) queue_[(queue_head_ + kept++) % queue_.size()] = s;
  }
  queue_size_ = kept;
}

}  // namespace plexus
