// Whether a request should go segment by segment, where others can join, or all in one.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "base/clock.h"
#include "pipeline/path_book.h"

namespace plexus {

// Who is under way: requests of one family, and those of them with inputs that look the same.
// Thread-safe.
class Companions {
 public:
  // One request, from its begin to its end.
  class Stay {
   public:
    Stay(Companions& all, uint64_t look) : all_(all), look_(look), place_(all.Enter(look)) {}
    ~Stay() { all_.Leave(look_); }
    Stay(const Stay&) = delete;
    Stay& operator=(const Stay&) = delete;
    // Whether another one was there when it came.
    bool met() const { return place_ > 0; }
    // The same, or one has come since: what the first of several cannot know in time.
    bool had_company() const { return met() || all_.Came(look_) > place_ + 1; }

   private:
    Companions& all_;
    const uint64_t look_;
    const uint64_t place_;
  };

 private:
  struct Gathering {
    uint64_t came = 0;  // since somebody was there
    uint32_t here = 0;
  };
  // How many have come before, since somebody was there.
  uint64_t Enter(uint64_t look);
  void Leave(uint64_t look);
  uint64_t Came(uint64_t look) const;

  mutable std::mutex mutex_;  // guards gatherings_
  std::unordered_map<uint64_t, Gathering> gatherings_;
};

// What one executable's requests showed. Statistics: they order nothing, and a lost update does no
// harm. Thread-safe.
class ShareHistory {
 public:
  // A request ends; `company`: there was another one meanwhile that it could have shared with,
  // whichever came first. Who comes first is often the same executable each time: were only those
  // that come later to learn from it, the first would go in one piece for ever, and nobody could
  // join it.
  void Met(bool company);
  // A request ran in one piece.
  void TookWhole(Duration took);
  // What is saved when somebody joins, as often as somebody does, against what the cuts cost.
  bool WorthAPath(const RunPath& path) const;
  // The same of batches with others of the family, on whatever inputs. Now and then it says no, so
  // that what the cuts cost stays known.
  bool WorthABatch(const RunPath& path) const;

 private:
  double CutCost(const RunPath& path) const;
  std::atomic<float> company_{0.5f};  // how likely; a new executable is tried
  std::atomic<int64_t> whole_ns_{0};
  mutable std::atomic<uint32_t> batches_{0};  // requests that went by path for a batch
};

}  // namespace plexus
