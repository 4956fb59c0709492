// Whether a request should go segment by segment, where others can join, or all in one.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "base/clock.h"
#include "pipeline/path_book.h"

namespace plexus {

// Who is under way: requests of one family with inputs that look the same. Thread-safe.
class Companions {
 public:
  // One request, from its begin to its end.
  class Stay {
   public:
    Stay(Companions& all, uint64_t look) : all_(all), look_(look), met_(all.Enter(look)) {}
    ~Stay() { all_.Leave(look_); }
    Stay(const Stay&) = delete;
    Stay& operator=(const Stay&) = delete;
    // Whether another one was there when it came.
    bool met() const { return met_; }

   private:
    Companions& all_;
    const uint64_t look_;
    const bool met_;
  };

 private:
  bool Enter(uint64_t look);
  void Leave(uint64_t look);

  std::mutex mutex_;  // guards here_
  std::unordered_map<uint64_t, uint32_t> here_;
};

// What one executable's requests showed. Statistics: they order nothing, and a lost update does no
// harm. Thread-safe.
class ShareHistory {
 public:
  // A request came; `company`: there was one that it could have joined.
  void Met(bool company);
  // A request ran in one piece.
  void TookWhole(Duration took);
  // What is saved when somebody joins, as often as somebody does, against what the cuts cost.
  bool WorthAPath(const RunPath& path) const;

 private:
  std::atomic<float> company_{0.5f};  // how likely; a new executable is tried
  std::atomic<int64_t> whole_ns_{0};
};

}  // namespace plexus
