#include "base/status.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

TEST(StatusTest, OkIsDefaultAndCarriesNoMessage) {
  Status s;
  EXPECT_TRUE(s.ok());
  EXPECT_EQ(s.message(), "");
  EXPECT_EQ(s.ToString(), "OK");
}

TEST(StatusTest, ContextGoesBeforeTheMessageAndKeepsTheCode) {
  Status s = NotFoundError("no such tensor").WithContext("model a");
  EXPECT_EQ(s.code(), StatusCode::kNotFound);
  EXPECT_EQ(s.message(), "model a: no such tensor");
  EXPECT_EQ(s.WithContext("model a").message(), s.message()) << "nothing is said twice";
  EXPECT_TRUE(OkStatus().WithContext("model a").ok());
}

Result<int> Half(int x) {
  if (x % 2 != 0) return InvalidArgumentError("odd");
  return x / 2;
}

Result<int> Quarter(int x) {
  PLEXUS_ASSIGN_OR_RETURN(int half, Half(x));
  return Half(half);
}

TEST(ResultTest, CarriesTheValueOrTheFirstError) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_EQ(Quarter(3).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
