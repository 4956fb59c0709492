#include "serve/http_server.h"

#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/log.h"
#include "serve/compression.h"
#include "serve/http_body.h"

namespace plexus {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using tcp = boost::asio::ip::tcp;
using SteadyTime = std::chrono::steady_clock::time_point;

constexpr size_t kReadBytes = 16 << 10;
// Of pipelined requests, while one runs.
constexpr size_t kMaxReadAheadBytes = 64 << 10;
// Responses up to this size are joined with their header.
constexpr size_t kJoinedBytes = 8 << 10;
constexpr Duration kLinger = std::chrono::seconds(5);
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);
// Connections beyond a port's limit that are told so at once; a client may keep each of them open
// for kLinger. Further ones are closed without a word.
constexpr size_t kMaxRefused = 16;

using Parser = http::request_parser<AppendBody>;

HttpResponse PlainError(int status, const std::string& message) {
  HttpResponse response = ErrorResponse(InvalidArgumentError(message));
  response.status = status;
  response.close = true;
  return response;
}

std::string ToString(beast::string_view text) { return std::string(text.data(), text.size()); }

}  // namespace

// State of the io thread; only counters are read from others, under their mutex.
class HttpServer::Core {
 public:
  Core(const HttpOptions& options, const Clock& clock)
      : options_(options), clock_(clock), work_(asio::make_work_guard(io_)) {}

  void Start() {
    thread_ = std::thread([this] {
      // Handlers of ours throw nothing; what asio itself throws (no memory) must not end a process
      // that serves others.
      for (;;) {
        try {
          io_.run();
          return;
        } catch (const std::exception& e) {
          PLEXUS_LOG(kError) << "http: " << e.what();
        }
      }
    });
  }

  Result<uint16_t> Listen(const std::string& host, uint16_t port, HttpHandler* handler,
                          size_t max_connections);
  void BeginDrain();
  bool WaitIdle(Duration limit);
  void CancelAll(const Status& why);
  void Stop();

  void Add(const std::shared_ptr<Session>& session);
  void Remove(const std::shared_ptr<Session>& session);
  void CountBusy(int change);
  void CountRequest();
  void CountDisconnect();

  const HttpOptions options_;
  const Clock& clock_;
  asio::io_context io_{1};
  bool draining_ = false;      // io thread
  size_t buffered_bytes_ = 0;  // io thread
  std::set<std::shared_ptr<Session>> sessions_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;

  mutable std::mutex mutex_;  // guards stats_ and stopped_
  std::condition_variable idle_;
  HttpStats stats_;
  bool stopped_ = false;

 private:
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

// One connection. Everything happens on the io thread; at most one read and one write are pending.
class HttpServer::Session : public std::enable_shared_from_this<Session> {
 public:
  // `open`: how many connections the port has, this one included until it closes.
  Session(Core& core, tcp::socket socket, HttpHandler* handler, std::shared_ptr<size_t> open)
      : core_(core),
        handler_(handler),
        open_(std::move(open)),
        socket_(std::move(socket)),
        timer_(core.io_) {
    ++*open_;
  }

  void Start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    NextRequest();
  }
  // Answers without a request, then closes.
  void Refuse(HttpResponse response) {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    refused_ = true;
    Enter(State::kExecuting);
    Send(std::move(response));
  }
  void OnDrain() {
    if (state_ == State::kIdle) Close();
  }
  void CancelRequest(const Status& why) {
    if (token_ != nullptr) token_->Cancel(why);
  }
  void Close();

 private:
  enum class State {
    kIdle,       // between requests
    kHeader,     // part of a header has come
    kBody,       // of announced length: read straight into its memory
    kChunks,     // through the parser
    kExecuting,  // the handler has it
    kWriting,
    kLingering,  // all is said; waiting for the client to close
    kClosed,
  };

  // The only place where the state changes: a session that executes or writes counts as busy.
  void Enter(State state);
  void NextRequest();
  void Read();
  void OnRead(error_code ec, size_t bytes);
  void Process();
  void ParseHeader();
  void OnHeader();
  void ParseChunks();
  bool Charge(size_t bytes);
  void OnBodyComplete();
  void Dispatch();
  void OnParseError(error_code ec);
  void OnGone();
  void Send(HttpResponse response);
  void WriteSome();
  void OnWritten();
  void Linger();
  void SetDeadline(Duration in);
  void ArmTimer();
  void OnTimer();

