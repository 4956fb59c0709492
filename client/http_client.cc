#include "client/http_client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cctype>
#include <cerrno>
#include <memory>

namespace plexus {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr size_t kReadBytes = 64 << 10;
constexpr uint64_t kMaxReplyBytes = uint64_t{4} << 30;

TimePoint Now() { return RealClock::Get().Now(); }

std::string Reason(int error) { return std::generic_category().message(error); }

}  // namespace

Result<HttpClient> HttpClient::Create(std::string_view url) {
  const std::string whole(url);
  const Status bad = InvalidArgumentError("'" + whole + "' is no URL like http://127.0.0.1:8000");
  if (url.substr(0, 7) == "http://") url.remove_prefix(7);
  if (url.find("://") != std::string_view::npos) return bad;
  while (!url.empty() && url.back() == '/') url.remove_suffix(1);
  std::string_view host = url, port = "80";
  if (!url.empty() && url[0] == '[') {  // [::1]:8000
    const size_t end = url.find(']');
    if (end == std::string_view::npos) return bad;
    host = url.substr(1, end - 1);
    if (end + 1 < url.size()) {
      if (url[end + 1] != ':') return bad;
      port = url.substr(end + 2);
    }
  } else if (const size_t colon = url.rfind(':'); colon != std::string_view::npos) {
    host = url.substr(0, colon);
    port = url.substr(colon + 1);
  }
  if (host.empty() || port.empty() || host.find('/') != std::string_view::npos ||
      !std::all_of(port.begin(), port.end(), [](unsigned char c) { return std::isdigit(c); })) {
    return bad;
  }
  return HttpClient(std::string(host), std::string(port));
}

HttpClient::HttpClient(HttpClient&& other) noexcept
    : host_(std::move(other.host_)),
      port_(std::move(other.port_)),
      socket_(std::exchange(other.socket_, -1)) {}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

Status HttpClient::Broken(const char* what) const {
  return UnavailableError(host_ + ":" + port_ + ": " + what);
}

Status HttpClient::Wait(short events, TimePoint deadline) const {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Now());
    if (left.count() < 0) return DeadlineExceededError("no answer from " + host_ + ":" + port_);
    pollfd p{socket_, events, 0};
    const int ready = ::poll(&p, 1, static_cast<int>(std::min<int64_t>(left.count() + 1, 1 << 30)));
    if (ready > 0) return OkStatus();
    if (ready < 0 && errno != EINTR) return Broken(Reason(errno).c_str());
  }
}

Status HttpClient::Connect(TimePoint deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host_.c_str(), port_.c_str(), &hints, &found);
  if (error != 0) return Broken(::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  Status status = Broken("no address");
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    socket_ = ::socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
    if (socket_ < 0) continue;
    int failure = ::connect(socket_, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (failure == EINPROGRESS) {
      status = Wait(POLLOUT, deadline);
      socklen_t length = sizeof(failure);
      if (status.ok()) ::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &failure, &length);
    }
    if (failure == 0) {
      const int on = 1;
      ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      return OkStatus();
    }
    if (failure != EINPROGRESS) status = Broken(Reason(failure).c_str());
    Close();
  }
  return status;
}

Status HttpClient::Send(std::string_view data, TimePoint deadline) {
  while (!data.empty()) {
    const ssize_t sent = ::send(socket_, data.data(), data.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      data.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      PLEXUS_RETURN_IF_ERROR(Wait(POLLOUT, deadline));
    } else if (errno != EINTR) {
      return Broken(Reason(errno).c_str());
    }
  }
  return OkStatus();
}

Result<HttpReply> HttpClient::Receive(bool head, TimePoint deadline) {
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxReplyBytes);
  parser.eager(true);
  parser.skip(head);
  beast::flat_buffer buffer;
  while (!parser.is_done()) {
    const asio::mutable_buffer room = buffer.prepare(kReadBytes);
    const ssize_t got = ::recv(socket_, room.data(), room.size(), 0);
    boost::system::error_code ec;
    if (got > 0) {
      buffer.commit(static_cast<size_t>(got));
      buffer.consume(parser.put(buffer.data(), ec));
      if (ec && ec != http::error::need_more) return Broken(ec.message().c_str());
    } else if (got == 0) {
      if (!parser.got_some()) return Broken("the server closed the connection");
      parser.put_eof(ec);
      if (ec) return Broken("the server closed the connection within its answer");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      PLEXUS_RETURN_IF_ERROR(Wait(POLLIN, deadline));
    } else if (errno != EINTR) {
      return Broken(Reason(errno).c_str());
    }
  }
  HttpReply reply;
  reply.status = static_cast<int>(parser.get().result_int());
  for (const auto& field : parser.get().base()) {
    std::string name(field.name_string().data(), field.name_string().size());
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    reply.headers[name] = std::string(field.value().data(), field.value().size());
  }
  if (!parser.keep_alive()) Close();
  reply.body = std::move(parser.get().body());
  return reply;
}

Result<HttpReply> HttpClient::Call(std::string_view method, std::string_view path,
                                   const Headers& headers, std::string_view body, Duration limit) {
  const TimePoint deadline = Now() + limit;
  std::string text;
  text.reserve(256 + body.size());
  text.append(method).append(" ").append(path).append(" HTTP/1.1\r\nHost: ").append(host_);
  text += "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  for (const auto& [name, value] : headers) text += name + ": " + value + "\r\n";
  text += "\r\n";
  text += body;
  try {
    // A kept connection may have been closed meanwhile; then the request has not been read.
    for (bool fresh = socket_ < 0;; fresh = true) {
      if (socket_ < 0) PLEXUS_RETURN_IF_ERROR(Connect(deadline));
      const Status sent = Send(text, deadline);
      // A server that refuses the body answers before it has read it.
      Result<HttpReply> reply = Receive(method == "HEAD", deadline);
      if (reply.ok()) return reply;
      Close();
      if (fresh || reply.status().code() == StatusCode::kDeadlineExceeded) {
        return sent.ok() ? reply : sent;
      }
    }
  } catch (const std::exception& e) {  // Beast's buffers without memory
    Close();
    return UnavailableError(host_ + ":" + port_ + ": " + e.what());
  }
}

}  // namespace plexus
