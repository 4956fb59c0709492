#include "base/trace.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

TraceEvent Span(const char* name, int begin_us, int end_us) {
  TraceEvent e;
  e.category = "block";
  e.name = name;
  e.begin = TimePoint(std::chrono::microseconds(begin_us));
  e.end = TimePoint(std::chrono::microseconds(end_us));
  return e;
}

TEST(TraceRecorderTest, RecordsNothingWhileOff) {
  TraceRecorder recorder(4);
  recorder.Record(Span("conv", 1, 2));
  EXPECT_EQ(recorder.ToJson(), "{\"traceEvents\":[\n]}\n");
}

TEST(TraceRecorderTest, KeepsTheLastEventsAndCountsTheLost) {
  TraceRecorder recorder(2);
  recorder.Enable(true);
  for (int i = 0; i < 5; ++i) recorder.Record(Span(("k" + std::to_string(i)).c_str(), i, i + 1));
  EXPECT_EQ(recorder.dropped(), 3u);
  const std::string json = recorder.ToJson();
  EXPECT_EQ(json.find("k2"), std::string::npos);
  EXPECT_LT(json.find("k3"), json.find("k4"));
}

TEST(TraceRecorderTest, EscapesNames) {
  TraceRecorder recorder(2);
  recorder.Enable(true);
  recorder.Record(Span("a\"b\\c\n", 1, 2));
  EXPECT_NE(recorder.ToJson().find("a\\\"b\\\\c "), std::string::npos);
}

}  // namespace
}  // namespace plexus
