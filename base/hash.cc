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

using Lanes = uint64_t __attribute__((vector_size(32)));

// By reference throughout: a vector wider than the baseline's is no argument or result there.
template <int kBits, typename Word>
__attribute__((always_inline)) inline void XorRotateRight(Word& x, const Word& with) {
  x = x ^ with;
  x = (x >> kBits) | (x << (64 - kBits));
}

template <typename Word>
__attribute__((always_inline)) inline void Mix(Word& a, Word& b, Word& c, Word& d, const Word& x,
                                               const Word& y) {
  a = a + b + x;
  XorRotateRight<32>(d, a);
  c = c + d;
  XorRotateRight<24>(b, c);
  a = a + b + y;
  XorRotateRight<16>(d, a);
  c = c + d;
  XorRotateRight<63>(b, c);
}

// The BLAKE2b compression of one block, or of one block in each of four lanes at once.
template <typename Word>
__attribute__((always_inline)) inline void Compress(Word* state, const Word* m, uint64_t count,
                                                    uint64_t last, uint64_t last_node) {
  Word v[16];
  for (int i = 0; i < 8; ++i) v[i] = state[i];
  for (int i = 0; i < 8; ++i) v[8 + i] = Word{} + kIv[i];
  v[12] = v[12] ^ count;
  v[14] = v[14] ^ last;
  v[15] = v[15] ^ last_node;
#pragma GCC unroll 12
  for (const auto& s : kSigma) {
    Mix(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);
    Mix(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);
    Mix(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);
    Mix(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);
    Mix(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);
    Mix(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);
    Mix(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);
    Mix(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);
  }
  for (int i = 0; i < 8; ++i) state[i] = state[i] ^ v[i] ^ v[8 + i];
}

// Compresses `stripes` stripes of 512 bytes, none of them the last. `count` bytes per lane before.
__attribute__((always_inline)) inline void CompressStripesInline(uint64_t* states,
                                                                 const uint8_t* in, size_t stripes,
                                                                 uint64_t count) {
  Lanes state[8];
  std::memcpy(state, states, sizeof(state));
  for (size_t n = 0; n < stripes; ++n, in += 512) {
    Lanes m[16];
    for (int word = 0; word < 16; ++word) {
      for (int lane = 0; lane < 4; ++lane) {
        uint64_t value;
        std::memcpy(&value, in + lane * 128 + word * 8, 8);
        m[word][lane] = value;
      }
    }
    count += 128;
    Compress(state, m, count, 0, 0);
  }
  std::memcpy(states, state, sizeof(state));
}

using CompressStripesFn = void (*)(uint64_t*, const uint8_t*, size_t, uint64_t);

void CompressStripesBaseline(uint64_t* states, const uint8_t* in, size_t n, uint64_t count) {
  CompressStripesInline(states, in, n, count);
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) void CompressStripesAvx2(uint64_t* states, const uint8_t* in,
                                                         size_t n, uint64_t count) {
  CompressStripesInline(states, in, n, count);
}
__attribute__((target("avx512f,avx512vl"))) void CompressStripesAvx512(uint64_t* states,
                                                                       const uint8_t* in, size_t n,
                                                                       uint64_t count) {
  CompressStripesInline(states, in, n, count);
}
#endif

CompressStripesFn ChooseCompressStripes() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vl")) return CompressStripesAvx512;
  if (__builtin_cpu_supports("avx2")) return CompressStripesAvx2;
#endif
  return CompressStripesBaseline;
}

void CompressStripes(uint64_t* states, const uint8_t* in, size_t n, uint64_t count) {
  static const CompressStripesFn function = ChooseCompressStripes();
  function(states, in, n, count);
}

