#include "serve/compression.h"

#include <gtest/gtest.h>

#include <cstring>

namespace plexus {
namespace {

SharedBytes Bytes(std::string_view text) {
  SharedBytes body = AllocateBody(text.size(), 0).value();
  std::memcpy(body.data, text.data(), text.size());
  return body;
}
std::string Text(const SharedBytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data), bytes.size_bytes};
}
SharedBytes Compressed(std::string_view encoding, std::string text) {
  HttpResponse response;
  response.body = std::move(text);
  EXPECT_TRUE(CompressResponse(encoding, &response).ok());
  return Bytes(response.body);
}

TEST(Compression, BothEncodingsComeBack) {
  for (const char* encoding : {"gzip", "deflate"}) {
    for (const size_t size : {0, 1, 1000, 3 << 20}) {
      std::string text(size, 'a');
      for (size_t i = 0; i < size; i += 7) text[i] = static_cast<char>(i * i);
      const auto decoded = DecodeBody(Compressed(encoding, text), encoding, 4 << 20, 5);
      ASSERT_TRUE(decoded.ok()) << encoding << size << decoded.status().ToString();
      EXPECT_EQ(Text(*decoded), text);
      if (size > 0) {
        EXPECT_EQ((reinterpret_cast<uintptr_t>(decoded->data) + 5) % 64, 0u);
      }
    }
  }
}

TEST(Compression, CompressesBodyAndPayloadAsOne) {
  HttpResponse response;
  response.body = "head ";
  auto tail = std::make_shared<std::string>("tail");
  response.payload.push_back({tail, reinterpret_cast<std::byte*>(tail->data()), tail->size()});
  ASSERT_TRUE(CompressResponse("gzip", &response).ok());
  EXPECT_EQ(response.headers[0], (std::pair<std::string, std::string>("Content-Encoding", "gzip")));
  EXPECT_EQ(Text(DecodeBody(Bytes(response.body), "gzip", 100, 0).value()), "head tail");
}

TEST(Compression, ABombIsRefusedAtTheLimit) {
  const SharedBytes bomb = Compressed("gzip", std::string(50 << 20, '\0'));
  EXPECT_LT(bomb.size_bytes, size_t{1} << 20);
  const auto decoded = DecodeBody(bomb, "gzip", 1 << 20, 0);
  EXPECT_EQ(decoded.status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(DecodeBody(Compressed("gzip", std::string(1000, 'x')), "gzip", 1000, 0).ok());
  EXPECT_FALSE(DecodeBody(Compressed("gzip", std::string(1001, 'x')), "gzip", 1000, 0).ok());
}

TEST(Compression, DamagedBodiesAreErrors) {
  const std::string whole = Text(Compressed("gzip", std::string(1000, 'x') + "end"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto decoded = DecodeBody(Bytes(whole.substr(0, size)), "gzip", 1 << 20, 0);
    EXPECT_EQ(decoded.status().code(), StatusCode::kInvalidArgument) << size;
  }
  EXPECT_FALSE(DecodeBody(Bytes(whole + "x"), "gzip", 1 << 20, 0).ok());
  EXPECT_FALSE(DecodeBody(Bytes("plain text"), "deflate", 1 << 20, 0).ok());
  EXPECT_EQ(DecodeBody(Bytes("x"), "br", 1 << 20, 0).status().code(), StatusCode::kUnimplemented);
}

TEST(Compression, ChoosesWhatTheClientAccepts) {
  struct Case {
    const char* accept;
    const char* chosen;
  };
  for (const Case& c : {Case{"", ""}, Case{"gzip", "gzip"}, Case{"GZIP;q=1.0", "gzip"},
                        Case{"deflate, gzip", "gzip"}, Case{"deflate", "deflate"},
                        Case{"gzip;q=0, deflate", "deflate"}, Case{"gzip; q=0.000", ""},
                        Case{"br, identity", ""}}) {
    EXPECT_EQ(ChooseEncoding(c.accept), c.chosen) << c.accept;
  }
}

}  // namespace
}  // namespace plexus
