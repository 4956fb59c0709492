#include "serve/http_server.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "serve/test_connection.h"

namespace plexus {
namespace {

// Answers "METHOD path body-size:body"; /hold waits until Release.
class EchoHandler : public HttpHandler {
 public:
  class Token : public CancelToken {
   public:
    explicit Token(EchoHandler& owner) : owner_(owner) {}
    void Cancel(Status) override {
      std::lock_guard lock(owner_.mutex_);
      ++owner_.cancels_;
      owner_.changed_.notify_all();
    }
    bool cancelled() const override { return false; }

   private:
    EchoHandler& owner_;
  };

  std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) override {
    HttpResponse response;
    response.content_type = "text/plain";
    response.body = request.method + " " + request.path + " " +
                    std::to_string(request.body.size_bytes) + ":" +
                    std::string(reinterpret_cast<const char*>(request.body.data),
                                std::min<size_t>(request.body.size_bytes, 100));
    if (request.path == "/payload" || request.path == "/stalls") {
      // More than the sockets buffer: a client that does not read stalls the write.
      auto text =
          std::make_shared<std::string>(request.path == "/stalls" ? 64 << 20 : 3 << 20, 'p');
      response.payload.push_back({text, reinterpret_cast<std::byte*>(text->data()), text->size()});
    }
    {
      std::lock_guard lock(mutex_);
      aligned_ = (reinterpret_cast<uintptr_t>(request.body.data) + kJsonBytes) % 64 == 0;
      ++requests_;
      changed_.notify_all();
      if (request.path == "/hold") {
        held_.push_back([respond, response] { respond(response); });
        return std::make_shared<Token>(*this);
      }
    }
    respond(std::move(response));
    return nullptr;
  }

