#include "pipeline/path_book.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "pipeline/folding_evaluator.h"
#include "pipeline/graph_maker.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

constexpr int64_t kWidth = 16;

// Layers of numbered weights. Everything is made anew, as after a restart.
PlannedGraphPtr Layers(const std::vector<int>& numbers, Precision precision = Precision::kFloat32) {
  GraphMaker g;
  ValueId v = g.In("x", {-1, kWidth});
  for (const int number : numbers) {
    std::vector<float> weights(kWidth * kWidth);
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i] = std::sin(static_cast<float>(i + 1) * static_cast<float>(number));
    }
    v = g.Op("Relu", {g.Op("MatMul", {v, g.Const(Floats({kWidth, kWidth}, weights))})});
  }
  g.Out(v);
  const FoldingEvaluator folding{ReferenceEvaluator::Get()};
  CompileOptions options;
  options.precision = precision;
  options.name = "model";
  return std::make_shared<const PlannedGraph>(PrepareGraph(*g.Done(), folding).value(), options);
}

// A book with some models in it, on what a store knows.
struct Books {
  explicit Books(std::shared_ptr<ProfileStore> times)
      : book(
            std::move(times), [] {}, [](uint64_t) {}) {}
  RunPathPtr Path(const PlannedGraphPtr& planned) const { return book.Find(planned->id); }
  void Load(const std::vector<PlannedGraphPtr>& models) {
    for (const PlannedGraphPtr& model : models) book.Add(model);
    book.Refresh();
  }
  PathBook book;
};

class PathBookTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (std::filesystem::temp_directory_path() / "times-XXXXXX").string();
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  // The store that the next process reads.
  std::shared_ptr<ProfileStore> Restart(const ProfileStore& before) {
    EXPECT_TRUE(before.Save(folder_ / "times").ok());
    auto after = std::make_shared<ProfileStore>();
    EXPECT_TRUE(after->Load(folder_ / "times").ok());
    return after;
  }
  static std::shared_ptr<ProfileStore> NewStore() { return std::make_shared<ProfileStore>(); }
  static void Learn(const RunPath& path) {
    for (size_t i = 0; i < path.calls.size(); ++i) path.Learn(i, Duration(1000 << i));
  }

  std::filesystem::path folder_;
};

TEST_F(PathBookTest, NothingIsKnownOfAPathAtFirst) {
  const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3});
  Books books(NewStore());
  books.Load({a, b});
  const RunPathPtr path = books.Path(a);
  ASSERT_NE(path, nullptr);
  ASSERT_EQ(path->calls.size(), 2u);
  EXPECT_EQ(path->Total(), Duration{0});
  EXPECT_EQ(path->After(0), Duration{0});
  EXPECT_EQ(path->SharedPart(), 1);
}

// A second one would only wait for the first, on a thread that others have work for.
TEST_F(PathBookTest, WhatComesDuringARefreshIsDoneByItAndNobodyIsAskedAgain) {
  const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3}), c = Layers({1, 4});
  int asked = 0, dropped = 0;
  PathBook* self = nullptr;
  PathBook book(
      NewStore(), [&] { ++asked; },
      [&](uint64_t) {
        if (dropped++ == 0) self->Add(c);
      });
  self = &book;
  book.Add(a);
  book.Add(b);
  book.Refresh();
  ASSERT_EQ(asked, 1);
  book.Remove(b->id);
  book.Refresh();  // forgets the segments of the two
  ASSERT_GT(dropped, 0);
  EXPECT_EQ(asked, 2);
  EXPECT_NE(book.Find(c->id), nullptr);
  EXPECT_EQ(book.Find(b->id), nullptr);
}

TEST_F(PathBookTest, WhatOnePathLearnsOfASegmentTheOthersKnow) {
  const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3});
  Books books(NewStore());
  books.Load({a, b});
  Learn(*books.Path(a));
  EXPECT_EQ(books.Path(a)->Total(), Duration(3000));
  EXPECT_EQ(books.Path(a)->After(0), Duration(2000));
  EXPECT_NEAR(books.Path(a)->SharedPart(), 1. / 3, 1e-9);
  EXPECT_EQ(books.Path(b)->Total(), Duration{0}) << "its own part";
  books.Path(b)->Learn(1, Duration(500));
  EXPECT_EQ(books.Path(b)->Total(), Duration(1500));
}

TEST_F(PathBookTest, TimesOfPathsAreKnownAfterARestart) {
  const std::shared_ptr<ProfileStore> first = NewStore();
  {
    const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3});
    Books books(first);
    books.Load({a, b});
    Learn(*books.Path(a));
  }
  const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3});
  Books books(Restart(*first));
  books.Load({b, a});  // whichever comes first
  EXPECT_EQ(books.Path(a)->Total(), Duration(3000));
  EXPECT_EQ(books.Path(a)->After(0), Duration(2000));
  EXPECT_EQ(books.Path(b)->Total(), Duration{0});
}

TEST_F(PathBookTest, OtherWeightsAndOtherPrecisionAreOtherTimes) {
  const std::shared_ptr<ProfileStore> first = NewStore();
  {
    const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3});
    Books books(first);
    books.Load({a, b});
    Learn(*books.Path(a));
    Learn(*books.Path(b));
  }
  const std::shared_ptr<ProfileStore> second = Restart(*first);
  {
    const PlannedGraphPtr a = Layers({7, 2}), b = Layers({7, 3});
    Books books(second);
    books.Load({a, b});
    EXPECT_EQ(books.Path(a)->Total(), Duration{0});
    EXPECT_EQ(books.Path(a)->After(0), Duration(2000)) << "its second layer is known";
  }
  const PlannedGraphPtr a = Layers({1, 2}, Precision::kBFloat16);
  const PlannedGraphPtr b = Layers({1, 3}, Precision::kBFloat16);
  Books books(second);
  books.Load({a, b});
  EXPECT_EQ(books.Path(a)->After(0), Duration{0});
}

TEST_F(PathBookTest, ANewCutKeepsWhatWasLearnedOfSegmentsThatStay) {
  const PlannedGraphPtr a = Layers({1, 2}), b = Layers({1, 3}), c = Layers({1, 4});
  Books books(NewStore());
  books.Load({a, b});
  Learn(*books.Path(a));
  books.Load({c});
  EXPECT_EQ(books.Path(a)->Total(), Duration(3000));
  books.book.Remove(b->id);
  books.book.Refresh();
  EXPECT_EQ(books.Path(a)->Total(), Duration(3000));
}

}  // namespace
}  // namespace plexus
