#include "serve/trace_api.h"

#include <charconv>

#include "base/json_writer.h"
#include "base/log.h"
#include "base/trace_json.h"

namespace plexus {
namespace {

constexpr uint64_t kMaxDurationMs = 24ull * 3600 * 1000;
constexpr uint64_t kMaxSample = 1'000'000;

Result<uint64_t> ReadNumber(const std::string& key, const std::string& text, uint64_t highest) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < 1 || value > highest) {
    return InvalidArgumentError("parameter '" + key + "': expected a whole number from 1 to " +
                                std::to_string(highest) + ", got '" + text.substr(0, 40) + "'");
  }
  return value;
}

// The document in pieces of about 64 KiB each, so that no large one is copied to grow.
HttpResponse Document(const TraceRecorder::Snapshot& snapshot) {
  HttpResponse response;
  WriteTraceJson(snapshot, [&response](std::string_view piece) {
    auto text = std::make_shared<std::string>(piece);
    SharedBytes bytes;
    bytes.data = reinterpret_cast<std::byte*>(text->data());
    bytes.size_bytes = text->size();
    bytes.owner = std::move(text);
    response.payload.push_back(std::move(bytes));
    return true;
  });
  return response;
}

}  // namespace

std::shared_ptr<CancelToken> TraceApi::Handle(HttpRequest request, Respond respond) {
  TraceRecorder& trace = runtime_.trace();
  if (request.method == "GET") {
    writer_.Post([&trace, respond = std::move(respond)] { respond(Document(trace.Take())); });
  } else if (request.method == "POST") {
    const Result<TraceOptions> options = ReadOptions(request);
    if (!options.ok()) {
      respond(ErrorResponse(options.status()));
      return nullptr;
    }
    trace.Start(*options);
    PLEXUS_LOG(kInfo) << "trace: recording one request in " << options->sample;
    respond(State());
  } else if (request.method == "DELETE") {
    trace.Stop();
    PLEXUS_LOG(kInfo) << "trace: stopped";
    respond(State());
  } else {
    respond(MethodNotAllowed(request, "GET, POST, DELETE"));
  }
  return nullptr;
}

Result<TraceOptions> TraceApi::ReadOptions(const HttpRequest& request) const {
  TraceOptions options;
  PLEXUS_ASSIGN_OR_RETURN(const auto pairs, QueryPairs(request.query));
  for (const auto& [key, value] : pairs) {
    if (key == "duration_ms") {
      PLEXUS_ASSIGN_OR_RETURN(const uint64_t ms, ReadNumber(key, value, kMaxDurationMs));
      options.until = runtime_.clock().Now() + std::chrono::milliseconds(ms);
    } else if (key == "sample") {
      PLEXUS_ASSIGN_OR_RETURN(const uint64_t sample, ReadNumber(key, value, kMaxSample));
      options.sample = static_cast<uint32_t>(sample);
    } else {
      return InvalidArgumentError("unknown parameter '" + key.substr(0, 40) +
                                  "'; there are duration_ms, sample");
    }
  }
  if (request.body.size_bytes > 0) {
    return InvalidArgumentError("a trace takes no body, only duration_ms and sample in the query");
  }
  return options;
}

HttpResponse TraceApi::State() const {
  const TraceRecorder::Stats stats = runtime_.trace().stats();
  HttpResponse response;
  JsonWriter json(&response.body);
  json.BeginObject();
  json.Key("recording").Bool(stats.recording);
  json.Key("sample").Uint(stats.sample);
  json.Key("events").Uint(stats.events);
  json.Key("dropped").Uint(stats.dropped);
  json.EndObject();
  return response;
}

}  // namespace plexus
