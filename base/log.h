// Log lines to one sink (stderr by default): "2026-01-02T03:04:05.678Z W model resnet18: text".
// Control characters in a message are written \xNN: one message, one line.
#pragma once

#include <sstream>
#include <string_view>

namespace plexus {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// All thread-safe.
void SetLogLevel(LogLevel level);
LogLevel GetLogLevel();
void WriteLog(LogLevel level, std::string_view message);
using LogSink = void (*)(LogLevel, std::string_view line);
void SetLogSink(LogSink sink);  // nullptr restores stderr

// PLEXUS_LOG(kInfo) << "text";
class LogLine {
 public:
  explicit LogLine(LogLevel level) : level_(level) {}
  ~LogLine() { WriteLog(level_, stream_.str()); }
  template <typename T>
  LogLine& operator<<(const T& value) {
    stream_ << value;
    return *this;
  }

 private:
  LogLevel level_;
  std::ostringstream stream_;
};
// Binds looser than <<, so that the whole line is one void expression.
struct LogVoid {
  void operator&(const LogLine&) {}
};
#define PLEXUS_LOG(level)                               \
  (::plexus::LogLevel::level < ::plexus::GetLogLevel()) \
      ? (void)0                                         \
      : ::plexus::LogVoid() & ::plexus::LogLine(::plexus::LogLevel::level)

}  // namespace plexus
