#include "pipeline/result_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

using Tensors = std::vector<Tensor>;

// A question, and how it is asked.
struct Question {
  explicit Question(float value, uint64_t work = 7) : inputs{Floats({2}, {value, 1})} {
    ask.work = work;
  }
  std::optional<Tensors> Find(ResultCache& cache) {
    ask.inputs = &inputs;
    return cache.Find(ask, cache.Key(ask));
  }
  void Keep(ResultCache& cache, const Tensors& outputs) {
    ask.inputs = &inputs;
    cache.Keep(ask, cache.Key(ask), outputs);
  }
  Tensors inputs;
  ResultCache::Ask ask;
};

Tensors Answer(float value, int64_t size = 1) {
  return {Floats({size}, std::vector<float>(static_cast<size_t>(size), value))};
}

TEST(ResultCache, GivesBackWhatWasKeptForEqualInputs) {
  ResultCache cache(1 << 20);
  Question one(1), equal(1), other(2), other_work(1, 8);
  EXPECT_FALSE(one.Find(cache));
  one.Keep(cache, Answer(5));
  ASSERT_TRUE(equal.Find(cache));
  EXPECT_EQ((*equal.Find(cache))[0].data<float>()[0], 5);
  EXPECT_FALSE(other.Find(cache));
  EXPECT_FALSE(other_work.Find(cache));
  equal.inputs[0] = equal.inputs[0].Reshaped({1, 2});
  EXPECT_FALSE(equal.Find(cache)) << "another shape";
  EXPECT_EQ(cache.stats().hits, 2u);
  EXPECT_EQ(cache.stats().misses, 4u);
  EXPECT_EQ(cache.stats().entries, 1u);
}

TEST(ResultCache, AHashAloneDecidesNothing) {
  ResultCache cache(1 << 20);
  Question one(1), other(2);
  one.ask.inputs = &one.inputs;
  other.ask.inputs = &other.inputs;
  constexpr uint64_t kSame = 99;
  cache.Keep(one.ask, kSame, Answer(5));
  EXPECT_TRUE(cache.Find(one.ask, kSame));
  EXPECT_FALSE(cache.Find(other.ask, kSame));
  cache.Keep(other.ask, kSame, Answer(6));  // takes the place
  EXPECT_FALSE(cache.Find(one.ask, kSame));
  EXPECT_EQ((*cache.Find(other.ask, kSame))[0].data<float>()[0], 6);
  EXPECT_EQ(cache.stats().entries, 1u);
}

TEST(ResultCache, HoldsCopiesThatNobodyElseCanChange) {
  ResultCache cache(1 << 20);
  Question question(1);
  Tensors answer = Answer(5);
  question.Keep(cache, answer);
  answer[0].mutable_data<float>()[0] = 6;
  question.inputs[0].mutable_data<float>()[0] = 9;
  EXPECT_FALSE(question.Find(cache));
  EXPECT_EQ((*Question(1).Find(cache))[0].data<float>()[0], 5);
}

TEST(ResultCache, TheLeastRecentlyUsedGoesFirst) {
  ResultCache probe(1 << 20);
  Question(1).Keep(probe, Answer(1));
  const size_t one = probe.stats().bytes;
  ResultCache cache(3 * one);
  for (int i = 1; i <= 3; ++i) Question(static_cast<float>(i)).Keep(cache, Answer(1));
  EXPECT_EQ(cache.stats().entries, 3u);
  EXPECT_TRUE(Question(1).Find(cache));
  Question(4).Keep(cache, Answer(1));
  EXPECT_FALSE(Question(2).Find(cache));
  for (const float there : {1, 3, 4}) EXPECT_TRUE(Question(there).Find(cache)) << there;
  EXPECT_EQ(cache.stats().evictions, 1u);
  EXPECT_EQ(cache.stats().bytes, 3 * one);
}

