#include "program/program.h"

#include <gtest/gtest.h>

#include <limits>

namespace plexus {
namespace {

Kernel MakeKernel(std::string name, uint32_t grid, uint32_t dependencies,
                  std::vector<uint32_t> successors) {
  Kernel kernel;
  kernel.name = std::move(name);
  kernel.grid = grid;
  kernel.estimated_block_time = std::chrono::microseconds(10);
  kernel.dependencies = dependencies;
  for (uint32_t successor : successors) kernel.successors.push_back(KernelId(successor));
  return kernel;
}

// a → {b, c} → d
Program Diamond() {
  Program program;
  program.name = "diamond";
  program.kernels = {MakeKernel("a", 1, 0, {1, 2}), MakeKernel("b", 4, 1, {3}),
                     MakeKernel("c", 2, 1, {3}), MakeKernel("d", 1, 2, {})};
  return program;
}

TEST(ProgramTest, EstimatedTimeSumsGridTimesBlockTime) {
  EXPECT_EQ(Diamond().EstimatedTime(), std::chrono::microseconds(80));
  EXPECT_EQ(Program().EstimatedTime(), Duration::zero());
}

TEST(ProgramTest, EstimatedTimeSaturatesInsteadOfWrapping) {
  Program program = Diamond();
  program.kernels[0].estimated_block_time = Duration(std::numeric_limits<int64_t>::max() / 2);
  program.kernels[1].estimated_block_time = Duration(std::numeric_limits<int64_t>::max() / 2);
  EXPECT_EQ(program.EstimatedTime().count(), std::numeric_limits<int64_t>::max());
}

TEST(ProgramTest, ValidProgramsPass) {
  EXPECT_TRUE(ValidateProgram(Diamond()).ok());
  EXPECT_TRUE(ValidateProgram(Program()).ok());
}

TEST(ProgramTest, WrongDependencyCountIsInternalAndNamesTheKernel) {
  Program program = Diamond();
  program.kernels[3].dependencies = 1;
  Status status = ValidateProgram(program);
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_NE(status.message().find("'d'"), std::string::npos);
}

TEST(ProgramTest, CycleIsInternal) {
  Program program = Diamond();
  program.kernels[3].successors.push_back(KernelId(1));
  program.kernels[1].dependencies = 2;
  EXPECT_EQ(ValidateProgram(program).code(), StatusCode::kInternal);
}

TEST(ProgramTest, SuccessorOutOfRangeOrTwiceIsInternal) {
  Program out_of_range = Diamond();
  out_of_range.kernels[0].successors.push_back(KernelId(9));
  EXPECT_EQ(ValidateProgram(out_of_range).code(), StatusCode::kInternal);
  Program twice = Diamond();
  twice.kernels[0].successors.push_back(KernelId(1));
  twice.kernels[1].dependencies = 2;
  EXPECT_EQ(ValidateProgram(twice).code(), StatusCode::kInternal);
}

TEST(ProgramTest, EmptyGridOrZeroEstimateIsInternal) {
  Program no_blocks = Diamond();
  no_blocks.kernels[2].grid = 0;
  EXPECT_EQ(ValidateProgram(no_blocks).code(), StatusCode::kInternal);
  Program no_estimate = Diamond();
  no_estimate.kernels[2].estimated_block_time = Duration::zero();
  EXPECT_EQ(ValidateProgram(no_estimate).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace plexus
