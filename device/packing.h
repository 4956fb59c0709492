// UnitPacking: how many blocks fit on the units of a hardware-placed device, and where they go.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"

namespace plexus {

// What one block takes of a unit, rounded up to the hardware's granularity of
// allocation.
struct BlockFootprint {
  int32_t threads = 1, registers = 0, shared_bytes = 0;
  friend bool operator==(const BlockFootprint&, const BlockFootprint&) = default;
};
BlockFootprint FootprintOf(const UnitLimits& limits, const BlockResources& block);

// Why not even one such block fits an empty unit: "needs 2048 threads, a unit has 1024"; empty if
// one does.
std::string WhyNeverFits(const UnitLimits& limits, const BlockFootprint& block);

// The free resources of every unit. The hardware gives each block to the unit that has room for
// most blocks of its kind (Gilman and others, "Demystifying the placement policies of the NVIDIA
// GPU thread block scheduler for concurrent kernels", 2021); ties go to the lowest number. A limit
// of 0 registers or shared bytes means that the device has no such limit. Thread-compatible;
// nothing allocates after the constructor except what callers' vectors need.
class UnitPacking {
 public:
  // Some blocks of one kind on one unit.
  struct Share {
    uint32_t unit = 0;
    uint32_t blocks = 0;
  };

  UnitPacking(uint32_t units, const UnitLimits& limits);

  const UnitLimits& limits() const { return limits_; }
  uint32_t units() const { return static_cast<uint32_t>(slots_.size()); }
  uint32_t blocks_on(uint32_t unit) const {
    return static_cast<uint32_t>(limits_.blocks - slots_[unit]);
  }
  // Blocks that an empty unit holds; 0 if even one never fits.
  uint32_t PerUnit(const BlockFootprint& block) const;
  // Further blocks that would fit the whole device now, up to `wanted`.
  uint32_t Room(const BlockFootprint& block, uint32_t wanted) const;
  // Places up to `blocks` of them, one share per unit that gets any, appended to `shares`; the
  // number placed. Cost: O(units + shares).
  uint32_t Place(const BlockFootprint& block, uint32_t blocks, std::vector<Share>* shares);
  // The same among some units only (each named once).
  uint32_t PlaceAmong(std::span<const uint32_t> units, const BlockFootprint& block, uint32_t blocks,
                      std::vector<Share>* shares);
  // Gives back what `blocks` blocks held on `unit`.
  void Free(const BlockFootprint& block, uint32_t unit, uint32_t blocks);

 private:
  uint32_t FitsOn(uint32_t unit, const BlockFootprint& block) const;
  void FitAll(const BlockFootprint& block) const;
  void Take(const BlockFootprint& block, uint32_t unit, uint32_t blocks);
  uint32_t Distribute(const uint32_t* units, uint32_t count, const BlockFootprint& block,
                      uint32_t blocks, std::vector<Share>* shares);

  UnitLimits limits_;
  std::vector<int32_t> slots_, threads_, registers_, shared_;  // free, per unit
  int64_t free_slots_ = 0, free_threads_ = 0;                  // of all units together
  mutable std::vector<int32_t> fits_;                          // of the block in question, per unit
  std::vector<uint32_t> at_least_;                             // units with room for this many
};

}  // namespace plexus
