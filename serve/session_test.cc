// Sessions as a client sees them, on a real runtime but without sockets.
#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "serve/compression.h"
#include "serve/test_runtime.h"
#include "serve/v2_api.h"

namespace plexus {
namespace {

// Adds up what it is sent; fails on numbers of 1000 and more.
constexpr char kSum[] = R"(
name: sum
inputs: [{name: x, dtype: INT64, shape: [1]}]
state: [{name: total, dtype: INT64, shape: [1], next: more}]
idle_seconds: 600
stages:
  - {name: table, op: constant, dtype: INT64, shape: [1000]}
  - {name: checked, op: gather, inputs: [table, x]}
  - {name: more, op: add, inputs: [total, x]}
outputs:
  - {name: total, from: more}
  - {name: checked, from: checked}
)";

struct Fixture {
  explicit Fixture(std::unique_ptr<Runtime> own, V2ApiOptions options = {},
                   const std::string& yaml = kSum)
      : runtime(std::move(own)), repository(folder.path(), *runtime) {
    folder.Write("pipelines/sum.yaml", yaml);
    folder.Write("same/model.onnx", IdentityModel());
    api = std::make_unique<V2Api>(*runtime, repository, tenants, options);
    std::promise<void> loaded;
    api->LoadRepository([&loaded] { loaded.set_value(); });
    loaded.get_future().get();
  }
  explicit Fixture(V2ApiOptions options = {}) : Fixture(RealRuntime(), options) {}
  static std::unique_ptr<Runtime> RealRuntime() {
    RuntimeOptions options;
    options.threads = 1;
    return Runtime::Create(options).value();
  }

  using Answer = std::shared_future<HttpResponse>;
  // `parameters` as JSON members: "\"sequence_id\":5".
  Answer Start(int64_t x, const std::string& parameters, const std::string& tenant = "",
               std::shared_ptr<CancelToken>* token = nullptr) {
    const std::string body = R"({"inputs":[{"name":"x","datatype":"INT64","shape":[1],"data":[)" +
                             std::to_string(x) + R"(]}],"parameters":{)" + parameters +
                             R"(},"outputs":[{"name":"total"}]})";
    HttpRequest request;
    request.method = "POST";
    request.path = "/v2/models/sum/infer";
    request.tenant = tenant;
    request.received = runtime->clock().Now();
    request.body = AllocateBody(body.size(), 0).value();
    std::memcpy(request.body.data, body.data(), body.size());
    auto promise = std::make_shared<std::promise<HttpResponse>>();
    auto made = api->Handle(std::move(request), [promise](HttpResponse response) {
      promise->set_value(std::move(response));
    });
    if (token != nullptr) *token = std::move(made);
    return promise->get_future().share();
  }
  // The total, or the status and the error.
  static std::string Said(const Answer& answer) {
    const HttpResponse& response = answer.get();
    if (response.status != 200) return std::to_string(response.status) + " " + response.body;
    const size_t at = response.body.find("\"data\":[") + 8;
    return response.body.substr(at, response.body.find(']', at) - at);
  }
  std::string Send(int64_t x, const std::string& parameters, const std::string& tenant = "") {
    return Said(Start(x, parameters, tenant));
  }

  TestFolder folder;
  std::unique_ptr<Runtime> runtime;
  ModelRepository repository;
  TenantTable tenants;
  std::unique_ptr<V2Api> api;
};

constexpr char kStart[] = R"("sequence_id":5,"sequence_start":true)";
constexpr char kNext[] = R"("sequence_id":5)";
constexpr char kEnd[] = R"("sequence_id":5,"sequence_end":true)";

bool Holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Session, StateLastsFromStartToEnd) {
  Fixture f;
  EXPECT_EQ(f.Send(1, kStart), "1");
  EXPECT_EQ(f.Send(2, kNext), "3");
  EXPECT_EQ(f.Send(3, kEnd), "6");
  const std::string gone = f.Send(4, kNext);
  EXPECT_TRUE(Holds(gone, "400")) << gone;
  EXPECT_TRUE(Holds(gone, "sequence 5 of 'sum' is not there")) << gone;
}

