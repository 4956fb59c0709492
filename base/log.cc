#include "base/log.h"

#include <time.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <string>

namespace plexus {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<LogSink> g_sink{nullptr};

char LevelLetter(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return 'D';
    case LogLevel::kInfo:
      return 'I';
    case LogLevel::kWarning:
      return 'W';
    default:
      return 'E';
  }
}

// A name or path that came with a request must not begin a line of its own.
void AppendOneLine(std::string_view message, std::string& line) {
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      line.push_back(c);
      continue;
    }
    char escape[16];
    snprintf(escape, sizeof(escape), "\\x%02x", byte);
    line += escape;
  }
}

}  // namespace

// Relaxed throughout: level and sink are independent switches that order no other data.
void SetLogLevel(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }
LogLevel GetLogLevel() { return g_level.load(std::memory_order_relaxed); }
void SetLogSink(LogSink sink) { g_sink.store(sink, std::memory_order_relaxed); }

void WriteLog(LogLevel level, std::string_view message) {
  if (level < GetLogLevel()) return;
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  tm utc;
  gmtime_r(&ts.tv_sec, &utc);
  char stamp[64];
  size_t n = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(stamp + n, sizeof(stamp) - n, ".%03ldZ %c ", ts.tv_nsec / 1000000, LevelLetter(level));
  std::string line = stamp;
  AppendOneLine(message, line);
  if (LogSink sink = g_sink.load(std::memory_order_relaxed)) return sink(level, line);
  line.push_back('\n');
  fwrite(line.data(), 1, line.size(), stderr);  // one call, so that lines do not interleave
}

}  // namespace plexus