// The first two words of a node's parameter block: digest 64, fanout 4, depth 2, inner length 64.
void InitState(uint64_t node_offset, uint64_t node_depth, uint64_t* state, size_t stride) {
  for (int i = 0; i < 8; ++i) state[i * stride] = kIv[i];
  state[0] ^= 64 | (uint64_t{4} << 16) | (uint64_t{2} << 24);
  state[1 * stride] ^= node_offset;
  state[2 * stride] ^= node_depth | (uint64_t{64} << 8);
}

void CompressOne(uint64_t* state, const uint8_t* block, uint64_t count, bool last, bool last_node) {
  uint64_t m[16];
  std::memcpy(m, block, sizeof(m));
  Compress(state, m, count, last ? ~uint64_t{0} : 0, last_node ? ~uint64_t{0} : 0);
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
  for (size_t lane = 0; lane < kLanes; ++lane) InitState(lane, 0, &states_[0][lane], kLanes);
}

void ContentHasher::Update(const void* data, size_t size_bytes) {
  const auto* in = static_cast<const uint8_t*>(data);
  while (size_bytes > 0) {
    if (buffered_ == 0 && size_bytes >= 2 * kStripeBytes) {  // straight from the caller's memory
      const size_t n = size_bytes / kStripeBytes - 1;
      CompressStripes(&states_[0][0], in, n, stripes_ * kBlockBytes);
      stripes_ += n;
      in += n * kStripeBytes;
      size_bytes -= n * kStripeBytes;
    }
    const size_t n = std::min(size_bytes, buffer_.size() - buffered_);
    std::memcpy(buffer_.data() + buffered_, in, n);
    buffered_ += n;
    in += n;
    size_bytes -= n;
    if (buffered_ == buffer_.size()) {
      CompressStripes(&states_[0][0], buffer_.data(), 1, stripes_ * kBlockBytes);
      ++stripes_;
      buffered_ = kStripeBytes;
      if (size_bytes >= kStripeBytes) {
        // The held stripe has a complete one behind it: let the loop above take the rest directly.
        CompressStripes(&states_[0][0], buffer_.data() + kStripeBytes, 1, stripes_ * kBlockBytes);
        ++stripes_;
        buffered_ = 0;
      } else {
        std::memcpy(buffer_.data(), buffer_.data() + kStripeBytes, kStripeBytes);
      }
    }
  }
}

void ContentHasher::Update(std::span<const std::byte> data) { Update(data.data(), data.size()); }

void ContentHasher::UpdateString(std::string_view text) {
  UpdateInt(static_cast<int64_t>(text.size()));
  Update(text.data(), text.size());
}

void ContentHasher::UpdateInt(int64_t value) { Update(&value, sizeof(value)); }

ContentHash ContentHasher::Finish() {
  uint8_t digests[kLanes][64];
  for (size_t lane = 0; lane < kLanes; ++lane) {
    uint64_t state[8];
    for (int i = 0; i < 8; ++i) state[i] = states_[i][lane];
    uint64_t count = stripes_ * kBlockBytes;
    for (size_t stripe = 0; stripe < 2; ++stripe) {
      const size_t begin = stripe * kStripeBytes + lane * kBlockBytes;
      const size_t next = begin + kStripeBytes;
      const size_t size = buffered_ > begin ? std::min(kBlockBytes, buffered_ - begin) : 0;
      const bool first_and_only = stripe == 0 && count == 0 && size == 0;
      if (size == 0 && !first_and_only) break;
      uint8_t block[kBlockBytes] = {};
      std::memcpy(block, buffer_.data() + std::min(begin, buffered_), size);
      count += size;
      const bool last = stripe == 1 || buffered_ <= next;
      CompressOne(state, block, count, last, last && lane == kLanes - 1);
      if (last) break;
    }
    std::memcpy(digests[lane], state, sizeof(state));
  }
  uint64_t root[8];
  InitState(0, 1, root, 1);
  CompressOne(root, digests[0], 128, false, false);
  CompressOne(root, digests[2], 256, true, true);
  ContentHash out;
  std::memcpy(out.bytes.data(), root, out.bytes.size());
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
