// Measured times of kernels and programs, kept across restarts.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"

namespace plexus {

// Exponentially weighted mean and variance of one block's time. Weight 1/8; the first sample sets
// it, and once kTrusted samples are in, one sample counts for at most kOutlier means: a block whose
// core was taken away must not make a kernel look slow, a kernel that became slow is still learned
// within a few samples.
// One writer at a time (the dispatcher that learns it); readers at any time may see a mean and a
// variance of different samples.
class TimeEstimate {
 public:
  static constexpr uint64_t kTrusted = 8;
  static constexpr double kOutlier = 8;

  void Add(double sample_ns);  // samples that are not finite or negative are dropped
  void Set(double mean_ns, double variance_ns2, uint64_t samples);

  // Relaxed: the fields are independent numbers and order nothing else.
  double mean_ns() const { return mean_ns_.load(std::memory_order_relaxed); }
  double variance_ns2() const { return variance_ns2_.load(std::memory_order_relaxed); }
  uint64_t samples() const { return samples_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> mean_ns_{0};
  std::atomic<double> variance_ns2_{0};
  std::atomic<uint64_t> samples_{0};
};

// Block times of one program at one batch size, one entry per kernel, in kernel order. The vector's
// size never changes after it was made.
struct ProgramProfile {
  std::vector<TimeEstimate> kernels;
};

// (program signature, rows) → profile. Thread-safe; pointers stay valid for the store's life.
class ProfileStore {
 public:
  // The entry, made on first use with `num_kernels` empty estimates. A signature that comes back
  // with another number of kernels (an older compiler's file) gets a fresh entry.
  ProgramProfile* Get(const ContentHash& signature, uint32_t rows, size_t num_kernels);

  // A versioned, checksummed file. Load adds to the store, and what was learned in this process
  // wins; kNotFound when there is no file; a damaged one or another version's is kDataLoss and
  // changes nothing. Save replaces the file atomically (written beside, flushed, renamed) and skips
  // programs without a sample; kUnavailable when the disk refuses.
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
  mutable std::mutex mutex_;  // guards map_ and retired_
  std::unordered_map<Key, std::unique_ptr<ProgramProfile>, KeyHash> map_;
  std::vector<std::unique_ptr<ProgramProfile>> retired_;  // replaced entries, still pointed at
};

}  // namespace plexus