TEST(Session, IdsAreNumbersOrTextsAndBelongToTheirTenant) {
  Fixture f;
  EXPECT_EQ(f.Send(1, kStart), "1");
  EXPECT_EQ(f.Send(10, R"("sequence_id":"5","sequence_start":true)"), "10");
  EXPECT_EQ(f.Send(1, R"("sequence_id":"5")"), "11");
  EXPECT_EQ(f.Send(100, kStart, "shop"), "100");
  EXPECT_EQ(f.Send(1, kNext, "shop"), "101");
  EXPECT_EQ(f.Send(1, kNext), "2");
  EXPECT_TRUE(Holds(f.Send(1, kNext, "other"), "is not there"));
}

TEST(Session, ARequestWithoutAnIdIsRefused) {
  Fixture f;
  for (const char* parameters :
       {"", R"("sequence_id":0)", R"("sequence_id":"")", R"("sequence_start":true)"}) {
    const std::string said = f.Send(1, parameters);
    EXPECT_TRUE(Holds(said, "400") && Holds(said, "'sequence_id' must say whose")) << said;
  }
  EXPECT_TRUE(Holds(f.Send(1, R"("sequence_id":[1])"), "neither a whole number nor a text"));
}

TEST(Session, AStartOfARunningSessionBeginsAnew) {
  Fixture f;
  EXPECT_EQ(f.Send(1, kStart), "1");
  EXPECT_EQ(f.Send(7, kStart), "7");
  EXPECT_EQ(f.Send(1, kNext), "8");
}

TEST(Session, OnlyARequestThatSucceedsChangesTheState) {
  Fixture f;
  EXPECT_TRUE(Holds(f.Send(5000, kStart), "pipeline 'sum': ")) << "fails at run time";
  EXPECT_TRUE(Holds(f.Send(1, kNext), "is not there")) << "a failed start starts nothing";
  EXPECT_EQ(f.Send(1, kStart), "1");
  EXPECT_TRUE(Holds(f.Send(5000, kEnd), "400"));
  EXPECT_EQ(f.Send(1, kNext), "2");
}

TEST(Session, AReloadedPipelineHasNoSessions) {
  Fixture f;
  EXPECT_EQ(f.Send(1, kStart), "1");
  ASSERT_TRUE(f.repository.Load("sum").ok());
  EXPECT_TRUE(Holds(f.Send(1, kNext), "is not there"));
}

TEST(Session, MetadataHasNoStateAndTheConfigSaysThatThereIsOne) {
  Fixture f;
  const auto get = [&](const std::string& path) {
    HttpRequest request;
    request.method = "GET";
    request.path = path;
    std::string body;
    f.api->Handle(std::move(request), [&](HttpResponse r) { body = std::move(r.body); });
    return body;
  };
  EXPECT_FALSE(Holds(get("/v2/models/sum"), "\"name\":\"next"));
  EXPECT_TRUE(Holds(get("/v2/models/sum/config"),
                    R"("sequence_batching":{"max_sequence_idle_microseconds":600000000})"));
  EXPECT_FALSE(Holds(get("/v2/models/same/config"), "sequence_batching"));
}

TEST(Session, APipelineThatKeepsStateIsNoMemberOfAGroup) {
  Fixture f;
  const auto group = f.repository.FindGroup({"sum", "same"});
  EXPECT_EQ(group.status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Holds(group.status().message(), "'sum' keeps state")) << group.status().message();
}

