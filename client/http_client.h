// A small HTTP/1.1 client: one keep-alive connection, blocking calls with a time limit.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace plexus {

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// Thread-compatible. The connection is made by the first call and again after a failure.
class HttpClient {
 public:
  // "http://host[:port]" (port 80 by default) or "host:port"; kInvalidArgument for anything else.
  static Result<HttpClient> Create(std::string_view url);
  ~HttpClient();
  HttpClient(HttpClient&& other) noexcept;
  HttpClient& operator=(HttpClient&&) = delete;

  using Headers = std::vector<std::pair<std::string, std::string>>;
  // `path` begins with '/', already percent-encoded. Any HTTP status is a reply. kUnavailable when
  // the server cannot be reached or hangs up, kDeadlineExceeded after `limit`.
  Result<HttpReply> Call(std::string_view method, std::string_view path, const Headers& headers,
                         std::string_view body, Duration limit = std::chrono::seconds(300));

 private:
  HttpClient(std::string host, std::string port) : host_(std::move(host)), port_(std::move(port)) {}

  Status Connect(TimePoint deadline);
  Status Wait(short events, TimePoint deadline) const;
  Status Send(std::string_view data, TimePoint deadline);
  Result<HttpReply> Receive(bool head, TimePoint deadline);
  Status Broken(const char* what) const;
  void Close();

  std::string host_, port_;
  int socket_ = -1;
};

}  // namespace plexus