TEST(ResultCache, IsBoundedInBytesKeysAndBookkeepingCounted) {
  constexpr size_t kBound = 64 << 10;
  ResultCache cache(kBound);
  for (int i = 0; i < 2000; ++i) {
    const int64_t size = (i * 37) % 600 + 1;
    Question question(static_cast<float>(i));
    if (i % 3 == 0)
      question.inputs.push_back(Tensor::FromStrings({1}, {std::string(i % 500, 'x')}));
    question.Keep(cache, Answer(1, size));
    ASSERT_LE(cache.stats().bytes, kBound);
    ASSERT_TRUE(question.Find(cache)) << i;
  }
  EXPECT_GT(cache.stats().entries, 10u);
  Question large_key(1), large_answer(2);
  large_key.inputs.push_back(Answer(1, kBound / 4)[0]);
  large_key.Keep(cache, Answer(1));
  large_answer.Keep(cache, Answer(1, kBound / 4));
  EXPECT_EQ(cache.stats().too_large, 2u);
  EXPECT_FALSE(large_key.Find(cache));
  EXPECT_FALSE(large_answer.Find(cache));
  EXPECT_GT(cache.stats().entries, 10u) << "what does not fit drives nobody out";
  // Empty tensors cost their bookkeeping.
  ResultCache tiny(100);
  Question(1).Keep(tiny, Answer(1, 0));
  EXPECT_EQ(tiny.stats().entries, 0u);
}

TEST(ResultCache, TenantsDoNotSeeEachOthersUnlessToldOtherwise) {
  for (const bool across : {false, true}) {
    ResultCache cache(1 << 20, across);
    Question mine(1), others(1), successor(1);
    others.ask.tenant = TenantId(3);
    successor.ask.tenant_since = 8;  // has the id that another one had before
    mine.Keep(cache, Answer(5));
    EXPECT_TRUE(mine.Find(cache));
    EXPECT_EQ(others.Find(cache).has_value(), across);
    EXPECT_EQ(successor.Find(cache).has_value(), across);
  }
}

TEST(ResultCache, ForgetsTheResultsOfAGraphThatGoes) {
  ResultCache cache(1 << 20);
  Question one(1, 7), two(2, 7), other(1, 8);
  for (Question* each : {&one, &two, &other}) each->Keep(cache, Answer(1));
  const Tensors held = *one.Find(cache);
  cache.Drop(7);
  EXPECT_FALSE(one.Find(cache));
  EXPECT_FALSE(two.Find(cache));
  EXPECT_TRUE(other.Find(cache));
  EXPECT_EQ(cache.stats().entries, 1u);
  EXPECT_EQ(held[0].data<float>()[0], 1) << "who has it keeps it";
}

TEST(ResultCache, ManyThreadsMayUseIt) {
  ResultCache cache(8 << 10);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const auto value = static_cast<float>((i * (t + 1)) % 40);
        Question question(value, static_cast<uint64_t>(i % 3));
        const std::optional<Tensors> found = question.Find(cache);
        if (found && (*found)[0].data<float>()[0] != value) ++wrong;
        if (!found) question.Keep(cache, Answer(value));
        if (i % 500 == 0) cache.Drop(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(cache.stats().bytes, size_t{8} << 10);
}

// --- As requests see it

class CachedRuntime : public ::testing::Test {
 protected:
  CachedRuntime() { Make({}); }
  void Make(RuntimeOptions options) {
    options.threads = 1;
    if (options.result_cache_bytes == 0) options.result_cache_bytes = 1 << 20;
    runtime_ = Runtime::Create(options).value();
  }
  ExecutablePtr Load(const std::vector<float>& factors, bool random = false) {
    GraphMaker g;
    ValueId v = g.In("x", {-1, 4});
    for (const float factor : factors) {
      const std::vector<float> weights(16, factor);
      v = g.Op("Softmax", {g.Op("MatMul", {v, g.Const(Floats({4, 4}, weights))})});
    }
    if (random) v = g.Op("Add", {v, g.Op("RandomUniformLike", {v})});
    g.Out(v);
    return runtime_->Load("m", g.Done(), {}).value();
  }
  static Tensor Input(float value) { return Floats({1, 4}, {value, 1, 2, 3}); }
  RunResult Run(const ExecutablePtr& model, float value, bool use_cache = true) {
    RequestAttributes attributes;
    attributes.use_cache = use_cache;
    return runtime_->Run(model, {Input(value)}, attributes);
  }
  uint64_t Jobs() { return runtime_->dispatcher().stats().jobs_submitted; }

  std::unique_ptr<Runtime> runtime_;
};

TEST_F(CachedRuntime, AnEqualRequestRunsNothingAndGetsTheSameBytes) {
  const ExecutablePtr model = Load({0.1f, 0.7f});
  const RunResult first = Run(model, 1);
  ASSERT_TRUE(first.status.ok()) << first.status.ToString();
  EXPECT_EQ(first.cache, CacheUse::kMiss);
  const uint64_t jobs = Jobs();
  const RunResult second = Run(model, 1);
  EXPECT_EQ(Jobs(), jobs);
  EXPECT_EQ(second.cache, CacheUse::kHit);
  EXPECT_TRUE(TensorsEqual(second.outputs.at(0), first.outputs.at(0)));
  EXPECT_EQ(Run(model, 2).cache, CacheUse::kMiss);
  const RunResult without = Run(model, 1, /*use_cache=*/false);
  EXPECT_EQ(without.cache, CacheUse::kNone);
  EXPECT_TRUE(TensorsEqual(without.outputs.at(0), first.outputs.at(0)));
  EXPECT_GT(Jobs(), jobs);
}

TEST_F(CachedRuntime, OffUnlessAskedFor) {
  RuntimeOptions options;
  options.threads = 1;
  runtime_ = Runtime::Create(options).value();
  const ExecutablePtr model = Load({0.1f});
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Run(model, 1).cache, CacheUse::kNone);
  EXPECT_EQ(runtime_->result_cache_stats().misses, 0u);
}