  Core& core_;
  HttpHandler* const handler_;
  const std::shared_ptr<size_t> open_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  State state_ = State::kIdle;
  bool refused_ = false;

  // Reading.
  beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  BodyBuffer body_;  // kBody
  size_t body_expected_ = 0;
  size_t charged_bytes_ = 0;
  bool reading_ = false;
  HttpRequest request_;
  bool head_ = false;  // HEAD: the response goes without its body
  bool keep_alive_ = false;
  bool http_1_0_ = false;
  bool request_complete_ = false;  // what follows in the stream is the next request

  // Executing.
  uint64_t exchange_ = 0;  // tells a late answer from the current one
  std::shared_ptr<CancelToken> token_;

  // Writing.
  HttpResponse response_;
  std::string head_text_;
  std::vector<asio::const_buffer> to_write_;
  size_t written_parts_ = 0;

  SteadyTime deadline_ = SteadyTime::max();
  SteadyTime armed_for_ = SteadyTime::max();
};

class HttpServer::Acceptor {
 public:
  Acceptor(Core& core, HttpHandler* handler, size_t max_connections)
      : core_(core),
        handler_(handler),
        max_connections_(max_connections),
        acceptor_(core.io_),
        pause_(core.io_) {}

  Status Open(const std::string& host, uint16_t port);
  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void Accept();
  void Close() {
    error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  }

 private:
  Core& core_;
  HttpHandler* const handler_;
  const size_t max_connections_;
  const std::shared_ptr<size_t> open_ = std::make_shared<size_t>(0);
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
};

Status HttpServer::Acceptor::Open(const std::string& host, uint16_t port) {
  const std::string where = host + ":" + std::to_string(port);
  error_code ec;
  const asio::ip::address address =
      asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, ec);
  if (ec) return InvalidArgumentError("'" + host + "' is not an IP address to listen on");
  const tcp::endpoint endpoint(address, port);
  acceptor_.open(endpoint.protocol(), ec);
  if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) acceptor_.bind(endpoint, ec);
  if (!ec) acceptor_.listen(asio::socket_base::max_listen_connections, ec);
  if (!ec) return OkStatus();
  if (ec == asio::error::address_in_use) {
    return AlreadyExistsError("cannot listen on " + where + ": the port is in use");
  }
  const std::string message = "cannot listen on " + where + ": " + ec.message();
  if (ec == asio::error::access_denied) return PermissionDeniedError(message);
  return InvalidArgumentError(message);
}

void HttpServer::Acceptor::Accept() {
  acceptor_.async_accept([this](error_code ec, tcp::socket socket) {
    if (ec == asio::error::operation_aborted || !acceptor_.is_open()) return;
    if (ec) {
      // Out of file descriptors or memory: trying again at once would spin.
      PLEXUS_LOG(kWarning) << "http: accept: " << ec.message();
      pause_.expires_after(kAcceptPause);
      pause_.async_wait([this](error_code e) {
        if (!e) Accept();
      });
      return;
    }
    if (*open_ >= max_connections_ + kMaxRefused) {
      socket.close(ec);
      return Accept();
    }
    const bool full = *open_ >= max_connections_;
    auto session = std::make_shared<Session>(core_, std::move(socket), handler_, open_);
    core_.Add(session);
    if (full) {
      session->Refuse(PlainError(503, "the server has too many connections"));
    } else {
      session->Start();
    }
    Accept();
  });
}

Result<uint16_t> HttpServer::Core::Listen(const std::string& host, uint16_t port,
                                          HttpHandler* handler, size_t max_connections) {
  auto acceptor = std::make_unique<Acceptor>(*this, handler, max_connections);
  PLEXUS_RETURN_IF_ERROR(acceptor->Open(host, port));
  const uint16_t chosen = acceptor->port();
  // shared: a posted handler must be copyable in older asio.
  auto shared = std::make_shared<std::unique_ptr<Acceptor>>(std::move(acceptor));
  asio::post(io_, [this, shared] {
    (*shared)->Accept();
    acceptors_.push_back(std::move(*shared));
  });
  return chosen;
}

