#include "base/hash.h"

#include <gtest/gtest.h>

#include <string>

namespace plexus {
namespace {

std::string HashOf(const std::string& text) {
  ContentHasher hasher;
  hasher.Update(text.data(), text.size());
  return hasher.Finish().ToHex();
}

// Expected digests: BLAKE2bp built from Python's hashlib.blake2b as a tree (fanout 4, depth 2,
// inner size 64, blocks of 128 bytes dealt to the leaves in turn), the first 32 of 64 bytes. The
// first is also the head of BLAKE2bp's published answer for the empty message.
TEST(ContentHashTest, AgreesWithBlake2bp) {
  EXPECT_EQ(HashOf(""), "b5ef811a8038f70b628fa8b294daae7492b1ebe343a80eaabbf1f6ae664dd67b");
  EXPECT_EQ(HashOf("abc"), "b91a6b66ae87526c400b0a8b53774dc65284ad8f6575f8148ff93dff943a6ecd");
  const std::pair<int, const char*> runs_of_a[] = {
      {128, "a0b9615c5a33c28511dd54cd61963f1710be41c0a42580c0b079751183ddb3e1"},
      {512, "6e30a2e1328ca8f080ac21fdb76e8aee7a1277b12957334af7540371800cdda4"},
      {513, "89d15451230d3078141dac62412a9330377e9f1ad19227594f981d781ead19a1"},
      {1000, "af63b7ac31ef5b9b9d9e19d4f34b160729af21d51e98552fb90411becc67fa2f"},
      {1024, "d573a50e48a6ae8d3b135577bfea9078ede6c5f4c5117a7d835284557ce59cc3"},
      {5000, "9bd000f156414ae3aeb238bbd422280a107d94f0af91f55b773200666010e649"},
  };
  for (const auto& [n, digest] : runs_of_a) EXPECT_EQ(HashOf(std::string(n, 'a')), digest) << n;
}

TEST(ContentHashTest, DoesNotDependOnHowTheDataIsCut) {
  std::string data;
  for (int i = 0; i < 5000; ++i) data.push_back(static_cast<char>(i * 7));
  for (size_t step : {1u, 3u, 127u, 128u, 129u, 511u, 512u, 513u, 1024u, 1500u, 2049u}) {
    ContentHasher hasher;
    for (size_t at = 0; at < data.size(); at += step) {
      hasher.Update(data.data() + at, std::min(step, data.size() - at));
    }
    EXPECT_EQ(hasher.Finish().ToHex(), HashOf(data)) << "step " << step;
  }
}

TEST(ContentHashTest, StringsAreDelimited) {
  ContentHasher a, b;
  a.UpdateString("ab");
  a.UpdateString("c");
  b.UpdateString("a");
  b.UpdateString("bc");
  EXPECT_NE(a.Finish(), b.Finish());
}

}  // namespace
}  // namespace plexus
