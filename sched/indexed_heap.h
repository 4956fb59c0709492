// IndexedHeap: a priority queue of small integers whose keys can change and that can be removed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace plexus {

// Where items are in their heap. Several heaps may share one if no item is in two of them: then a
// heap costs memory for the items it holds, not for all there are.
class HeapPositions {
 public:
  void Reserve(uint32_t items) {
    if (items > at_.size()) at_.resize(items, kAbsent);
  }
  uint32_t size() const { return static_cast<uint32_t>(at_.size()); }

 private:
  friend class IndexedHeap;
  static constexpr uint32_t kAbsent = std::numeric_limits<uint32_t>::max();
  std::vector<uint32_t> at_;
};

// A 4-ary min-heap of item numbers, ordered by (key, sequence). Memory grows only in Reserve and
// ReserveEntries; every other operation is O(log n) and allocates nothing. Thread-compatible.
class IndexedHeap {
 public:
  IndexedHeap() : own_(std::make_unique<HeapPositions>()), position_(*own_) {}
  // Borrows `shared`, which outlives the heap and has room for every item that is ever set.
  // Contains then tells whether the item is in any of the heaps that share it.
  explicit IndexedHeap(HeapPositions& shared) : position_(shared) {}

  // Room for items 0 .. items-1, all at once.
  void Reserve(uint32_t items) {
    if (items <= position_.size()) return;
    position_.Reserve(items);
    heap_.reserve(items);
  }
  // Room for that many items at once, in a heap with shared positions; grows by doubling.
  void ReserveEntries(uint32_t entries) {
    if (entries > heap_.capacity()) heap_.reserve(std::max<size_t>(entries, 2 * heap_.capacity()));
  }

  bool empty() const { return heap_.empty(); }
  uint32_t size() const { return static_cast<uint32_t>(heap_.size()); }
  bool Contains(uint32_t item) const { return position_.at_[item] != kAbsent; }
  uint32_t top() const { return heap_[0].item; }
  double top_key() const { return heap_[0].key; }
  // Whether (key, sequence) goes before the top. Non-empty.
  bool GoesBeforeTop(double key, uint64_t sequence) const {
    return Before(Entry{key, sequence, 0}, heap_[0]);
  }
  // The i-th entry in no useful order, to visit them all.
  uint32_t at(uint32_t i) const { return heap_[i].item; }

  // Inserts, or moves the item to its new place. Keys are never NaN.
  void Set(uint32_t item, double key, uint64_t sequence) {
    uint32_t at = position_.at_[item];
    if (at == kAbsent) {
      at = size();
      heap_.push_back({});
    } else if (Before(heap_[at], Entry{key, sequence, item})) {
      SiftDown(at, Entry{key, sequence, item});
      return;
    }
    SiftUp(at, Entry{key, sequence, item});
  }

  // No effect when absent.
  void Remove(uint32_t item) {
    const uint32_t at = position_.at_[item];
    if (at == kAbsent) return;
    position_.at_[item] = kAbsent;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) return;
    if (at > 0 && Before(last, heap_[(at - 1) / 4])) {
      SiftUp(at, last);
    } else {
      SiftDown(at, last);
    }
  }

 private:
  static constexpr uint32_t kAbsent = HeapPositions::kAbsent;
  struct Entry {
    double key;
    uint64_t sequence;
    uint32_t item;
  };
  static bool Before(const Entry& a, const Entry& b) {
    return a.key < b.key || (a.key == b.key && a.sequence < b.sequence);
  }
  void Put(uint32_t at, const Entry& entry) {
    heap_[at] = entry;
    position_.at_[entry.item] = at;
  }
  void SiftUp(uint32_t at, const Entry& entry) {
    while (at > 0 && Before(entry, heap_[(at - 1) / 4])) {
      Put(at, heap_[(at - 1) / 4]);
      at = (at - 1) / 4;
    }
    Put(at, entry);
  }
  void SiftDown(uint32_t at, const Entry& entry) {
    for (;;) {
      uint32_t child = 4 * at + 1;
      if (child >= heap_.size()) break;
      const uint32_t end = child + 4 < heap_.size() ? child + 4 : size();
      for (uint32_t c = child + 1; c < end; ++c) {
        if (Before(heap_[c], heap_[child])) child = c;
      }
      if (!Before(heap_[child], entry)) break;
      Put(at, heap_[child]);
      at = child;
    }
    Put(at, entry);
  }

  std::vector<Entry> heap_;
  std::unique_ptr<HeapPositions> own_;
  HeapPositions& position_;
};

}  // namespace plexus