void HttpServer::Core::BeginDrain() {
  const auto done = std::make_shared<std::promise<void>>();
  asio::post(io_, [this, done] {
    draining_ = true;
    const auto sessions = sessions_;  // closing changes it
    for (const auto& session : sessions) session->OnDrain();
    done->set_value();
  });
  // Bounded: a server that was stopped already runs no handlers.
  done->get_future().wait_for(std::chrono::seconds(1));
}

bool HttpServer::Core::WaitIdle(Duration limit) {
  // Requests that were read before this call count, also one that the io thread is just handing
  // over: it is counted by the time that the io thread gets here.
  const auto reached = std::make_shared<bool>(false);
  asio::post(io_, [this, reached] {
    std::lock_guard lock(mutex_);
    *reached = true;
    idle_.notify_all();
  });
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, limit, [&] { return *reached && stats_.busy == 0; });
}

void HttpServer::Core::CancelAll(const Status& why) {
  asio::post(io_, [this, why] {
    const auto sessions = sessions_;
    for (const auto& session : sessions) session->CancelRequest(why);
  });
}

void HttpServer::Core::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
  }
  asio::post(io_, [this] {
    for (const auto& acceptor : acceptors_) acceptor->Close();
    const auto sessions = sessions_;
    for (const auto& session : sessions) session->Close();
    io_.stop();
  });
  thread_.join();
}

void HttpServer::Core::Add(const std::shared_ptr<Session>& session) {
  sessions_.insert(session);
  std::lock_guard lock(mutex_);
  ++stats_.connections;
  ++stats_.accepted;
}

void HttpServer::Core::Remove(const std::shared_ptr<Session>& session) {
  if (sessions_.erase(session) == 0) return;
  std::lock_guard lock(mutex_);
  --stats_.connections;
}

void HttpServer::Core::CountBusy(int change) {
  std::lock_guard lock(mutex_);
  stats_.busy += change;
  if (stats_.busy == 0) idle_.notify_all();
}

void HttpServer::Core::CountRequest() {
  std::lock_guard lock(mutex_);
  ++stats_.requests;
}

void HttpServer::Core::CountDisconnect() {
  std::lock_guard lock(mutex_);
  ++stats_.disconnects;
}

void HttpServer::Session::SetDeadline(Duration in) {
  deadline_ = in == Duration::max() ? SteadyTime::max() : std::chrono::steady_clock::now() + in;
  ArmTimer();
}

// A later deadline leaves the timer alone: it looks again when it fires. So a busy connection
// sets its timer about once per timeout, not per request.
void HttpServer::Session::ArmTimer() {
  if (deadline_ >= armed_for_) return;
  armed_for_ = deadline_;
  timer_.expires_at(deadline_);
  timer_.async_wait([self = shared_from_this()](error_code ec) {
    if (!ec && self->state_ != State::kClosed) self->OnTimer();
  });
}

void HttpServer::Session::OnTimer() {
  armed_for_ = SteadyTime::max();
  if (std::chrono::steady_clock::now() < deadline_) return ArmTimer();
  switch (state_) {
    case State::kHeader:
    case State::kBody:
    case State::kChunks:
      Enter(State::kExecuting);
      return Send(PlainError(408, "the request did not arrive in time"));
    default:
      return Close();
  }
}

void HttpServer::Session::Enter(State state) {
  const auto busy = [](State s) { return s == State::kExecuting || s == State::kWriting; };
  const int change = static_cast<int>(busy(state)) - static_cast<int>(busy(state_));
  state_ = state;
  if (change != 0) core_.CountBusy(change);
}

void HttpServer::Session::NextRequest() {
  if (core_.draining_ && buffer_.size() == 0 && parser_) return Close();
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(core_.options_.max_header_bytes));
  parser_->body_limit(core_.options_.max_body_bytes);
  parser_->eager(false);
  body_ = BodyBuffer();
  request_ = HttpRequest();
  request_complete_ = false;
  Enter(State::kIdle);
  SetDeadline(core_.options_.idle_timeout);
  if (buffer_.size() > 0) return Process();
  Read();
}

