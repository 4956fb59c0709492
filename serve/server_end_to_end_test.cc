// A server on a real runtime: what a client sees of a request that runs on the device.
#include <gtest/gtest.h>

#include <future>
#include <thread>

#include "graph/onnx/wire_writer.h"
#include "serve/server.h"
#include "serve/test_connection.h"
#include "serve/test_runtime.h"

namespace plexus {
namespace {

// y = x (x x^T) (x x^T) ...: many seconds of matrix products in one region.
std::string LongModel(int products) {
  using onnx::BytesField;
  using onnx::IntField;
  std::string nodes, from = "x";
  for (int i = 0; i < products; ++i) {
    const std::string to = i + 1 == products ? "y" : "v" + std::to_string(i);
    nodes += onnx::NodeField("MatMul", {from, "x"}, {to}, "", "product" + std::to_string(i));
    from = to;
  }
  const auto info = [](std::string_view name) {
    const std::string dim = BytesField(1, BytesField(2, "n"));
    const std::string type = BytesField(1, IntField(1, 1) + BytesField(2, dim + dim));
    return BytesField(1, name) + BytesField(2, type);
  };
  return onnx::ModelBytes(nodes + BytesField(2, "long") + BytesField(11, info("x")) +
                          BytesField(12, info("y")));
}

TEST(ServerEndToEnd, ARequestGivenUpAtTheDrainLimitIsAnswered503) {
  TestFolder folder;
  folder.Write("long/model.onnx", LongModel(2000));
  RuntimeOptions runtime_options;
  runtime_options.threads = 1;
  auto runtime = Runtime::Create(runtime_options).value();
  ServerOptions options;
  options.repository = folder.path();
  options.http_port = 0;
  std::promise<void> loaded;
  auto server = Server::Start(*runtime, options, [&] { loaded.set_value(); }).value();
  loaded.get_future().get();

  constexpr int kSize = 1024;
  std::string request =
      R"({"inputs":[{"name":"x","datatype":"FP32","shape":[1024,1024],)"
      R"("parameters":{"binary_data_size":4194304}}],"parameters":{"binary_data_output":true}})";
  const std::string header =
      "Inference-Header-Content-Length: " + std::to_string(request.size()) + "\r\n";
  request.append(size_t{kSize} * kSize * 4, '\0');
  TestConnection client(server->http_port());
  ASSERT_TRUE(client.Send(Post("/v2/models/long/infer", request, header)));
  // Until it runs on the device.
  while (runtime->dispatcher().stats().running == 0) std::this_thread::yield();

  EXPECT_FALSE(server->Drain(std::chrono::milliseconds(1)));
  const TestConnection::Response response = client.Read();
  EXPECT_EQ(response.status, 503) << response.body;
  EXPECT_NE(response.body.find("shutting down"), std::string::npos) << response.body;
  EXPECT_EQ(runtime->dispatcher().stats().jobs_cancelled, 1u);
}

}  // namespace
}  // namespace plexus