TEST_F(CachedRuntime, ErrorsAreNotKept) {
  GraphMaker g;
  const ValueId x = g.In("x", {-1, 4});
  const ValueId index = g.Op("Cast", {x}, DType::kInt64, {{"to", int64_t{7}}});
  g.Out(g.Op("Gather", {g.Const(Floats({4}, {1, 2, 3, 4})), index}));
  const ExecutablePtr model = runtime_->Load("picky", g.Done(), {}).value();
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(Run(model, 1000).status.ok());
    EXPECT_EQ(runtime_->result_cache_stats().entries, 0u);
  }
  EXPECT_TRUE(Run(model, 0).status.ok());
  EXPECT_EQ(runtime_->result_cache_stats().entries, 1u);
}

TEST_F(CachedRuntime, RandomWorkIsNotKept) {
  const ExecutablePtr model = Load({0.1f}, /*random=*/true);
  const RunResult one = Run(model, 1), two = Run(model, 1);
  EXPECT_EQ(two.cache, CacheUse::kNone);
  EXPECT_FALSE(TensorsEqual(one.outputs.at(0), two.outputs.at(0)));
  EXPECT_EQ(runtime_->result_cache_stats().entries, 0u);
}

TEST_F(CachedRuntime, WhatIsUnloadedTakesItsResultsAlong) {
  ExecutablePtr model = Load({0.1f}), other = Load({0.2f});
  EXPECT_TRUE(Run(model, 1).status.ok());
  EXPECT_TRUE(Run(other, 1).status.ok());
  model.reset();
  EXPECT_EQ(runtime_->result_cache_stats().entries, 1u);
  model = Load({0.1f});  // anew
  EXPECT_EQ(Run(model, 1).cache, CacheUse::kMiss);
  EXPECT_EQ(Run(other, 1).cache, CacheUse::kHit);
}

TEST_F(CachedRuntime, SegmentsOfSeveralModelsAreKeptOnce) {
  const ExecutablePtr a = Load({0.1f, 0.5f, 0.7f}), b = Load({0.1f, 0.5f, 0.9f});
  while (runtime_->sharing_stats().paths != 2) std::this_thread::yield();
  const RunResult first = Run(a, 1);
  ASSERT_TRUE(first.status.ok()) << first.status.ToString();
  EXPECT_EQ(Run(b, 1).cache, CacheUse::kMiss);
  EXPECT_GT(runtime_->result_cache_stats().hits, 0u) << "the layers in common";
  EXPECT_EQ(Run(b, 1).cache, CacheUse::kHit);
  EXPECT_TRUE(TensorsEqual(Run(a, 1).outputs.at(0), first.outputs.at(0)));
}

}  // namespace
}  // namespace plexus
