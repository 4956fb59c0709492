#include "serve/server_config.h"

#include <gtest/gtest.h>

#include "serve/server.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

TEST(ServerConfig, ReadsPolicyDropLateAndWeights) {
  const ServerConfig config = ParseServerConfig(R"(
policy: fair(stretch, 1000)
drop_late: true
tenants:
  shop: {weight: 3}
  reports: {weight: 0.5}
  plain: {}
)",
                                                "plexus.yaml")
                                  .value();
  EXPECT_EQ(config.policy, "fair(stretch, 1000)");
  EXPECT_EQ(config.drop_late, true);
  EXPECT_EQ(config.tenant_weights,
            (std::map<std::string, double>{{"shop", 3}, {"reports", 0.5}, {"plain", 1}}));
  for (const char* empty : {"", " \n", "{}"}) {
    const ServerConfig none = ParseServerConfig(empty, "plexus.yaml").value();
    EXPECT_FALSE(none.policy || none.drop_late || !none.tenant_weights.empty());
  }
}

TEST(ServerConfig, SaysWhatIsWrongAndWhere) {
  const std::pair<const char*, const char*> cases[] = {
      {"policy: lifo", "unknown policy 'lifo'"},
      {"policy: fair(srpt, .nan)", "at least 0, or inf"},
      {"policy: [fifo]", "policy"},
      {"drop_late: sometimes", "drop_late"},
      {"polic: fifo", "polic"},
      {"tenants: [a]", "tenants"},
      {"tenants: {a: 3}", "tenant 'a'"},
      {"tenants: {a: {weight: -3}}", "from 0.001 to 1000000"},
      {"tenants: {a: {weight: 0}}", "from 0.001 to 1000000"},
      {"tenants: {a: {weight: .nan}}", "weight"},
      {"tenants: {a: {weight: heavy}}", "weight"},
      {"tenants: {a: {wait: 3}}", "wait"},
      {"tenants: {'a b': {weight: 3}}", "1 to 64 letters"},
      {"tenants: {'': {weight: 3}}", "1 to 64 letters"},
      {"]", "plexus.yaml"},
  };
  for (const auto& [text, reason] : cases) {
    const auto config = ParseServerConfig(text, "plexus.yaml");
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_EQ(config.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_NE(config.status().message().find("plexus.yaml"), std::string::npos) << text;
    EXPECT_NE(config.status().message().find(reason), std::string::npos)
        << text << ": " << config.status().message();
  }
  EXPECT_EQ(ReadServerConfig("/no/such/file.yaml").status().code(), StatusCode::kNotFound);
}

TEST(ServerConfig, WeightsReachTheSchedulerBeforeTheServerListens) {
  TestFolder folder;
  TestRuntime runtime;
  ServerOptions options;
  options.repository = folder.path();
  options.http_port = 0;
  options.tenant_weights = {{"shop", 3}};
  const auto server = Server::Start(runtime, options).value();
  EXPECT_EQ(runtime.dispatcher().tenant_stats(TenantId(1)).weight, 3);
  options.tenant_weights = {{"shop", -3}};
  EXPECT_EQ(Server::Start(runtime, options).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
