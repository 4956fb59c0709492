#include "profile/profile_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

namespace plexus {
namespace {

ContentHash Signature(uint8_t n) {
  ContentHash h;
  h.bytes[0] = n;
  return h;
}

class ProfileStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "profile-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    path_ = dir_ / "profile.bin";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string ReadFile() {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void WriteFile(const std::string& data) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << data;
  }
  // The file with `value` in place of the bytes at `at`, and a checksum that fits.
  static std::string Forged(std::string file, size_t at, uint64_t value, size_t bytes) {
    file.resize(file.size() - 32);
    for (size_t i = 0; i < bytes; ++i) file[at + i] = static_cast<char>(value >> (8 * i));
    ContentHasher hasher;
    hasher.Update(file.data(), file.size());
    const ContentHash checksum = hasher.Finish();
    return file.append(reinterpret_cast<const char*>(checksum.bytes.data()), 32);
  }
  void SaveOne() {
    ProfileStore store;
    store.Get(Signature(1), 4, 2)->kernels[1].Set(1500, 25, 9);
    ASSERT_TRUE(store.Save(path_).ok());
  }

  std::filesystem::path dir_, path_;
};

TEST(TimeEstimateTest, FirstSampleSetsTheMean) {
  TimeEstimate e;
  e.Add(100);
  EXPECT_EQ(e.mean_ns(), 100);
  EXPECT_EQ(e.variance_ns2(), 0);
  EXPECT_EQ(e.samples(), 1u);
}

TEST(TimeEstimateTest, LaterSamplesWeighOneEighth) {
  TimeEstimate e;
  e.Add(100);
  e.Add(180);
  EXPECT_DOUBLE_EQ(e.mean_ns(), 110);
  EXPECT_DOUBLE_EQ(e.variance_ns2(), 7.0 / 8 * (80.0 * 80 / 8));
}

TEST(TimeEstimateTest, OneOutlierMovesATrustedMeanByLessThanItself) {
  TimeEstimate e;
  for (int i = 0; i < 8; ++i) e.Add(100);
  e.Add(1e6);
  EXPECT_DOUBLE_EQ(e.mean_ns(), 100 + (800 - 100) / 8.0);
}

TEST(TimeEstimateTest, AKernelThatBecameSlowIsLearned) {
  TimeEstimate e;
  for (int i = 0; i < 20; ++i) e.Add(100);
  for (int i = 0; i < 60; ++i) e.Add(1e6);
  EXPECT_GT(e.mean_ns(), 0.9e6);
}

TEST(TimeEstimateTest, ValuesThatAreNoTimesAreDropped) {
  TimeEstimate e;
  e.Add(-1);
  e.Add(std::numeric_limits<double>::quiet_NaN());
  e.Add(std::numeric_limits<double>::infinity());
  EXPECT_EQ(e.samples(), 0u);
}

TEST_F(ProfileStoreTest, SameProgramAndRowsShareOneEntry) {
  ProfileStore store;
  const ProgramProfilePtr a = store.Get(Signature(1), 1, 3);
  EXPECT_EQ(store.Get(Signature(1), 1, 3), a);
  EXPECT_NE(store.Get(Signature(1), 2, 3), a);
  EXPECT_NE(store.Get(Signature(2), 1, 3), a);
  EXPECT_EQ(a->kernels.size(), 3u);
  EXPECT_EQ(store.size(), 3u);
}

TEST_F(ProfileStoreTest, AnotherKernelCountReplacesTheEntryAndKeepsTheOldForWhoHoldsIt) {
  ProfileStore store;
  const ProgramProfilePtr old = store.Get(Signature(1), 1, 3);
  const ProgramProfilePtr fresh = store.Get(Signature(1), 1, 5);
  EXPECT_NE(old, fresh);
  old->kernels[2].Add(1);
  EXPECT_EQ(fresh->kernels.size(), 5u);
}

