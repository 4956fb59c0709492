// `plexus trace`: takes a trace from a running server.
#include <simdjson.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <thread>

#include "base/json_writer.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/files.h"
#include "client/http_client.h"

namespace plexus::cli {
namespace {

namespace dom = simdjson::dom;

// A reply that is no 200 becomes the error that it tells.
Result<std::string> Ask(HttpClient& client, std::string_view method, const std::string& path) {
  Result<HttpReply> called = client.Call(method, path, {}, "");
  if (!called.ok()) {
    return UnavailableError(
        called.status().message() +
        "; is a server there, with --admin-port (plexus serve --admin-port N)?");
  }
  HttpReply reply = std::move(*called);
  if (reply.status == 200) return std::move(reply.body);
  dom::parser parser;
  std::string_view text;
  if (parser.parse(reply.body)["error"].get(text)) text = reply.body;
  const std::string hint =
      reply.status == 404 ? "; is that the administration port (plexus serve --admin-port)?" : "";
  return InternalError(std::string(text.substr(0, 400)) + " (HTTP " + std::to_string(reply.status) +
                       ")" + hint);
}

void Wait(Duration duration) {
  const bool progress = ::isatty(STDERR_FILENO) != 0;
  const TimePoint begin = RealClock::Get().Now();
  constexpr int kWidth = 30;
  for (;;) {
    const Duration passed = RealClock::Get().Now() - begin;
    if (passed >= duration) break;
    if (progress) {
      const int done = static_cast<int>(kWidth * passed.count() / duration.count());
      std::fprintf(stderr, "\rrecording [%s%s] %s of %s\033[K", std::string(done, '#').c_str(),
                   std::string(kWidth - done, ' ').c_str(), HumanTime(passed).c_str(),
                   HumanTime(duration).c_str());
    }
    std::this_thread::sleep_for(
        std::min<Duration>(duration - passed, std::chrono::milliseconds(100)));
  }
  if (progress) std::fprintf(stderr, "\r\033[K");
}

struct Summary {
  uint64_t bytes = 0, events = 0, dropped = 0, requests = 0, jobs = 0, launches = 0;
  Duration span{0};
};

// What the document says of itself, and what it holds.
Result<Summary> Summarise(const std::string& json) {
  const Status bad = InternalError("the server's answer is no trace");
  dom::parser parser;
  dom::element document;
  if (parser.parse(json).get(document)) return bad;
  Summary s;
  s.bytes = json.size();
  dom::array events;
  if (document["otherData"]["events"].get(s.events) ||
      document["otherData"]["dropped"].get(s.dropped) || document["traceEvents"].get(events)) {
    return bad;
  }
  double last_us = 0;
  for (const dom::element event : events) {
    std::string_view phase, category;
    if (event["ph"].get(phase)) return bad;
    if (event["cat"].get(category)) continue;
    double at = 0, duration = 0;
    if (event["ts"].get(at) || event["dur"].get(duration)) duration = 0;  // no span
    last_us = std::max(last_us, at + duration);
    const bool root =
        phase == "b" && !event["args"]["status"].error() && event["args"]["job"].error();
    s.requests += root ? 1 : 0;
    s.jobs += phase == "X" && category == "job" && !event["args"]["status"].error() ? 1 : 0;
    s.launches += phase == "X" && category == "blocks" ? 1 : 0;
  }
  s.span = std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::micro>(last_us));
  return s;
}

void Print(const TraceFlags& flags, const Summary& s) {
  if (!flags.json) {
    std::printf("%s: %llu requests, %llu jobs, %llu launches over %s, %s\n", flags.output.c_str(),
                static_cast<unsigned long long>(s.requests),
                static_cast<unsigned long long>(s.jobs),
                static_cast<unsigned long long>(s.launches), HumanTime(s.span).c_str(),
                HumanBytes(static_cast<double>(s.bytes)).c_str());
    if (s.dropped > 0) {
      std::printf("%llu older events were overwritten: take a shorter trace, or --sample\n",
                  static_cast<unsigned long long>(s.dropped));
    }
    return;
  }
  std::string line;
  JsonWriter json(&line);
  json.BeginObject();
  json.Key("file").String(flags.output);
  json.Key("bytes").Uint(s.bytes);
  json.Key("events").Uint(s.events);
  json.Key("dropped").Uint(s.dropped);
  json.Key("requests").Uint(s.requests);
  json.Key("jobs").Uint(s.jobs);
  json.Key("launches").Uint(s.launches);
  json.Key("span_ns").Int(s.span.count());
  json.EndObject();
  std::printf("%s\n", line.c_str());
}

}  // namespace

int Trace(const TraceFlags& flags) {
  const Status writable = CheckWritable(flags.output);
  if (!writable.ok()) return Fail(writable);
  Result<HttpClient> client = HttpClient::Create(flags.server);
  if (!client.ok()) return FailUsage("trace", client.status().message());
  if (flags.duration > Duration{0}) {
    const int64_t ms = std::max<int64_t>(
        1, std::chrono::duration_cast<std::chrono::milliseconds>(flags.duration).count());
    const Result<std::string> started =
        Ask(*client, "POST",
            "/trace?duration_ms=" + std::to_string(ms) + "&sample=" + std::to_string(flags.sample));
    if (!started.ok()) return Fail(started.status());
    Wait(flags.duration);
  }
  const Result<std::string> json = Ask(*client, "GET", "/trace");
  if (!json.ok()) return Fail(json.status());
  const Result<Summary> summary = Summarise(*json);
  if (!summary.ok()) return Fail(summary.status());
  const Status written = WriteFile(flags.output, *json);
  if (!written.ok()) return Fail(written);
  Print(flags, *summary);
  return kExitOk;
}

}  // namespace plexus::cli
