#include "base/log.h"

#include <gtest/gtest.h>

#include <string>

namespace plexus {
namespace {

std::string& Written() {
  static std::string line;
  return line;
}

TEST(LogTest, AMessageStaysOnOneLine) {
  SetLogSink([](LogLevel, std::string_view line) { Written() = line; });
  PLEXUS_LOG(kError) << "model 'a\nb\x1b[0m\x7f' \xc3\xa9";
  SetLogSink(nullptr);
  const size_t message = Written().find(" E ");
  ASSERT_NE(message, std::string::npos);
  EXPECT_EQ(Written().substr(message + 3), "model 'a\\x0ab\\x1b[0m\\x7f' \xc3\xa9");
}

}  // namespace
}  // namespace plexus
