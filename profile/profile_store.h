// Measured times of kernels and programs, kept across restarts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"

namespace plexus {

// Exponentially weighted mean and variance of one block's time. Weight 1/8; the first sample sets
// it.
struct TimeEstimate {
  double mean_ns = 0;
  double variance_ns2 = 0;
  uint64_t samples = 0;
  void Add(double sample_ns);
};

// Block times of one program at one batch size, one entry per kernel, in kernel order.
// Thread-compatible: the dispatcher that learns it guards it.
struct ProgramProfile {
  std::vector<TimeEstimate> kernels;
};

// (program signature, rows) → profile. Thread-safe; pointers stay valid for the store's life.
class ProfileStore {
 public:
  // The entry, made on first use with `num_kernels` empty estimates.
  ProgramProfile* Get(const ContentHash& signature, uint32_t rows, size_t num_kernels);

  // A versioned, checksummed file; a damaged one is kDataLoss and changes nothing. Saves atomically
  // (write beside, rename).
  Status Load(const std::filesystem::path& path);
  Status Save(const std::filesystem::path& path) const;
  size_t size() const;

 private:
  struct Key {
    ContentHash signature;
    uint32_t rows;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      return HashCombine(std::hash<ContentHash>()(k.signature), k.rows);
    }
  };
  mutable std::mutex mutex_;  // guards map_
  std::unordered_map<Key, std::unique_ptr<ProgramProfile>, KeyHash> map_;
};

}  // namespace plexus
