#include "serve/metrics.h"

#include <cstdio>
#include <string_view>

namespace plexus {
namespace {

// Counters that order nothing.
uint64_t Get(const std::atomic<uint64_t>& value) { return value.load(std::memory_order_relaxed); }

class Writer {
 public:
  // Begins a family; its samples follow.
  void Family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_ += "# HELP " + name_ + " " + std::string(help) + "\n# TYPE " + name_ + " " +
             std::string(type) + "\n";
  }
  // `labels` as Label makes them, separated by commas.
  void Sample(uint64_t value, const std::string& labels = "") {
    Line(labels, std::to_string(value));
  }
  void Seconds(uint64_t ns, const std::string& labels = "") {
    char value[40];
    std::snprintf(value, sizeof(value), "%llu.%09llu",
                  static_cast<unsigned long long>(ns / 1'000'000'000),
                  static_cast<unsigned long long>(ns % 1'000'000'000));
    Line(labels, value);
  }
  void One(std::string_view name, std::string_view type, std::string_view help, uint64_t value) {
    Family(name, type, help);
    Sample(value);
  }
  std::string Take() { return std::move(text_); }

 private:
  void Line(const std::string& labels, const std::string& value) {
    text_ += name_ + (labels.empty() ? "" : "{" + labels + "}") + " " + value + "\n";
  }
  std::string name_, text_;
};

std::string Label(std::string_view name, std::string_view value) {
  std::string out = std::string(name) + "=\"";
  for (const char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? "\\n" : std::string(1, c);
  }
  return out + "\"";
}

void WriteServables(const std::vector<ServablePtr>& loaded, Writer& w) {
  const auto each = [&](const auto& write) {
    for (const ServablePtr& servable : loaded) {
      write(servable->stats,
            Label("model", servable->name) + "," + Label("version", servable->version));
    }
  };
  w.Family("plexus_requests_total", "counter", "Requests answered, by outcome.");
  each([&](const ServableStats& stats, const std::string& who) {
    w.Sample(Get(stats.success), who + ",outcome=\"success\"");
    w.Sample(Get(stats.failure), who + ",outcome=\"failure\"");
  });
  w.Family("plexus_request_seconds_total", "counter", "Time from arrival to answer, summed up.");
  each([&](const ServableStats& stats, const std::string& who) {
    w.Seconds(Get(stats.request_ns), who + ",outcome=\"success\"");
    w.Seconds(Get(stats.failure_ns), who + ",outcome=\"failure\"");
  });
  w.Family("plexus_requests_pending", "gauge", "Requests under way.");
  each([&](const ServableStats& stats, const std::string& who) {
    w.Sample(Get(stats.pending), who);
  });
  w.Family("plexus_requests_cached_total", "counter",
           "Requests that asked the result cache: answered by it, or computed at least in part.");
  each([&](const ServableStats& stats, const std::string& who) {
    w.Sample(Get(stats.cache_hit), who + ",outcome=\"hit\"");
    w.Sample(Get(stats.cache_miss), who + ",outcome=\"miss\"");
  });
}

void WriteResultCache(const ResultCache::Stats& cache, Writer& w) {
  w.Family("plexus_result_cache_lookups_total", "counter",
           "Results asked for, of requests and of segments.");
  w.Sample(cache.hits, "outcome=\"hit\"");
  w.Sample(cache.misses, "outcome=\"miss\"");
  w.One("plexus_result_cache_evictions_total", "counter", "Results that went for want of room.",
        cache.evictions);
  w.One("plexus_result_cache_too_large_total", "counter", "Results too large to be kept.",
        cache.too_large);
  w.One("plexus_result_cache_entries", "gauge", "Results kept.", cache.entries);
  w.One("plexus_result_cache_bytes", "gauge", "What they take, with their inputs.", cache.bytes);
  w.One("plexus_result_cache_max_bytes", "gauge", "What they may take.", cache.max_bytes);
}

void WriteSessions(const SessionStore::Stats& sessions, const SessionLimits& limits, Writer& w) {
  w.One("plexus_sessions", "gauge", "Sessions there are.", sessions.sessions);
  w.One("plexus_sessions_max", "gauge", "Sessions there may be.", limits.max_sessions);
  w.One("plexus_session_bytes", "gauge", "State that they hold.", sessions.bytes);
  w.One("plexus_session_requests_waiting", "gauge", "Requests that wait for their turn.",
        sessions.waiting);
  w.Family("plexus_sessions_total", "counter", "Sessions begun, ended, and expired unused.");
  w.Sample(sessions.begun, "event=\"begun\"");
  w.Sample(sessions.ended, "event=\"ended\"");
  w.Sample(sessions.expired, "event=\"expired\"");
  w.One("plexus_session_requests_refused_total", "counter", "Requests refused for a limit.",
        sessions.refused);
}

}  // namespace

std::string MetricsText(const Runtime& runtime, const DispatcherStats& dispatcher, const V2Api& api,
                        const std::vector<ServablePtr>& loaded) {
  Writer w;
  WriteServables(loaded, w);
  w.One("plexus_jobs_submitted_total", "counter", "Jobs given to the device's dispatcher.",
        dispatcher.jobs_submitted);
  w.Family("plexus_device_busy_seconds_total", "counter", "Device time of finished blocks.");
  w.Seconds(static_cast<uint64_t>(dispatcher.busy.count()));
  const Runtime::SharingStats sharing = runtime.sharing_stats();
  w.Family("plexus_shared_work_total", "counter",
           "Pieces of work done, and asked for while equal ones were under way.");
  w.Sample(sharing.led, "outcome=\"led\"");
  w.Sample(sharing.joined, "outcome=\"joined\"");
  WriteResultCache(runtime.result_cache_stats(), w);
  WriteSessions(api.session_stats(), api.session_limits(), w);
  return w.Take();
}

}  // namespace plexus
