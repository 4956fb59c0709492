// Ring: a first-in-first-out queue that stops allocating once it has grown to its peak.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace plexus {

// Thread-compatible.
template <typename T>
class Ring {
 public:
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  const T& front() const { return items_[head_]; }  // requires !empty()
  T& back() { return items_[(head_ + size_ - 1) & (items_.size() - 1)]; }
  void push(T item) {
    if (size_ == items_.size()) Grow();
    items_[(head_ + size_++) & (items_.size() - 1)] = std::move(item);
  }
  T pop() {
    T item = std::move(items_[head_]);
    head_ = (head_ + 1) & (items_.size() - 1);
    --size_;
    return item;
  }
  void clear() { head_ = size_ = 0; }

 private:
  void Grow() {
    std::vector<T> bigger(items_.empty() ? 64 : 2 * items_.size());
    for (size_t i = 0; i < size_; ++i) {
      bigger[i] = std::move(items_[(head_ + i) & (items_.size() - 1)]);
    }
    items_ = std::move(bigger);
    head_ = 0;
  }

  std::vector<T> items_;  // a power of two
  size_t head_ = 0, size_ = 0;
};

}  // namespace plexus
