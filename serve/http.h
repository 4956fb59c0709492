// What an HTTP server and a handler exchange; knows nothing of sockets.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "pipeline/runtime.h"

namespace plexus {

// Bytes and what keeps them alive. Copying shares them.
struct SharedBytes {
  std::shared_ptr<const void> owner;
  std::byte* data = nullptr;
  size_t size_bytes = 0;
};

// Readable (not meaningful) bytes behind every received or decoded body: a parser may look ahead.
inline constexpr size_t kBodyPaddingBytes = 64;

struct HttpRequest {
  std::string method;  // "GET"; HEAD arrives as GET
  std::string path;    // without the query string, still percent-encoded
  std::string query;   // behind '?'
  // Values of the headers that handlers read; empty when absent.
  std::string content_encoding, accept_encoding, tenant;
  std::string tensor_header_length;  // Inference-Header-Content-Length
  bool has_tensor_header_length = false;
  SharedBytes body;  // followed by kBodyPaddingBytes
  TimePoint received{};
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;                  // goes first
  std::vector<SharedBytes> payload;  // follows the body, sent from where it lies
  bool close = false;                // the connection ends after this response
  std::shared_ptr<const void> held;  // let go when the response is sent

  size_t size_bytes() const;  // body and payload
};

// {"error": "..."} with the status that HttpStatusFor gives.
HttpResponse ErrorResponse(const Status& status);

// The one map from codes to HTTP: 500 internal, 404 not found, 503 unavailable, cancelled or out of
// a resource, 501 unimplemented, 504 deadline exceeded, else 400 (200 for OK).
int HttpStatusFor(StatusCode code);
const char* HttpReason(int status);

// Undoes %41; kInvalidArgument on a bad escape or a NUL.
Result<std::string> PercentDecode(std::string_view text);
// The value of `key` in "a=1&b=2", decoded; "" when absent.
Result<std::string> QueryValue(std::string_view query, std::string_view key);

// All of "a=1&b=2" in order, keys as they stand and values decoded; "" for a key without '='.
Result<std::vector<std::pair<std::string, std::string>>> QueryPairs(std::string_view query);

// 405 where only the methods `allowed` ("GET, POST") have an answer.
HttpResponse MethodNotAllowed(const HttpRequest& request, const std::string& allowed);

using Respond = std::function<void(HttpResponse)>;

// Thread-safe. Outlives every request that it was given.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // Calls `respond` exactly once, from any thread, maybe before it returns. Must not block. The
  // token (may be null) gives the request up when its client has gone.
  virtual std::shared_ptr<CancelToken> Handle(HttpRequest request, Respond respond) = 0;
};

}  // namespace plexus