void HttpServer::Session::Read() {
  if (reading_ || state_ == State::kClosed) return;
  if (state_ == State::kBody && buffer_.size() == 0) {
    // Straight to its place. In pieces, so that memory follows what has arrived.
    const size_t have = body_.bytes.size_bytes;
    const size_t room = std::min(body_expected_, std::max(body_.capacity, kFirstBodyBytes));
    const size_t grown = have < room ? room : std::min(body_expected_, 2 * have);
    if (!body_.Reserve(grown)) {
      Enter(State::kExecuting);
      return Send(PlainError(503, "no memory for the request's body"));
    }
    reading_ = true;
    socket_.async_read_some(
        asio::buffer(body_.bytes.data + have, body_.capacity - have),
        [self = shared_from_this(), into = body_.bytes.owner](error_code ec, size_t bytes) {
          self->reading_ = false;
          if (self->state_ != State::kBody || ec) return self->OnRead(ec, 0);
          self->body_.bytes.size_bytes += bytes;
          self->SetDeadline(self->core_.options_.read_timeout);
          if (self->body_.bytes.size_bytes == self->body_expected_) return self->OnBodyComplete();
          self->Read();
        });
    return;
  }
  const bool ahead = state_ == State::kExecuting || state_ == State::kWriting;
  if (ahead && buffer_.size() >= kMaxReadAheadBytes) return;
  reading_ = true;
  socket_.async_read_some(
      buffer_.prepare(kReadBytes),
      [self = shared_from_this()](error_code ec, size_t bytes) { self->OnRead(ec, bytes); });
}

void HttpServer::Session::OnRead(error_code ec, size_t bytes) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (ec) return OnGone();
  buffer_.commit(bytes);
  if (state_ == State::kLingering) {
    buffer_.clear();
    return Read();
  }
  if (state_ == State::kExecuting || state_ == State::kWriting) return Read();
  Process();
}

void HttpServer::Session::OnGone() {
  if (state_ == State::kExecuting && !refused_) {
    core_.CountDisconnect();
    CancelRequest(CancelledError("the client has gone"));
  }
  // While writing, the client may have closed only its side; the write finds out.
  if (state_ == State::kWriting) {
    keep_alive_ = false;
    return;
  }
  Close();
}

void HttpServer::Session::Process() {
  switch (state_) {
    case State::kIdle:
      Enter(State::kHeader);
      SetDeadline(core_.options_.read_timeout);
      return ParseHeader();
    case State::kHeader:
      return ParseHeader();
    case State::kChunks:
      SetDeadline(core_.options_.read_timeout);
      return ParseChunks();
    default:
      return;
  }
}

void HttpServer::Session::ParseHeader() {
  error_code ec;
  const size_t used = parser_->put(buffer_.data(), ec);
  buffer_.consume(used);
  if (ec == http::error::need_more) return Read();
  if (ec) return OnParseError(ec);
  if (!parser_->is_header_done()) return Read();
  OnHeader();
}

void HttpServer::Session::OnHeader() {
  const auto& message = parser_->get();
  request_.method = ToString(message.method_string());
  head_ = request_.method == "HEAD";
  if (head_) request_.method = "GET";
  const beast::string_view target = message.target();
  const size_t query = std::min(target.find('?'), target.size());
  request_.path = ToString(target.substr(0, query));
  if (query < target.size()) request_.query = ToString(target.substr(query + 1));
  const auto field = [&](beast::string_view name) {
    const auto it = message.find(name);
    return it == message.end() ? std::string() : ToString(it->value());
  };
  request_.content_encoding = field("Content-Encoding");
  request_.accept_encoding = field("Accept-Encoding");
  request_.tenant = field("plexus-tenant");
  request_.tensor_header_length = field("Inference-Header-Content-Length");
  request_.has_tensor_header_length =
      message.find("Inference-Header-Content-Length") != message.end();
  keep_alive_ = parser_->keep_alive();
  http_1_0_ = message.version() < 11;

  // The tensors behind the JSON shall lie where they can be used.
  size_t align_at = 0;
  if (request_.tensor_header_length.size() < 10) {
    align_at = std::strtoul(request_.tensor_header_length.c_str(), nullptr, 10);
  }
  if (message.find(http::field::expect) != message.end() && buffer_.size() == 0) {
    // A few bytes that the socket takes at once; a client that gets none sends anyway.
    static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
    error_code ignored;
    socket_.non_blocking(true, ignored);
    socket_.write_some(asio::buffer(kContinue, sizeof(kContinue) - 1), ignored);
  }
  if (parser_->chunked()) {
    Enter(State::kChunks);
    parser_->get().body().align_at = align_at;
    parser_->eager(true);
    return ParseChunks();
  }
  const auto length = parser_->content_length();
  body_.align_at = align_at;
  body_expected_ = length ? static_cast<size_t>(*length) : 0;
  if (!Charge(body_expected_)) return;
  Enter(State::kBody);
  const size_t here = std::min(body_expected_, buffer_.size());
  if (!body_.Reserve(std::max(here, std::min(body_expected_, kFirstBodyBytes)))) {
    Enter(State::kExecuting);
    return Send(PlainError(503, "no memory for the request's body"));
  }
  if (here > 0) std::memcpy(body_.bytes.data, buffer_.data().data(), here);
  body_.bytes.size_bytes = here;
  buffer_.consume(here);
  if (here == body_expected_) return OnBodyComplete();
  Read();
}

