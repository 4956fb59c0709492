#include "base/trace.h"

#include <cstdio>

namespace plexus {
namespace {

void AppendEscaped(std::string& out, std::string_view text) {
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out.push_back(' ');
    } else {
      out.push_back(c);
    }
  }
}

}  // namespace

TraceRecorder::TraceRecorder(size_t capacity) : capacity_(capacity == 0 ? 1 : capacity) {}

void TraceRecorder::Record(TraceEvent event) {
  if (!enabled()) return;
  std::lock_guard lock(mutex_);
  if (ring_.size() < capacity_) {
    ring_.push_back(std::move(event));
  } else {
    ring_[written_ % capacity_] = std::move(event);
  }
  ++written_;
}

uint64_t TraceRecorder::dropped() const {
  std::lock_guard lock(mutex_);
  return written_ - ring_.size();
}

void TraceRecorder::Clear() {
  std::lock_guard lock(mutex_);
  ring_.clear();
  written_ = 0;
}

std::string TraceRecorder::ToJson() const {
  std::lock_guard lock(mutex_);
  std::string out = "{\"traceEvents\":[";
  const size_t first = ring_.size() < capacity_ ? 0 : written_ % capacity_;
  for (size_t i = 0; i < ring_.size(); ++i) {
    const TraceEvent& e = ring_[(first + i) % ring_.size()];
    const double begin_us = static_cast<double>(e.begin.time_since_epoch().count()) * 1e-3;
    const double duration_us = static_cast<double>((e.end - e.begin).count()) * 1e-3;
    if (i > 0) out.push_back(',');
    out += "\n{\"pid\":1,\"tid\":" + std::to_string(e.track) + ",\"cat\":\"";
    AppendEscaped(out, e.category);
    out += "\",\"name\":\"";
    AppendEscaped(out, e.name);
    char numbers[160];
    if (e.end > e.begin) {
      snprintf(numbers, sizeof(numbers), "\",\"ph\":\"X\",\"ts\":%.3f,\"dur\":%.3f", begin_us,
               duration_us);
    } else {
      snprintf(numbers, sizeof(numbers), "\",\"ph\":\"i\",\"s\":\"t\",\"ts\":%.3f", begin_us);
    }
    out += numbers;
    out += ",\"args\":{\"id\":" + std::to_string(e.id) + "}}";
  }
  out += "\n]}\n";
  return out;
}

}  // namespace plexus
