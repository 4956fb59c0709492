#include "bench/load.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "pipeline/graph_maker.h"

namespace plexus {
namespace {

using Json = nlohmann::json;

class LoadDriverTest : public ::testing::Test {
 protected:
  explicit LoadDriverTest(bool share_work = false)
      : runtime_(Runtime::Create(Options(share_work)).value()), driver_(*runtime_) {
    for (const float factor : {2.f, 3.f}) {
      GraphMaker g;
      const ValueId x = g.In("x", {1, 4});
      std::vector<float> diagonal(16);
      for (size_t i = 0; i < 4; ++i) diagonal[5 * i] = factor;
      g.Out(g.Op("MatMul", {x, g.Const(Floats({4, 4}, diagonal))}));
      const std::string name = "times" + std::to_string(static_cast<int>(factor));
      models_[name] = runtime_->Load(name, g.Done(), {}).value();
    }
    Prepare("times2", {2, 4, 6, 8});
    Prepare("times3", {3, 6, 9, 12});
  }

  static RuntimeOptions Options(bool share_work) {
    RuntimeOptions options;
    options.threads = 2;
    options.share_work = share_work;
    return options;
  }
  void Prepare(const std::string& name, std::vector<float> expected) {
    driver_.Prepare(name, models_.at(name), {Floats({1, 4}, {1, 2, 3, 4})}, std::move(expected));
  }
  static Json Arrivals(std::vector<size_t> which) {
    Json command{{"models", {"times2", "times3"}}, {"which", which}};
    for (size_t i = 0; i < which.size(); ++i) {
      command["arrivals_ms"].push_back(0.1 * static_cast<double>(i));
      command["tenants"].push_back(i % 2);
    }
    return command;
  }
  static Json Clients() {
    return {{"models", {"times2", "times3"}},
            {"seconds", 0.05},
            {"clients",
             {{{"tenant", 1}, {"in_flight", 2}, {"which", {0, 1}}, {"think_ms", Json::array()}},
              {{"tenant", 2}, {"in_flight", 1}, {"which", {1}}, {"think_ms", {1, 2}}}}}};
  }
  StatusCode ReplayCode(const Json& command) { return driver_.Replay(command).status().code(); }

  std::unique_ptr<Runtime> runtime_;
  std::map<std::string, ExecutablePtr> models_;
  LoadDriver driver_;
};

TEST_F(LoadDriverTest, ReplayAnswersEveryArrivalAndChecksWhatItGives) {
  const Result<Json> answer = driver_.Replay(Arrivals({0, 1, 1, 0, 1}));
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->at("latency_ms").size(), 5u);
  EXPECT_EQ(answer->at("late_ms").size(), 5u);
  EXPECT_EQ(answer->at("rel_err"), 0);
  EXPECT_EQ(answer->at("joined"), 0);
  for (const Json& ms : answer->at("latency_ms")) EXPECT_GT(ms.get<double>(), 0);
  EXPECT_EQ(runtime_->dispatcher().stats().jobs_done, 5u);
  for (const uint32_t tenant : {0u, 1u}) {
    EXPECT_GT(runtime_->dispatcher().tenant_stats(TenantId(tenant)).time, Duration{0});
  }
}

TEST_F(LoadDriverTest, AWrongResultShows) {
  Prepare("times3", {3, 6, 9, 15});
  EXPECT_NEAR(driver_.Replay(Arrivals({0, 1})).value().at("rel_err").get<double>(), 0.2, 1e-6);
  EXPECT_EQ(driver_.Replay(Arrivals({0, 0})).value().at("rel_err"), 0);
  Prepare("times3", {3, 6, 9});  // another size
  EXPECT_EQ(driver_.Replay(Arrivals({1})).value().at("rel_err"), 1e9);
  Prepare("times3", {});  // not checked
  EXPECT_EQ(driver_.Replay(Arrivals({1})).value().at("rel_err"), 0);
}

TEST_F(LoadDriverTest, ARequestThatFailsFailsTheReplay) {
  driver_.Prepare("times2", models_.at("times2"), {Floats({1, 3}, {1, 2, 3})}, {});
  EXPECT_EQ(ReplayCode(Arrivals({0, 1})), StatusCode::kInvalidArgument);
}

TEST_F(LoadDriverTest, WhatMakesNoSenseIsRefusedBeforeAnythingRuns) {
  EXPECT_EQ(ReplayCode(Arrivals({0, 2})), StatusCode::kInvalidArgument);
  Json command = Arrivals({0, 1});
  command["tenants"].push_back(0);
  EXPECT_EQ(ReplayCode(command), StatusCode::kInvalidArgument);
  command = Arrivals({0, 1});
  command["deadlines_ms"] = {5};
  EXPECT_EQ(ReplayCode(command), StatusCode::kInvalidArgument);
  driver_.Forget("times3");
  EXPECT_EQ(ReplayCode(Arrivals({0})), StatusCode::kNotFound);
  Prepare("times3", {});
  command = Clients();
  command["clients"][0]["which"] = {7};
  EXPECT_EQ(driver_.RunClients(command).status().code(), StatusCode::kInvalidArgument);
  command["clients"][0]["which"] = Json::array();
  EXPECT_EQ(driver_.RunClients(command).status().code(), StatusCode::kInvalidArgument);
  command = Clients();
  command["clients"][1]["in_flight"] = 0;
  EXPECT_EQ(driver_.RunClients(command).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(runtime_->dispatcher().stats().jobs_submitted, 0u);
}

TEST_F(LoadDriverTest, ClientsAskInTurnAndWhatEndsInTimeIsTold) {
  const Result<Json> answer = driver_.RunClients(Clients());
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->at("rel_err"), 0);
  ASSERT_EQ(answer->at("clients").size(), 2u);
  size_t told = 0;
  for (const Json& client : answer->at("clients")) {
    EXPECT_EQ(client.at("latency_ms").size(), client.at("which").size());
    told += client.at("which").size();
  }
  for (const Json& index : answer->at("clients")[1].at("which")) EXPECT_EQ(index, 1);
  EXPECT_LE(told, runtime_->dispatcher().stats().jobs_done);
}

class SharingLoadDriverTest : public LoadDriverTest {
 protected:
  SharingLoadDriverTest() : LoadDriverTest(true) {}
};

// All of them are due at once, so some find an equal one under way.
TEST_F(SharingLoadDriverTest, HowOftenWorkWasDoneOnceForManyIsTold) {
  uint64_t joined = 0;
  for (int i = 0; i < 100 && joined == 0; ++i) {
    Json command = Arrivals(std::vector<size_t>(200, 0));
    for (Json& at : command["arrivals_ms"]) at = 0;
    const Result<Json> answer = driver_.Replay(command);
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
    EXPECT_EQ(answer->at("rel_err"), 0);
    joined = answer->at("joined").get<uint64_t>();
  }
  EXPECT_GT(joined, 0u);
}

}  // namespace
}  // namespace plexus
