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

// Expected digests from Python's hashlib.blake2b(data, digest_size=32).
TEST(ContentHashTest, AgreesWithBlake2b256) {
  EXPECT_EQ(HashOf(""), "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
  EXPECT_EQ(HashOf("abc"), "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
  EXPECT_EQ(HashOf(std::string(128, 'a')),
            "ae2aa48507885c4c950fb809b2076f959cde9f8ea6da260d9a3587df33dac450");
  EXPECT_EQ(HashOf(std::string(1000, 'a')),
            "e00b0ddbf1e2cdaf5c898e1a5e8826ea3a2c339bcf2a478da2e5fca9ff126672");
}

TEST(ContentHashTest, DoesNotDependOnHowTheDataIsCut) {
  std::string data;
  for (int i = 0; i < 1000; ++i) data.push_back(static_cast<char>(i * 7));
  for (size_t step : {1u, 3u, 127u, 128u, 129u, 500u}) {
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
