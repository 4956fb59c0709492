#include "serve/http.h"

#include <algorithm>

#include "base/json_writer.h"

namespace plexus {

size_t HttpResponse::size_bytes() const {
  size_t total = body.size();
  for (const SharedBytes& part : payload) total += part.size_bytes;
  return total;
}

HttpResponse ErrorResponse(const Status& status) {
  HttpResponse response;
  response.status = HttpStatusFor(status.code());
  JsonWriter json(&response.body);
  json.BeginObject();
  json.Key("error").String(status.message());
  json.EndObject();
  return response;
}

int HttpStatusFor(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return 200;
    case StatusCode::kNotFound:
      return 404;
    case StatusCode::kUnimplemented:
      return 501;
    case StatusCode::kUnavailable:
    case StatusCode::kCancelled:          // by the server: a client that gives up hears nothing
    case StatusCode::kResourceExhausted:  // memory that is there again later, or on a larger host
      return 503;
    case StatusCode::kDeadlineExceeded:
      return 504;
    case StatusCode::kInternal:
    case StatusCode::kDataLoss:
      return 500;
    default:
      return 400;
  }
}

const char* HttpReason(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Unknown";
  }
}

namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Result<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return InvalidArgumentError("bad '%' escape in the request's path");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (c == '\0') return InvalidArgumentError("NUL in the request's path");
    out += c;
  }
  return out;
}

Result<std::vector<std::pair<std::string, std::string>>> QueryPairs(std::string_view query) {
  std::vector<std::pair<std::string, std::string>> pairs;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const size_t equals = std::min(pair.find('='), pair.size());
    PLEXUS_ASSIGN_OR_RETURN(std::string value,
                            PercentDecode(pair.substr(std::min(equals + 1, pair.size()))));
    pairs.emplace_back(pair.substr(0, equals), std::move(value));
  }
  return pairs;
}

Result<std::string> QueryValue(std::string_view query, std::string_view key) {
  PLEXUS_ASSIGN_OR_RETURN(const auto pairs, QueryPairs(query));
  for (const auto& [name, value] : pairs) {
    if (name == key) return value;
  }
  return std::string();
}

HttpResponse MethodNotAllowed(const HttpRequest& request, const std::string& allowed) {
  HttpResponse response = ErrorResponse(InvalidArgumentError(
      "method " + request.method.substr(0, 40) + " is not allowed here, use " + allowed));
  response.status = 405;
  response.headers.emplace_back("Allow", allowed);
  return response;
}

}  // namespace plexus