bool HttpServer::Session::Charge(size_t bytes) {
  if (core_.buffered_bytes_ + bytes <= core_.options_.max_buffered_bytes) {
    core_.buffered_bytes_ += bytes;
    charged_bytes_ += bytes;
    return true;
  }
  Enter(State::kExecuting);
  Send(PlainError(503, "the server holds too many request bodies; try again"));
  return false;
}

void HttpServer::Session::ParseChunks() {
  while (buffer_.size() > 0) {
    error_code ec;
    const size_t before = parser_->get().body().bytes.size_bytes;
    const size_t used = parser_->put(buffer_.data(), ec);
    buffer_.consume(used);
    if (ec && ec != http::error::need_more) return OnParseError(ec);
    if (!Charge(parser_->get().body().bytes.size_bytes - before)) return;
    if (parser_->is_done()) {
      body_ = std::move(parser_->get().body());
      return OnBodyComplete();
    }
    if (ec == http::error::need_more || used == 0) break;
  }
  // What is left is the line before a chunk, or the trailer: they come whole, like a header.
  if (buffer_.size() > core_.options_.max_header_bytes) {
    return OnParseError(http::error::header_limit);
  }
  Read();
}

void HttpServer::Session::OnParseError(error_code ec) {
  HttpResponse response;
  if (ec == http::error::body_limit) {
    response = PlainError(413, "the request's body is larger than the limit of " +
                                   std::to_string(core_.options_.max_body_bytes) + " bytes");
  } else if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    const char* what = state_ == State::kChunks ? "chunk header or trailer" : "header";
    response =
        PlainError(431, std::string("the request's ") + what + " is larger than the limit of " +
                            std::to_string(core_.options_.max_header_bytes) + " bytes");
  } else if (ec == boost::system::errc::not_enough_memory) {
    response = PlainError(503, "no memory for the request's body");
  } else {
    response = PlainError(400, "malformed HTTP request: " + ec.message());
  }
  Enter(State::kExecuting);
  Send(std::move(response));
}

void HttpServer::Session::OnBodyComplete() {
  request_.body = std::move(body_.bytes);
  body_ = BodyBuffer();
  request_complete_ = true;
  core_.CountRequest();
  Enter(State::kExecuting);
  deadline_ = SteadyTime::max();
  Dispatch();
}

void HttpServer::Session::Dispatch() {
  request_.received = core_.clock_.Now();
  const uint64_t exchange = ++exchange_;
  const std::shared_ptr<Session> self = shared_from_this();
  Respond respond = [self, exchange](HttpResponse response) {
    // shared: a posted handler must be copyable in older asio.
    auto shared = std::make_shared<HttpResponse>(std::move(response));
    asio::dispatch(self->core_.io_, [self, exchange, shared] {
      if (self->exchange_ != exchange || self->state_ != State::kExecuting) return;
      self->Send(std::move(*shared));
    });
  };
  std::shared_ptr<CancelToken> token = handler_->Handle(std::move(request_), std::move(respond));
  if (state_ != State::kExecuting || exchange_ != exchange) return;  // answered already
  token_ = std::move(token);
  Read();
}

