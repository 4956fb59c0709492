// Occupancy: the dispatcher's software mirror of what a device has free.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "device/device.h"
#include "device/packing.h"
#include "program/program.h"

namespace plexus {

// A set of small integers with O(1) change and a quick walk.
class BitSet {
 public:
  void Resize(uint32_t bits) { words_.assign((bits + 63) / 64, 0); }
  void Set(uint32_t bit, bool on) {
    const uint64_t mask = uint64_t{1} << (bit % 64);
    words_[bit / 64] = on ? words_[bit / 64] | mask : words_[bit / 64] & ~mask;
  }
  bool Test(uint32_t bit) const { return (words_[bit / 64] >> (bit % 64)) & 1; }
  bool Any() const {
    for (uint64_t w : words_) {
      if (w != 0) return true;
    }
    return false;
  }
  // Whether one of the first `bits` is clear.
  bool AnyClear(uint32_t bits) const {
    for (uint32_t bit = 0; bit < bits; ++bit) {
      if (!Test(bit)) return true;
    }
    return false;
  }
  // Visits set bits in ascending order until `visit` returns true; whether one did.
  template <typename Visit>
  bool FindIf(Visit visit) const {
    for (uint32_t i = 0; i < words_.size(); ++i) {
      for (uint64_t w = words_[i]; w != 0; w &= w - 1) {
        if (visit(i * 64 + static_cast<uint32_t>(__builtin_ctzll(w)))) return true;
      }
    }
    return false;
  }

 private:
  std::vector<uint64_t> words_;
};

// Mirror of a unit-addressed device: each unit runs one launch and holds up to `queue_depth` more,
// in order. Thread-compatible; nothing allocates after the constructor.
class UnitOccupancy {
 public:
  UnitOccupancy(uint32_t units, uint32_t queue_depth);

  uint32_t units() const { return static_cast<uint32_t>(units_.size()); }
  // Units with no launch at all, and those that run one and could queue another.
  const BitSet& idle() const { return idle_; }
  const BitSet& queueable() const { return queueable_; }
  uint32_t num_idle() const { return num_idle_; }
  uint32_t in_flight(UnitId unit) const { return units_[unit.value()].count; }
  uint32_t in_flight() const { return total_; }
  // Until when the unit is expected to be busy with what it holds; the past for an idle one.
  TimePoint busy_until(UnitId unit) const { return units_[unit.value()].busy_until; }
  // The oldest launch the unit holds, by the tag it was added with. Requires in_flight(unit) > 0.
  uint32_t oldest(UnitId unit) const;

  // Requires room. `tag` is the caller's number for the launch.
  void Add(UnitId unit, uint32_t tag, Duration expected, TimePoint now);
  // The launch is over; whether the unit held it (false changes nothing).
  bool Remove(UnitId unit, uint32_t tag, TimePoint now);

 private:
  struct Unit {
    uint32_t count = 0;
    TimePoint busy_until{};
  };
  struct Held {
    uint32_t tag;
    Duration expected;
  };
  void Update(uint32_t unit, uint32_t before);

  uint32_t capacity_;  // of one unit, the running launch included
  std::vector<Unit> units_;
  std::vector<Held> held_;  // units × capacity, oldest first
  BitSet idle_, queueable_;
  uint32_t num_idle_ = 0;
  uint32_t total_ = 0;
};

// Mirror of a hardware-placed device: how many more blocks of a kernel its units can hold at once.
// Block slots, threads, registers and shared memory limit each unit, the
// last two in the hardware's allocation granularity. What does not fit waits in the hardware's
// queue. The hardware chooses the unit by free resources, so the mirror does too; where the device
// only reports counts, a finished block frees the unit where the launch has most blocks. Where it
// reports starts these count more than what the mirror expects. Each call
// costs O(units + blocks) at most, vectorised over the units. Nothing allocates once every launch
// slot was used. Thread-compatible.
class PackedOccupancy {
 public:
  // Slots number the launches: 0 .. max_launches-1.
  PackedOccupancy(uint32_t units, const UnitLimits& limits, uint32_t max_launches);

  // Blocks of this kind that the empty device holds; 0 if even one never fits.
  uint32_t Capacity(const BlockResources& block) const;
  // Blocks of this kind that would start at once, up to `wanted`, if they pass those that wait: the
  // hardware lets later launches have the room that is too small for the blocks of earlier ones.
  uint32_t Room(const BlockResources& block, uint32_t wanted) const;

  // A launch of `blocks` blocks: places what fits, the rest waits. While others wait, nothing is
  // placed unless the launch `passes` them and fits.
  void Add(uint32_t slot, const BlockResources& block, uint32_t blocks, bool passes = false);
  // `blocks` of the launch finished; waiting blocks of any launch move up. At most what is in
  // flight is removed; the number removed is returned.
  uint32_t Remove(uint32_t slot, uint32_t blocks);
  // The device reports that so many more blocks of the launch run. Those that the mirror thought
  // waiting move up: the hardware knew of room that has not been reported yet, since blocks are
  // reported finished in groups.
  void Start(uint32_t slot, uint32_t blocks);

  uint32_t resident() const { return resident_; }  // blocks placed on units
  uint32_t waiting() const { return waiting_; }    // blocks queued in the hardware
  uint32_t resident(UnitId unit) const { return packing_.blocks_on(unit.value()); }
  bool empty() const { return resident_ == 0 && waiting_ == 0; }
  // The launch that has waited longest for room. Requires waiting() > 0.
  uint32_t first_waiting() const { return queue_[queue_head_]; }
  // Visits (slot, waiting blocks, blocks of its kind that the empty device holds), oldest first.
  template <typename Visit>
  void ForEachWaiting(Visit visit) const {
    for (uint32_t i = 0; i < queue_size_; ++i) {
      const uint32_t slot = queue_[(queue_head_ + i) % queue_.size()];
      visit(slot, slots_[slot].waiting,
            packing_.PerUnit(slots_[slot].footprint) * packing_.units());
    }
  }

 private:
  struct LaunchSlot {
    BlockFootprint footprint;
    uint32_t resident = 0, waiting = 0;
    uint32_t nowhere = 0;                // of resident: they run, but the mirror sees no room yet
    uint32_t started = 0, finished = 0;  // as reported
    bool fresh = false;                  // waited behind others: it may fit on any unit
  };
  const BlockFootprint& FootprintOf(const BlockResources& block) const;
  uint32_t PlaceBlocks(uint32_t slot, uint32_t blocks, bool anywhere);
  void FreeBlocks(uint32_t slot, uint32_t blocks);
  void StopWaiting(uint32_t slot, uint32_t blocks);
  void MoveUp();

  UnitPacking packing_;
  std::vector<LaunchSlot> slots_;
  std::vector<int16_t> placed_;    // slot × units
  std::vector<uint32_t> queue_;    // slots with waiting blocks, ring
  std::vector<uint32_t> nowhere_;  // slots with such blocks, in the order of their starts
  std::vector<uint32_t> freed_;    // units that got room in this call
  std::vector<uint8_t> is_freed_;
  std::vector<UnitPacking::Share> shares_;
  uint32_t queue_head_ = 0, queue_size_ = 0;
  uint32_t resident_ = 0, waiting_ = 0;
  mutable BlockResources last_block_;  // and its footprint: neighbours in time are of one kernel
  mutable BlockFootprint last_footprint_;
};

}  // namespace plexus