TEST_F(ProfileStoreTest, TheLongestUnusedAreForgottenButNotWhatSomebodyHolds) {
  ProfileStore store(4096);
  const ProgramProfilePtr held = store.Get(Signature(0), 1, 2);
  held->kernels[0].Add(5);
  for (uint8_t i = 1; i < 200; ++i) {
    store.Get(Signature(i), 1, 2)->kernels[0].Add(i);
    store.Get(Signature(1), 1, 2);  // again and again
    EXPECT_LE(store.bytes(), 4096u);
  }
  EXPECT_EQ(store.Get(Signature(0), 1, 2), held);
  EXPECT_EQ(store.Get(Signature(1), 1, 2)->kernels[0].mean_ns(), 1);
  EXPECT_EQ(store.Get(Signature(199), 1, 2)->kernels[0].mean_ns(), 199);
  EXPECT_EQ(store.Get(Signature(100), 1, 2)->kernels[0].samples(), 0u);
  // One program that is larger than the store is still learned while it is used.
  EXPECT_EQ(store.Get(Signature(250), 1, 1000)->kernels.size(), 1000u);
  // What a file holds beyond the limit goes, the longest unused first.
  ProfileStore large;
  for (uint8_t i = 1; i < 100; ++i) large.Get(Signature(i), 1, 1)->kernels[0].Add(i);
  ASSERT_TRUE(large.Save(path_).ok());
  ProfileStore small(2048);
  ASSERT_TRUE(small.Load(path_).ok());
  EXPECT_LE(small.bytes(), 2048u);
  EXPECT_EQ(small.Get(Signature(99), 1, 1)->kernels[0].mean_ns(), 99);
  EXPECT_EQ(small.Get(Signature(1), 1, 1)->kernels[0].samples(), 0u);
}

TEST_F(ProfileStoreTest, TimesOfPathsAreKeptBesideThoseOfPrograms) {
  {
    ProfileStore store;
    store.GetPath(Signature(7))->Add(1234);
    store.Get(Signature(7), 1, 1)->kernels[0].Add(5);
    EXPECT_EQ(store.GetPath(Signature(7))->mean_ns(), 1234);
    ASSERT_TRUE(store.Save(path_).ok());
  }
  ProfileStore store;
  ASSERT_TRUE(store.Load(path_).ok());
  EXPECT_EQ(store.GetPath(Signature(7))->mean_ns(), 1234);
  EXPECT_EQ(store.GetPath(Signature(8))->samples(), 0u);
}

TEST_F(ProfileStoreTest, SavedTimesComeBack) {
  SaveOne();
  ProfileStore store;
  ASSERT_TRUE(store.Load(path_).ok());
  const ProgramProfilePtr p = store.Get(Signature(1), 4, 2);
  EXPECT_EQ(p->kernels[0].samples(), 0u);
  EXPECT_EQ(p->kernels[1].mean_ns(), 1500);
  EXPECT_EQ(p->kernels[1].variance_ns2(), 25);
  EXPECT_EQ(p->kernels[1].samples(), 9u);
}

TEST_F(ProfileStoreTest, WhatThisProcessLearnedWinsOverTheFile) {
  SaveOne();
  ProfileStore store;
  store.Get(Signature(1), 4, 2)->kernels[1].Add(7);
  ASSERT_TRUE(store.Load(path_).ok());
  EXPECT_EQ(store.Get(Signature(1), 4, 2)->kernels[1].mean_ns(), 7);
}

TEST_F(ProfileStoreTest, ProgramsThatNeverRanAreNotSaved) {
  ProfileStore store;
  store.Get(Signature(1), 1, 2);
  ASSERT_TRUE(store.Save(path_).ok());
  ProfileStore other;
  ASSERT_TRUE(other.Load(path_).ok());
  EXPECT_EQ(other.size(), 0u);
}

TEST_F(ProfileStoreTest, AMissingFileIsNotFound) {
  ProfileStore store;
  EXPECT_EQ(store.Load(path_).code(), StatusCode::kNotFound);
}

TEST_F(ProfileStoreTest, EveryFlippedByteIsDataLossAndChangesNothing) {
  SaveOne();
  const std::string good = ReadFile();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x40);
    WriteFile(bad);
    ProfileStore store;
    EXPECT_EQ(store.Load(path_).code(), StatusCode::kDataLoss) << "byte " << i;
    EXPECT_EQ(store.size(), 0u);
  }
}

TEST_F(ProfileStoreTest, EveryTruncationIsDataLoss) {
  SaveOne();
  const std::string good = ReadFile();
  for (size_t n = 0; n < good.size(); ++n) {
    WriteFile(good.substr(0, n));
    ProfileStore store;
    EXPECT_EQ(store.Load(path_).code(), StatusCode::kDataLoss) << n << " bytes";
  }
}

