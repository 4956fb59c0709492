// Measured times of kernels and programs, kept across restarts.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"

namespace plexus {

// Rounded down. Never below 0 or beyond ten years, whatever was measured or read, so that a few of
// them can be added.
inline Duration NanosecondsOf(double ns) {
  constexpr double kMost = 3.2e17;
  if (!(ns > 0)) return Duration{0};
  return Duration(static_cast<int64_t>(ns < kMost ? ns : kMost));
}

// Exponentially weighted mean and variance of one block's time. Weight 1/8; the first sample sets
// it, and once kTrusted samples are in, one sample counts for at most kOutlier means: a block whose
// core was taken away must not make a kernel look slow, a kernel that became slow is still learned
// within a few samples.
// Readers at any time may see a mean and a variance of different samples; of two writers at once
// (the dispatcher that learns a kernel is alone, requests that learn a path may not be) one may be
// lost.
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

using ProgramProfilePtr = std::shared_ptr<ProgramProfile>;

// (program signature, rows) → profile, and what is left of requests' paths. Thread-safe. Bounded:
// beyond `max_bytes` the entries that were asked for longest ago are forgotten, but for those that
// somebody holds.
class ProfileStore {
 public:
  explicit ProfileStore(size_t max_bytes = size_t{64} << 20) : max_bytes_(max_bytes) {}

  // The entry, made on first use with `num_kernels` empty estimates. A signature that comes back
  // with another number of kernels (an older compiler's file) gets a fresh entry. rows: 1 or more.
  ProgramProfilePtr Get(const ContentHash& signature, uint32_t rows, size_t num_kernels);
  // One time that is not a program's: of a step of a request's path, say. `what` tells which.
  std::shared_ptr<TimeEstimate> GetPath(const ContentHash& what);

  // A versioned, checksummed file. Load adds to the store, and what was learned in this process
  // wins; kNotFound when there is no file, kUnavailable when it cannot be looked at; a damaged one,
  // another version's, or one of times that nobody can have measured is kDataLoss and changes
  // nothing. Save replaces the file atomically (written beside as PATH.new, flushed, renamed) and
  // skips programs without a sample; kUnavailable when the disk refuses, another process is just
  // saving it, or `path` is there and no regular file.
  Status Load(const std::filesystem::path& path);
  Status Save(const std::filesystem::path& path) const;
  size_t size() const;
  size_t bytes() const;

 private:
  static constexpr uint32_t kPathRows = 0;  // what is no program's
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
  struct Entry {
    ProgramProfilePtr profile;
    std::list<Key>::iterator used;
  };
  static size_t BytesOf(size_t num_kernels) { return 256 + num_kernels * sizeof(TimeEstimate); }
  void ForgetLocked();

  const size_t max_bytes_;
  mutable std::mutex mutex_;  // guards everything below
  std::unordered_map<Key, Entry, KeyHash> map_;
  std::list<Key> used_;  // the one that was asked for last first
  size_t bytes_ = 0;
};

}  // namespace plexus
