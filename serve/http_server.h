// An HTTP/1.1 server: one thread that moves bytes between sockets and handlers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "serve/http.h"

namespace plexus {

struct HttpOptions {
  size_t max_body_bytes = size_t{64} << 20;  // as sent; more is answered 413
  // More is answered 431; so is a longer line before a chunk of a body, or a longer trailer.
  size_t max_header_bytes = 32 << 10;
  // Bytes of request bodies held at once, over all connections; more is answered 503.
  size_t max_buffered_bytes = size_t{2} << 30;
  // Of one port; more are answered 503 and closed, at most 16 at a time, and further ones closed.
  size_t max_connections = 1024;
  // A request whose header takes longer than this, or whose body or response stands still for this
  // long, is given up (408 while it was read).
  Duration read_timeout = std::chrono::seconds(30);
  Duration write_timeout = std::chrono::seconds(30);
  Duration idle_timeout = std::chrono::seconds(75);  // between two requests
};

struct HttpStats {
  size_t connections = 0;  // open now
  size_t busy = 0;         // of these, with a request that has no complete response yet
  uint64_t accepted = 0, requests = 0, disconnects = 0;  // disconnects: while a request ran
};

// Keep-alive, pipelined requests (answered one at a time, in order), chunked bodies,
// Expect: 100-continue. A response goes out in one write. While a request runs the socket is still
// read: when the client goes away, the request's token is cancelled. All methods are thread-safe.
class HttpServer {
 public:
  // Time stamps of requests come from `clock`, which outlives the server.
  HttpServer(const HttpOptions& options, const Clock& clock);
  ~HttpServer();  // Stop()

  // Serves `handler` (borrowed) on host:port; port 0 picks a free one, which is returned.
  // kAlreadyExists when the port is in use, kPermissionDenied, kInvalidArgument for a host that is
  // no local address. Connections of one port leave those of another alone; `max_connections`
  // replaces the options' limit for this one.
  Result<uint16_t> Listen(const std::string& host, uint16_t port, HttpHandler* handler,
                          std::optional<size_t> max_connections = std::nullopt);

  // From now on every response closes its connection, idle connections close at once, and new ones
  // are still answered.
  void BeginDrain();
  // True when no request is being answered, at most `limit` later.
  bool WaitIdle(Duration limit);
  // Gives up every request that runs.
  void CancelAll(const Status& why);
  // Closes everything and ends the thread. No handler is called afterwards.
  void Stop();

  HttpStats stats() const;

 private:
  class Core;
  class Session;
  class Acceptor;
  std::unique_ptr<Core> core_;
};

}  // namespace plexus