TEST_F(ProfileStoreTest, AFileThatSomebodyForgedIsRefusedWithTheReason) {
  SaveOne();
  const std::string good = ReadFile();
  // Magic, version, entries; the one entry: signature, rows, kernels, times.
  constexpr size_t kEntries = 12, kKernels = 20 + 32 + 4, kMean = kKernels + 4;
  WriteFile(Forged(good, kMean, 0, 8));  // nothing wrong with that
  ASSERT_TRUE(ProfileStore().Load(path_).ok());
  const auto bits = [](double value) { return std::bit_cast<uint64_t>(value); };
  const struct {
    size_t at, bytes;
    uint64_t value;
    std::string_view why;
  } cases[] = {
      {8, 4, 77, "version 77"},
      {kEntries, 8, 0, "wrong counts"},
      {kEntries, 8, 2, "wrong counts"},
      {kEntries, 8, UINT64_MAX, "wrong counts"},
      {kKernels, 4, 0, "wrong counts"},
      {kKernels, 4, 3, "wrong counts"},
      {kKernels, 4, UINT32_MAX, "wrong counts"},
      {kMean, 8, bits(-1), "not a number"},
      {kMean, 8, bits(std::numeric_limits<double>::quiet_NaN()), "not a number"},
      {kMean, 8, bits(std::numeric_limits<double>::infinity()), "not a number"},
      {kMean, 8, bits(1e300), "longer than any"},
      {kMean + 8, 8, bits(-1), "not a number"},
  };
  for (const auto& c : cases) {
    WriteFile(Forged(good, c.at, c.value, c.bytes));
    ProfileStore store;
    const Status status = store.Load(path_);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_NE(status.message().find(c.why), std::string::npos) << status.ToString();
    EXPECT_EQ(store.size(), 0u);
  }
}

TEST_F(ProfileStoreTest, AFileOfPathTimesWithAnotherNumberOfThemIsLearnedAnew) {
  ProfileStore store;
  store.Get(Signature(7), 0, 3)->kernels[0].Add(5);
  ASSERT_TRUE(store.Save(path_).ok());
  ProfileStore other;
  ASSERT_TRUE(other.Load(path_).ok());
  EXPECT_EQ(other.GetPath(Signature(7))->samples(), 0u);
}

TEST_F(ProfileStoreTest, WhatIsNoFileIsNotTakenForAMissingOne) {
  ProfileStore store;
  EXPECT_EQ(store.Load(dir_).code(), StatusCode::kUnavailable);
  EXPECT_EQ(store.Load(path_ / "below" / "nothing").code(), StatusCode::kNotFound);
  SaveOne();
  EXPECT_EQ(store.Load(path_ / "below").code(), StatusCode::kUnavailable) << "of a file";
  std::filesystem::remove(path_);
  WriteFile("");
  std::filesystem::resize_file(path_, (uintmax_t{256} << 20) + 1);  // of holes
  EXPECT_EQ(store.Load(path_).code(), StatusCode::kDataLoss);
}

TEST_F(ProfileStoreTest, AFolderWithoutWritePermissionIsAnErrorAndLeavesTheOldFile) {
  SaveOne();
  const std::string before = ReadFile();
  ProfileStore store;
  EXPECT_EQ(store.Save(dir_ / "missing" / "profile.bin").code(), StatusCode::kUnavailable);
  EXPECT_EQ(ReadFile(), before);
}

TEST_F(ProfileStoreTest, SavingLeavesNoOtherFileBehind) {
  SaveOne();
  SaveOne();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1);
}

TEST_F(ProfileStoreTest, WhatAProcessThatDiedWhileSavingLeftIsUsedUp) {
  std::ofstream(dir_ / "profile.bin.new") << std::string(10000, 'x');
  SaveOne();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1);
  ProfileStore store;
  EXPECT_TRUE(store.Load(path_).ok());
}

TEST_F(ProfileStoreTest, ASaveWhileAnotherProcessSavesIsAnErrorAndDisturbsNothing) {
  SaveOne();
  const std::filesystem::path beside = dir_ / "profile.bin.new";
  const int fd = open(beside.c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  ProfileStore store;
  EXPECT_EQ(store.Save(path_).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(std::filesystem::exists(beside));
  close(fd);
  EXPECT_TRUE(store.Save(path_).ok());
}

TEST_F(ProfileStoreTest, WhatIsNoRegularFileIsNotReplaced) {
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  ProfileStore store;
  const Status status = store.Save(path_);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("not a regular file"), std::string::npos) << status.message();
  EXPECT_TRUE(std::filesystem::is_fifo(path_));
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(store.Save(path_).code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace plexus