  void Release() {
    std::deque<std::function<void()>> held;
    {
      std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (const auto& answer : held) answer();
  }
  void WaitForRequests(int n) { Wait(requests_, n); }
  void WaitForCancels(int n) { Wait(cancels_, n); }
  bool aligned() {
    std::lock_guard lock(mutex_);
    return aligned_;
  }

  static constexpr size_t kJsonBytes = 37;

 private:
  void Wait(const int& counter, int n) {
    std::unique_lock lock(mutex_);
    PLEXUS_CHECK(changed_.wait_for(lock, std::chrono::minutes(1), [&] { return counter >= n; }));
  }

  std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  std::deque<std::function<void()>> held_;
  int requests_ = 0, cancels_ = 0;
  bool aligned_ = false;
};

struct Fixture {
  explicit Fixture(const HttpOptions& options = {}) : server(options, RealClock::Get()) {
    port = server.Listen("127.0.0.1", 0, &handler).value();
  }
  // The server's thread ends before the handler goes.
  ~Fixture() {
    server.Stop();
    handler.Release();
  }
  EchoHandler handler;
  HttpServer server;
  uint16_t port = 0;
};

TEST(HttpServer, AnswersManyRequestsOnOneConnection) {
  Fixture f;
  TestConnection client(f.port);
  for (int i = 0; i < 5; ++i) {
    const auto response = client.Call(Post("/a?x=1", "hello"));
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "POST /a 5:hello");
  }
  EXPECT_EQ(f.server.stats().accepted, 1u);
  EXPECT_EQ(f.server.stats().requests, 5u);
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  Fixture f;
  TestConnection client(f.port);
  client.Send(Post("/hold", "1") + Post("/b", "22") + Get("/c"));
  f.handler.WaitForRequests(1);
  f.handler.Release();
  EXPECT_EQ(client.Read().body, "POST /hold 1:1");
  EXPECT_EQ(client.Read().body, "POST /b 2:22");
  EXPECT_EQ(client.Read().body, "GET /c 0:");
}

TEST(HttpServer, ReadsARequestThatComesByteByByte) {
  Fixture f;
  TestConnection client(f.port);
  for (const char c : Post("/a", "xyz")) client.Send(std::string_view(&c, 1));
  EXPECT_EQ(client.Read().body, "POST /a 3:xyz");
}

TEST(HttpServer, ReadsChunkedBodies) {
  Fixture f;
  TestConnection client(f.port);
  const auto response = client.Call(
      "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n" +
      Get("/next"));
  EXPECT_EQ(response.body, "POST /a 11:hello world");
  EXPECT_EQ(client.Read().body, "GET /next 0:");
}

TEST(HttpServer, TakesAPostWithoutLengthAsEmpty) {
  Fixture f;
  TestConnection client(f.port);
  EXPECT_EQ(client.Call("POST /a HTTP/1.1\r\n\r\n").body, "POST /a 0:");
  EXPECT_EQ(client.Call(Get("/b")).status, 200);
}

TEST(HttpServer, AnswersHeadWithoutABody) {
  Fixture f;
  TestConnection client(f.port);
  client.Send("HEAD /a HTTP/1.1\r\n\r\n");
  const auto response = client.Read(true);
  EXPECT_EQ(response.status, 200);
  EXPECT_NE(response.head.find("Content-Length: 9"), std::string::npos) << response.head;
  EXPECT_EQ(client.Call(Get("/b")).body, "GET /b 0:");
}

TEST(HttpServer, SaysContinueToAClientThatExpectsIt) {
  Fixture f;
  TestConnection client(f.port);
  client.Send("POST /a HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.Read().status, 100);
  client.Send("ok");
  EXPECT_EQ(client.Read().body, "POST /a 2:ok");
}

TEST(HttpServer, SendsLargePayloadsWhole) {
  Fixture f;
  TestConnection client(f.port);
  const auto response = client.Call(Get("/payload"));
  EXPECT_EQ(response.body, "GET /payload 0:" + std::string(3 << 20, 'p'));
}

TEST(HttpServer, ReceivesLargeBodiesWithTheirTensorsAligned) {
  Fixture f;
  TestConnection client(f.port);
  const std::string body(5 << 20, 'b');
  const std::string header =
      "Inference-Header-Content-Length: " + std::to_string(EchoHandler::kJsonBytes) + "\r\n";
  EXPECT_EQ(client.Call(Post("/a", body, header)).body,
            "POST /a " + std::to_string(body.size()) + ":" + std::string(100, 'b'));
  EXPECT_TRUE(f.handler.aligned());
}

TEST(HttpServer, ClosesWhenTheClientAsksForIt) {
  Fixture f;
  TestConnection client(f.port);
  EXPECT_EQ(client.Call("GET /a HTTP/1.1\r\nConnection: close\r\n\r\n").status, 200);
  EXPECT_TRUE(client.ReadEnd());
  TestConnection old(f.port);
  EXPECT_EQ(old.Call("GET /a HTTP/1.0\r\n\r\n").status, 200);
  EXPECT_TRUE(old.ReadEnd());
}

TEST(HttpServer, CancelsARequestWhoseClientDisconnects) {
  Fixture f;
  {
    TestConnection client(f.port);
    client.Send(Post("/hold", "1"));
    f.handler.WaitForRequests(1);
  }
  f.handler.WaitForCancels(1);
  EXPECT_EQ(f.server.stats().disconnects, 1u);
  f.handler.Release();  // the late answer finds nobody
  EXPECT_EQ(TestConnection(f.port).Call(Get("/after")).status, 200);
}

TEST(HttpServer, ClosesAClientThatStalls) {
  HttpOptions options;
  options.read_timeout = std::chrono::milliseconds(50);
  Fixture f(options);
  for (const char* part : {"POST /a HT", "POST /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc",
                           "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"}) {
    TestConnection client(f.port);
    EXPECT_EQ(client.Call(part).status, 408) << part;
    EXPECT_TRUE(client.ReadEnd());
  }
}

TEST(HttpServer, ClosesAnIdleConnection) {
  HttpOptions options;
  options.idle_timeout = std::chrono::milliseconds(50);
  Fixture f(options);
  TestConnection client(f.port);
  EXPECT_EQ(client.Call(Get("/a")).status, 200);
  EXPECT_TRUE(client.ReadEnd());
}

TEST(HttpServer, RefusesWhatIsTooLarge) {
  HttpOptions options;
  options.max_body_bytes = 1000;
  options.max_header_bytes = 500;
  options.max_connections = 1000;
  Fixture f(options);
  struct Case {
    const char* what;
    std::string request;
    int status;
    const char* message;
  };
  const std::string chunked = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  const Case cases[] = {
      {"announced", "POST /a HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413,
       "larger than the limit of 1000 bytes"},
      {"sent", Post("/a", std::string(100000, 'x')), 413, "larger than the limit of 1000"},
      {"absurd", "POST /a HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n", 413, "larger"},
      {"chunked",
       "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'x') +
           "\r\n0\r\n\r\n",
       413, "larger"},
      {"header", "GET /a HTTP/1.1\r\nX: " + std::string(600, 'x') + "\r\n\r\n", 431,
       "header is larger than the limit of 500"},
      {"endless header", "GET /a HTTP/1.1\r\nX: " + std::string(60000, 'x'), 431, "header"},
      {"endless chunk extension", chunked + "5;" + std::string(60000, 'x'), 431,
       "chunk header or trailer is larger than the limit of 500"},
      {"endless chunk size", chunked + std::string(60000, '0'), 431, "chunk header"},
      {"endless trailer", chunked + "0\r\nX: " + std::string(60000, 'x'), 431, "trailer"},
  };
  for (const Case& c : cases) {
    TestConnection client(f.port);
    const auto response = client.Call(c.request);
    EXPECT_EQ(response.status, c.status) << c.what;
    EXPECT_NE(response.body.find(c.message), std::string::npos) << c.what << response.body;
    EXPECT_TRUE(client.ReadEnd()) << c.what;
  }
  EXPECT_EQ(TestConnection(f.port).Call(Post("/a", std::string(1000, 'x'))).status, 200);
}

TEST(HttpServer, RefusesGarbage) {
  Fixture f;
  for (const std::string& garbage :
       {std::string("\x16\x03\x01\x02\x00\x01\x00", 7), std::string("hello\r\n\r\n"),
        std::string("GET /a HTTP/9.9\r\n\r\n"), std::string("GET  HTTP/1.1\r\n\r\n"),
        std::string("POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string("POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        std::string("POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        std::string("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        std::string(2000, '\0')}) {
    TestConnection client(f.port);
    const auto response = client.Call(garbage);
    EXPECT_EQ(response.status, 400) << garbage << response.body;
    EXPECT_TRUE(client.ReadEnd()) << garbage;
  }
  EXPECT_EQ(TestConnection(f.port).Call(Get("/a")).status, 200);
}

TEST(HttpServer, RefusesConnectionsBeyondItsLimit) {
  HttpOptions options;
  options.max_connections = 1;
  Fixture f(options);
  TestConnection first(f.port);
  EXPECT_EQ(first.Call(Get("/a")).status, 200);
  TestConnection second(f.port);
  EXPECT_EQ(second.Read().status, 503);
  EXPECT_TRUE(second.ReadEnd());
  EXPECT_EQ(first.Call(Get("/a")).status, 200);
}

TEST(HttpServer, AFullPortLeavesAnotherOneAlone) {
  HttpOptions options;
  options.max_connections = 1;
  Fixture f(options);
  const uint16_t other = f.server.Listen("127.0.0.1", 0, &f.handler, 2).value();
  TestConnection first(f.port);
  EXPECT_EQ(first.Call(Get("/a")).status, 200);
  TestConnection one(other), two(other), three(other);
  EXPECT_EQ(one.Call(Get("/a")).status, 200);
  EXPECT_EQ(two.Call(Get("/a")).status, 200);
  EXPECT_EQ(three.Read().status, 503);
}

TEST(HttpServer, ConnectionsThatWereRefusedDoNotPileUp) {
  HttpOptions options;
  options.max_connections = 1;
  Fixture f(options);
  TestConnection first(f.port);
  EXPECT_EQ(first.Call(Get("/a")).status, 200);
  std::deque<TestConnection> flood;
  int told = 0;
  for (int i = 0; i < 40; ++i) {
    flood.emplace_back(f.port);
    told += flood.back().Read().status == 503;
  }
  EXPECT_EQ(told, 16);
  EXPECT_LE(f.server.stats().connections, 17u);
  EXPECT_EQ(first.Call(Get("/a")).status, 200);
}

TEST(HttpServer, RefusesBodiesBeyondWhatAllMayTake) {
  HttpOptions options;
  options.max_buffered_bytes = 100;
  Fixture f(options);
  TestConnection first(f.port);
  first.Send(Post("/hold", std::string(80, 'x')));
  f.handler.WaitForRequests(1);
  EXPECT_EQ(TestConnection(f.port).Call(Post("/a", std::string(30, 'x'))).status, 503);
  f.handler.Release();
  EXPECT_EQ(first.Read().status, 200);
  EXPECT_EQ(first.Call(Post("/a", std::string(90, 'x'))).status, 200);
}

TEST(HttpServer, DrainFinishesWhatRunsAndClosesWhatIsIdle) {
  Fixture f;
  TestConnection idle(f.port), busy(f.port);
  EXPECT_EQ(idle.Call(Get("/a")).status, 200);
  busy.Send(Post("/hold", "1"));
  f.handler.WaitForRequests(2);
  f.server.BeginDrain();
  EXPECT_TRUE(idle.ReadEnd());
  // Still there for health checks, one request a connection.
  TestConnection late(f.port);
  EXPECT_EQ(late.Call(Get("/health")).status, 200);
  EXPECT_TRUE(late.ReadEnd());
  EXPECT_FALSE(f.server.WaitIdle(Duration(0)));
  f.handler.Release();
  EXPECT_TRUE(f.server.WaitIdle(std::chrono::minutes(1)));
  EXPECT_EQ(busy.Read().status, 200);
  EXPECT_TRUE(busy.ReadEnd());
}

TEST(HttpServer, DrainCountsAnAnswerThatIsBeingWrittenOnce) {
  Fixture f;
  TestConnection running(f.port), writing(f.port);
  running.Send(Post("/hold", "x"));
  writing.Send(Get("/stalls"));
  f.handler.WaitForRequests(2);
  f.server.BeginDrain();
  EXPECT_EQ(writing.Read().body.size(), (64u << 20) + std::string("GET /stalls 0:").size());
  EXPECT_TRUE(writing.ReadEnd());
  EXPECT_FALSE(f.server.WaitIdle(std::chrono::milliseconds(20)));
  f.handler.Release();
  EXPECT_TRUE(f.server.WaitIdle(std::chrono::minutes(1)));
  EXPECT_EQ(running.Read().status, 200);
}

TEST(HttpServer, CancelAllReachesEveryRunningRequest) {
  Fixture f;
  TestConnection one(f.port), two(f.port);
  one.Send(Post("/hold", "1"));
  two.Send(Post("/hold", "2"));
  f.handler.WaitForRequests(2);
  f.server.CancelAll(UnavailableError("enough"));
  f.handler.WaitForCancels(2);
}

TEST(HttpServer, SaysWhyItCannotListen) {
  Fixture f;
  EchoHandler handler;
  EXPECT_EQ(f.server.Listen("127.0.0.1", f.port, &handler).status().code(),
            StatusCode::kAlreadyExists);
  EXPECT_EQ(f.server.Listen("no.such.host", 0, &handler).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(f.server.Listen("203.0.113.1", 0, &handler).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace plexus