// On a runtime that answers when it is told to: output i is input i.
struct HeldFixture : Fixture {
  HeldFixture()
      : Fixture(std::make_unique<TestRuntime>(), {},
                std::string(kSum).substr(0, std::string(kSum).find("  - {name: checked, from"))) {
    test().Hold();
  }
  TestRuntime& test() { return static_cast<TestRuntime&>(*runtime); }
  static bool Answered(const Answer& answer) {
    return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
};

TEST(Session, RequestsOfOneSessionRunOneAtATimeAndThoseOfOthersBeside) {
  HeldFixture f;
  const auto first = f.Start(1, kStart), second = f.Start(2, kNext);
  const auto other = f.Start(3, R"("sequence_id":6,"sequence_start":true)");
  f.test().WaitForStarts(2);
  EXPECT_EQ(f.test().last_inputs()[0].data<int64_t>()[0], 3) << "not the second of session 5";
  f.test().Release();
  EXPECT_EQ(f.Said(first), "1");
  EXPECT_EQ(f.Said(second), "2");
  EXPECT_EQ(f.Said(other), "3");
}

TEST(Session, ARequestThatWaitsForItsTurnIsAnsweredWhenItIsCancelled) {
  HeldFixture f;
  std::shared_ptr<CancelToken> token;
  const auto first = f.Start(1, kStart), second = f.Start(2, kNext, "", &token);
  const auto third = f.Start(3, kNext);
  token->Cancel(CancelledError("nobody waits"));
  EXPECT_TRUE(Holds(f.Said(second), "nobody waits"));
  f.test().Release();
  EXPECT_EQ(f.Said(first), "1");
  EXPECT_EQ(f.Said(third), "3");
}

TEST(Session, ARequestThatWaitsForItsTurnIsAnsweredWhenItsTimeHasPassed) {
  HeldFixture f;
  const auto first = f.Start(1, kStart);
  const auto second = f.Start(2, std::string(kNext) + R"(,"timeout":1000)");
  EXPECT_TRUE(Holds(f.Said(second), "504"));
  EXPECT_FALSE(f.Answered(first));
  f.test().Release();
  EXPECT_EQ(f.Said(first), "1");
}

TEST(Session, ARemovedTenantsEndAtOnce) {
  Fixture f;
  EXPECT_EQ(f.Send(1, kStart, "shop"), "1");
  EXPECT_EQ(f.Send(10, kStart, "other"), "10");
  const TenantId shop = f.tenants.Forget("shop").value();
  const V2Api::Removed removed = f.api->RemoveTenant(shop, "shop", CancelledError("removed"));
  EXPECT_EQ(removed.requests, 0u);
  EXPECT_EQ(removed.sessions, 1u);
  EXPECT_EQ(f.api->session_stats().sessions, 1u);
  EXPECT_TRUE(Holds(f.Send(2, kNext, "shop"), "is not there")) << "whoever has the name now";
  EXPECT_EQ(f.Send(2, kNext, "other"), "12");
}

TEST(Session, ARemovedTenantsRequestsEndWithTheirSession) {
  HeldFixture f;
  const auto runs = f.Start(1, kStart, "shop"), waits = f.Start(2, kNext, "shop");
  const auto other = f.Start(5, kStart, "other");
  f.test().WaitForStarts(2);
  const TenantId shop = f.tenants.Forget("shop").value();
  const V2Api::Removed removed = f.api->RemoveTenant(shop, "shop", CancelledError("removed"));
  EXPECT_EQ(removed.requests, 2u);
  EXPECT_EQ(removed.sessions, 0u) << "the first request has not ended";
  for (const auto& answer : {runs, waits}) {
    EXPECT_TRUE(Holds(f.Said(answer), "503") && Holds(f.Said(answer), "removed"));
  }
  f.test().Release();
  EXPECT_EQ(f.Said(other), "5");
  EXPECT_EQ(f.Send(3, kStart, "shop"), "3") << "another begins anew";
}

TEST(Session, ThereAreLimits) {
  V2ApiOptions options;
  options.sessions.max_sessions = 1;
  Fixture f(options);
  EXPECT_EQ(f.Send(1, kStart), "1");
  const std::string full = f.Send(1, R"("sequence_id":6,"sequence_start":true)");
  EXPECT_TRUE(Holds(full, "503") && Holds(full, "the server holds 1 sessions, its limit")) << full;
  EXPECT_EQ(f.Send(1, kEnd), "2");
  EXPECT_EQ(f.Send(1, R"("sequence_id":6,"sequence_start":true)"), "1");
}

}  // namespace
}  // namespace plexus
