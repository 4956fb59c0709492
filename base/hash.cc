#include "base/hash.h"

#include <algorithm>
#include <cstring>

namespace plexus {
namespace {

constexpr uint64_t kIv[8] = {0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL,
                             0xa54ff53a5f1d36f1ULL, 0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL,
                             0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL};

constexpr uint8_t kSigma[12][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
                                    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
                                    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
                                    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
                                    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
                                    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
                                    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
                                    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
                                    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
                                    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

inline uint64_t RotateRight(uint64_t x, int n) { return (x >> n) | (x << (64 - n)); }

inline void Mix(uint64_t* v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
  v[a] = v[a] + v[b] + x;
  v[d] = RotateRight(v[d] ^ v[a], 32);
  v[c] = v[c] + v[d];
  v[b] = RotateRight(v[b] ^ v[c], 24);
  v[a] = v[a] + v[b] + y;
  v[d] = RotateRight(v[d] ^ v[a], 16);
  v[c] = v[c] + v[d];
  v[b] = RotateRight(v[b] ^ v[c], 63);
}

}  // namespace

std::string ContentHash::ToHex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (uint8_t b : bytes) {
    out.push_back(kDigits[b >> 4]);
    out.push_back(kDigits[b & 15]);
  }
  return out;
}

ContentHasher::ContentHasher() {
  std::copy(std::begin(kIv), std::end(kIv), state_.begin());
  state_[0] ^= 0x01010000 ^ 32;  // parameter block: digest 32 bytes, no key, fanout 1, depth 1
}

void ContentHasher::Compress(const uint8_t* block, bool last) {
  uint64_t m[16];
  std::memcpy(m, block, sizeof(m));
  uint64_t v[16];
  std::copy(state_.begin(), state_.end(), v);
  std::copy(std::begin(kIv), std::end(kIv), v + 8);
  v[12] ^= count_bytes_;
  if (last) v[14] = ~v[14];
  for (const auto& s : kSigma) {
    Mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
    Mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
    Mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
    Mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
    Mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
    Mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
    Mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
    Mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
  }
  for (int i = 0; i < 8; ++i) state_[i] ^= v[i] ^ v[i + 8];
}

void ContentHasher::Update(const void* data, size_t size_bytes) {
  const auto* in = static_cast<const uint8_t*>(data);
  while (size_bytes > 0) {
    if (buffered_ == buffer_.size()) {  // a full block is compressed only when more follows
      count_bytes_ += buffer_.size();
      Compress(buffer_.data(), false);
      buffered_ = 0;
    }
    if (buffered_ == 0 && size_bytes > buffer_.size()) {
      count_bytes_ += buffer_.size();
      Compress(in, false);
      in += buffer_.size();
      size_bytes -= buffer_.size();
      continue;
    }
    const size_t n = std::min(size_bytes, buffer_.size() - buffered_);
    std::memcpy(buffer_.data() + buffered_, in, n);
    buffered_ += n;
    in += n;
    size_bytes -= n;
  }
}

void ContentHasher::Update(std::span<const std::byte> data) { Update(data.data(), data.size()); }

void ContentHasher::UpdateString(std::string_view text) {
  UpdateInt(static_cast<int64_t>(text.size()));
  Update(text.data(), text.size());
}

void ContentHasher::UpdateInt(int64_t value) { Update(&value, sizeof(value)); }

ContentHash ContentHasher::Finish() {
  count_bytes_ += buffered_;
  std::fill(buffer_.begin() + buffered_, buffer_.end(), uint8_t{0});
  Compress(buffer_.data(), true);
  ContentHash out;
  std::memcpy(out.bytes.data(), state_.data(), out.bytes.size());
  return out;
}

uint64_t FastHash(const void* data, size_t size_bytes, uint64_t seed) {
  const auto* in = static_cast<const uint8_t*>(data);
  uint64_t h = HashCombine(seed, size_bytes);
  for (; size_bytes >= 8; in += 8, size_bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, in, 8);
    h = HashCombine(h, word);
  }
  uint64_t tail = 0;
  if (size_bytes > 0) std::memcpy(&tail, in, size_bytes);
  return HashCombine(h, tail);
}

}  // namespace plexus