void HttpServer::Session::Send(HttpResponse response) {
  token_ = nullptr;
  response_ = std::move(response);
  Enter(State::kWriting);
  keep_alive_ = keep_alive_ && !response_.close && !core_.draining_ && request_complete_;
  head_text_ = "HTTP/1.1 " + std::to_string(response_.status) + ' ' + HttpReason(response_.status) +
               "\r\nContent-Length: " + std::to_string(response_.size_bytes()) +
               "\r\nContent-Type: " + response_.content_type + "\r\n";
  for (const auto& [name, value] : response_.headers) {
    head_text_ += name + ": " + value + "\r\n";
  }
  if (!keep_alive_) {
    head_text_ += "Connection: close\r\n";
  } else if (http_1_0_) {
    head_text_ += "Connection: keep-alive\r\n";
  }
  head_text_ += "\r\n";
  to_write_.clear();
  written_parts_ = 0;
  if (head_) {
    to_write_.push_back(asio::buffer(head_text_));
  } else if (response_.body.size() <= kJoinedBytes) {
    head_text_ += response_.body;
    to_write_.push_back(asio::buffer(head_text_));
  } else {
    to_write_.push_back(asio::buffer(head_text_));
    to_write_.push_back(asio::buffer(response_.body));
  }
  if (!head_) {
    for (const SharedBytes& part : response_.payload) {
      if (part.size_bytes > 0) to_write_.emplace_back(part.data, part.size_bytes);
    }
  }
  WriteSome();
  if (state_ == State::kWriting) Read();
}

void HttpServer::Session::WriteSome() {
  SetDeadline(core_.options_.write_timeout);
  // All that is left, gathered into one call of the kernel.
  const std::vector<asio::const_buffer> rest(to_write_.begin() + written_parts_, to_write_.end());
  socket_.async_write_some(rest, [self = shared_from_this()](error_code ec, size_t bytes) {
    if (self->state_ != State::kWriting) return;
    if (ec) return self->Close();
    while (bytes > 0) {
      asio::const_buffer& part = self->to_write_[self->written_parts_];
      const size_t step = std::min(bytes, part.size());
      part += step;
      bytes -= step;
      if (part.size() == 0) ++self->written_parts_;
    }
    if (self->written_parts_ < self->to_write_.size()) return self->WriteSome();
    self->OnWritten();
  });
}

void HttpServer::Session::OnWritten() {
  response_ = HttpResponse();
  core_.buffered_bytes_ -= charged_bytes_;
  charged_bytes_ = 0;
  if (!keep_alive_) return Linger();
  NextRequest();
}

// Closing a socket with unread bytes in it resets the connection, and the client may lose the
// response: say that nothing more comes, then read what it still sends.
void HttpServer::Session::Linger() {
  error_code ignored;
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  Enter(State::kLingering);
  buffer_.clear();
  SetDeadline(kLinger);
  Read();
}

void HttpServer::Session::Close() {
  if (state_ == State::kClosed) return;
  Enter(State::kClosed);
  --*open_;
  core_.buffered_bytes_ -= charged_bytes_;
  charged_bytes_ = 0;
  token_ = nullptr;
  response_ = HttpResponse();
  error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  core_.Remove(shared_from_this());
}

HttpServer::HttpServer(const HttpOptions& options, const Clock& clock)
    : core_(std::make_unique<Core>(options, clock)) {
  core_->Start();
}
HttpServer::~HttpServer() { Stop(); }

Result<uint16_t> HttpServer::Listen(const std::string& host, uint16_t port, HttpHandler* handler,
                                    std::optional<size_t> max_connections) {
  return core_->Listen(host, port, handler,
                       max_connections.value_or(core_->options_.max_connections));
}
void HttpServer::BeginDrain() { core_->BeginDrain(); }
bool HttpServer::WaitIdle(Duration limit) { return core_->WaitIdle(limit); }
void HttpServer::CancelAll(const Status& why) { core_->CancelAll(why); }
void HttpServer::Stop() { core_->Stop(); }
HttpStats HttpServer::stats() const {
  std::lock_guard lock(core_->mutex_);
  return core_->stats_;
}

}  // namespace plexus
