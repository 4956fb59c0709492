#include "base/trace.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "base/status.h"
#include "base/test_json.h"
#include "base/trace_json.h"

namespace plexus {
namespace {

TimePoint Us(int us) { return TimePoint(std::chrono::microseconds(us)); }

TraceEvent Blocks(uint64_t job, uint32_t unit, int begin_us, int end_us) {
  TraceEvent e;
  e.kind = TraceKind::kBlocks;
  e.job = job;
  e.unit = unit;
  e.begin = e.mark = Us(begin_us);
  e.end = Us(end_us);
  e.blocks = 1;
  e.ready = 1;
  return e;
}
TraceEvent Of(TraceKind kind, uint64_t request, int begin_us, int end_us) {
  TraceEvent e;
  e.kind = kind;
  e.request = request;
  e.begin = Us(begin_us);
  e.end = Us(end_us);
  return e;
}

// A document's events, read back; checks what holds for every document: it is valid, complete
// spans of a track nest, and asynchronous ones open and close in pairs.
std::vector<TestJson> Read(const std::string& json) {
  const std::optional<TestJson> document = TestJson::Parse(json);
  EXPECT_TRUE(document.has_value()) << json;
  if (!document) return {};
  const std::vector<TestJson>& events = (*document)["traceEvents"].items;
  using Key = std::pair<double, std::string>;
  std::map<Key, std::vector<std::pair<double, double>>> spans;
  std::map<Key, std::vector<std::pair<double, std::string>>> open;
  for (const TestJson& e : events) {
    const std::string& phase = e["ph"].text;
    if (phase == "X") {
      const Key key(e["pid"].number, std::to_string(e["tid"].number));
      const double begin = e["ts"].number, end = begin + e["dur"].number;
      auto& stack = spans[key];
      while (!stack.empty() && stack.back().second <= begin + 1e-6) stack.pop_back();
      if (!stack.empty()) {
        EXPECT_GE(begin, stack.back().first);
        EXPECT_LE(end, stack.back().second + 1e-6) << json;
      }
      stack.emplace_back(begin, end);
    } else if (phase == "b" || phase == "e") {
      auto& stack = open[{e["pid"].number, e["id"].text}];
      if (phase == "b") {
        stack.emplace_back(e["ts"].number, e["name"].text);
      } else if (stack.empty()) {
        ADD_FAILURE() << "closes what is not open";
      } else {
        EXPECT_EQ(stack.back().second, e["name"].text);
        EXPECT_LE(stack.back().first, e["ts"].number);
        stack.pop_back();
      }
    }
  }
  for (const auto& [key, stack] : open) EXPECT_TRUE(stack.empty()) << "never closed";
  return events;
}
std::vector<TestJson> Read(const TraceRecorder& recorder) { return Read(recorder.ToJson()); }

size_t Count(const std::vector<TestJson>& events, const std::string& phase,
             const std::string& category) {
  size_t count = 0;
  for (const TestJson& e : events) count += e["ph"].text == phase && e["cat"].text == category;
  return count;
}
const TestJson* Find(const std::vector<TestJson>& events, const std::string& name) {
  for (const TestJson& e : events) {
    if (e["name"].text == name) return &e;
  }
  return nullptr;
}

TEST(TraceRecorderTest, RecordsNothingWhileOff) {
  TraceRecorder recorder(4);
  recorder.Record(Blocks(1, 0, 1, 2));
  EXPECT_FALSE(recorder.enabled());
  EXPECT_TRUE(recorder.Take().events.empty());
  EXPECT_TRUE(Read(recorder).empty());
  recorder.Start({});
  recorder.Record(Blocks(1, 0, 1, 2));
  recorder.Stop();
  recorder.Record(Blocks(2, 0, 3, 4));
  EXPECT_EQ(recorder.Take().events.size(), 1u);
}

TEST(TraceRecorderTest, OverwritesTheOldestAndCountsThem) {
  TraceRecorder recorder(4);
  recorder.Start({});
  for (int i = 0; i < 7; ++i) recorder.Record(Blocks(i, 0, i, i + 1));
  const TraceRecorder::Snapshot snapshot = recorder.Take();
  ASSERT_EQ(snapshot.events.size(), 4u);
  EXPECT_EQ(snapshot.events.front().job, 3u);
  EXPECT_EQ(snapshot.events.back().job, 6u);
  EXPECT_EQ(snapshot.dropped, 3u);
  EXPECT_EQ(recorder.stats().dropped, 3u);
  EXPECT_EQ(recorder.stats().events, 4u);
}

TEST(TraceRecorderTest, StartForgetsWhatWasRecordedBefore) {
  TraceRecorder recorder(4);
  recorder.Start({});
  for (int i = 0; i < 6; ++i) recorder.Record(Blocks(i, 0, i, i + 1));
  recorder.Start({});
  EXPECT_TRUE(recorder.Take().events.empty());
  EXPECT_EQ(recorder.dropped(), 0u);
  recorder.Record(Blocks(9, 0, 9, 10));
  ASSERT_EQ(recorder.Take().events.size(), 1u);
  EXPECT_EQ(recorder.Take().events[0].job, 9u);
}

TEST(TraceRecorderTest, TakesWhatBeganBeforeTheEndAndThenSwitchesItselfOff) {
  TraceRecorder recorder(16);
  recorder.Start({1, Us(100)});
  recorder.Record(Blocks(1, 0, 90, 150));  // began in time
  recorder.Record(Blocks(2, 0, 101, 102));
  EXPECT_EQ(recorder.Take().events.size(), 1u);
  EXPECT_TRUE(recorder.enabled()) << "what is in flight may still end";
  recorder.Record(Blocks(3, 0, 10'000'000, 10'000'001));
  EXPECT_FALSE(recorder.enabled());
  EXPECT_EQ(recorder.Take().events.size(), 1u);
}

TEST(TraceRecorderTest, TheStandingSampleGoesOnAfterATraceOnDemand) {
  TraceRecorder recorder(16);
  recorder.SetStanding(50);
  EXPECT_EQ(recorder.stats().sample, 50u);
  recorder.Start({1, Us(100)});
  EXPECT_EQ(recorder.stats().sample, 1u);
  recorder.Record(Blocks(1, 0, 10'000'000, 10'000'001));  // long after the end
  EXPECT_EQ(recorder.stats().sample, 50u);
  EXPECT_TRUE(recorder.enabled());
  recorder.Record(Blocks(2, 0, 10'000'002, 10'000'003));
  EXPECT_EQ(recorder.Take().events.size(), 1u);
  recorder.SetStanding(0);
  EXPECT_FALSE(recorder.enabled());
}

TEST(TraceRecorderTest, SamplesAboutOneInNWhateverTheRhythm) {
  for (const uint64_t stride : {1, 2, 10, 1000}) {
    size_t hits = 0;
    for (uint64_t i = 0; i < 20'000; ++i) hits += TraceRecorder::Samples(i * stride, 10);
    EXPECT_NEAR(static_cast<double>(hits), 2000, 250) << "stride " << stride;
  }
  EXPECT_TRUE(TraceRecorder::Samples(7, 1));
  EXPECT_FALSE(TraceRecorder::Samples(7, 0));
}

TEST(TraceRecorderTest, NamesOfAnOwnerAreAskedForOnceAndStayWhileItLives) {
  TraceRecorder recorder(16);
  auto owner = std::make_shared<const int>(1);
  size_t asked = 0;
  const auto name = [&](size_t i) -> std::string_view {
    ++asked;
    return i == 0 ? "model" : "conv";
  };
  const uint32_t first = recorder.NamesOf(owner, 2, name);
  EXPECT_EQ(recorder.NamesOf(owner, 2, name), first);
  EXPECT_EQ(asked, 2u);
  // Names of nobody fill the table many times over.
  for (int i = 0; i < 100'000; ++i)
    recorder.Intern("tenant " + std::to_string(i) + std::string(100, 'x'));
  EXPECT_EQ(recorder.NamesOf(owner, 2, name), first);
  recorder.Start({});
  TraceEvent e = Blocks(1, 0, 1, 2);
  e.label = first;
  e.name = first + 1;
  recorder.Record(e);
  owner.reset();  // an evicted program: its names are still there for what was recorded
  EXPECT_EQ(recorder.Take().names.at(first + 1), "conv");
}

TEST(TraceRecorderTest, AForgottenNameIsSaidToBeForgotten) {
  TraceRecorder recorder(16);
  recorder.Start({});
  TraceEvent e = Blocks(1, 0, 1, 2);
  e.name = recorder.Intern("old");
  recorder.Record(e);
  for (int i = 0; i < 100'000; ++i) recorder.Intern(std::to_string(i) + std::string(200, 'x'));
  EXPECT_NE(Find(Read(recorder), "(forgotten)"), nullptr);
  EXPECT_NE(recorder.Intern("old"), e.name);
}

TEST(TraceRecorderTest, AnOwnerWhereAForgottenOneLayGetsItsOwnNames) {
  TraceRecorder recorder(16);
  // The same address with another owner: what a freed and reused block of memory looks like.
  int place = 0;
  const auto owner_at = [&place] {
    return std::shared_ptr<const void>(&place, [](const void*) {});
  };
  auto owner = owner_at();
  const uint32_t first = recorder.NamesOf(owner, 1, [](size_t) { return "first"; });
  owner = owner_at();
  const uint32_t second = recorder.NamesOf(owner, 1, [](size_t) { return "second"; });
  EXPECT_NE(first, second);
}

TEST(TraceRecorderTest, WritersOfManyThreadsNeverTearAnEvent) {
  TraceRecorder recorder(64);
  recorder.Start({});
  constexpr int kThreads = 4, kEvents = 3000;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&recorder, t] {
      for (int i = 0; i < kEvents; ++i) {
        TraceEvent e = Blocks(static_cast<uint64_t>(t * kEvents + i), 0, 0, 1);
        e.request = e.job;
        e.remaining_ns = static_cast<int64_t>(e.job);
        e.name = recorder.Intern(std::to_string(t));
        recorder.Record(e);
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    for (const TraceEvent& e : recorder.Take().events) {
      ASSERT_EQ(e.job, e.request);
      ASSERT_EQ(static_cast<int64_t>(e.job), e.remaining_ns);
    }
  }
  for (std::thread& thread : threads) thread.join();
  const TraceRecorder::Stats stats = recorder.stats();
  EXPECT_EQ(stats.events + stats.dropped, static_cast<uint64_t>(kThreads * kEvents));
}

TEST(TraceRecorderTest, MayBeSwitchedWhileOthersRecord) {
  TraceRecorder recorder(32);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t i = 0; !stop; ++i) recorder.Record(Blocks(i, 0, 1, 2));
  });
  for (uint32_t i = 0; i < 300; ++i) {
    recorder.Start({1 + i % 3, Us(static_cast<int>(i % 5))});
    recorder.ToJson();
    recorder.Stop();
    recorder.SetStanding(i % 2);
  }
  stop = true;
  writer.join();
}

// --- The document

TEST(TraceJsonTest, ShowsAUnitWithAJobsStayAndItsBlocks) {
  TraceRecorder recorder(64);
  const uint16_t device = recorder.AddDevice("xeon", "cpu worker");
  recorder.Start({});
  TraceEvent e = Blocks(5, 1, 10, 20);
  e.device = device;
  e.label = recorder.Intern("resnet18");
  e.name = recorder.Intern("conv");
  e.request = 77;
  e.tenant = 0;
  e.first_block = 4;
  e.blocks = 3;
  e.mark = Us(8);
  e.key = 1.5;
  e.remaining_ns = 2500;
  e.ready = 9;
  recorder.Record(e);
  const std::vector<TestJson> events = Read(recorder);
  EXPECT_EQ(Find(events, "process_name")->operator[]("args")["name"].text, "xeon");
  EXPECT_EQ(Find(events, "thread_name")->operator[]("args")["name"].text, "cpu worker 1");
  const TestJson* conv = Find(events, "conv");
  ASSERT_NE(conv, nullptr);
  EXPECT_EQ((*conv)["ts"].number, 2);  // from the first thing known, the decision
  EXPECT_EQ((*conv)["dur"].number, 10);
  EXPECT_EQ((*conv)["args"]["blocks"].text, "4..6");
  EXPECT_EQ((*conv)["args"]["job"].number, 5);
  EXPECT_EQ((*conv)["args"]["request"].number, 77);
  EXPECT_EQ((*conv)["args"]["waited_us"].number, 2);
  const TestJson* stay = Find(events, "resnet18 #5");
  ASSERT_NE(stay, nullptr);
  EXPECT_EQ((*stay)["ph"].text, "X");
  EXPECT_EQ(Count(events, "i", "decision"), 1u);
  for (const TestJson& d : events) {
    if (d["cat"].text != "decision") continue;
    EXPECT_EQ(d["ts"].number, 0);
    EXPECT_EQ(d["args"]["ready"].number, 9);
    EXPECT_EQ(d["args"]["key"].number, 1.5);
    EXPECT_EQ(d["args"]["remaining_us"].number, 2.5);
    EXPECT_EQ(d["args"]["kernel"].text, "conv");
  }
}

TEST(TraceJsonTest, BlocksSideBySideOnOneUnitGetTracksOfTheirOwn) {
  TraceRecorder recorder(64);
  recorder.AddDevice("T4", "SM");
  recorder.Start({});
  recorder.Record(Blocks(1, 3, 0, 10));
  recorder.Record(Blocks(2, 3, 5, 15));
  recorder.Record(Blocks(1, 3, 10, 20));
  std::set<std::string> tracks;
  for (const TestJson& e : Read(recorder)) {
    if (e["name"].text == "thread_name") tracks.insert(e["args"]["name"].text);
  }
  EXPECT_EQ(tracks, (std::set<std::string>{"SM 3", "SM 3 (2)", "decisions"}));
}

TEST(TraceJsonTest, ArrowsLeadFromAJobToItsStays) {
  TraceRecorder recorder(64);
  recorder.AddDevice("xeon", "cpu worker");
  recorder.Start({});
  recorder.Record(Blocks(1, 0, 10, 20));
  recorder.Record(Blocks(2, 0, 20, 30));
  recorder.Record(Blocks(1, 0, 30, 40));
  TraceEvent job = Of(TraceKind::kJob, 4, 5, 40);
  job.job = 1;
  job.mark = Us(10);
  recorder.Record(job);
  const std::vector<TestJson> events = Read(recorder);
  EXPECT_EQ(Count(events, "s", "flow"), 1u);  // job 2 has one stay and no span: no arrow
  EXPECT_EQ(Count(events, "t", "flow"), 1u);
  EXPECT_EQ(Count(events, "f", "flow"), 1u);
  const TestJson* waits = Find(events, "waits");
  ASSERT_NE(waits, nullptr);
  EXPECT_EQ((*waits)["dur"].number, 5);
}

TEST(TraceJsonTest, ARequestHoldsWhatItDid) {
  TraceRecorder recorder(64);
  recorder.Start({});
  TraceEvent request = Of(TraceKind::kRequest, 7, 0, 100);
  request.name = recorder.Intern("wake");
  request.tenant = 3;
  request.label = recorder.Intern("acme");
  request.code = static_cast<uint8_t>(StatusCode::kDeadlineExceeded);
  for (TraceEvent e : {Of(TraceKind::kDecode, 7, 0, 10), Of(TraceKind::kCompileWait, 7, 10, 50),
                       Of(TraceKind::kJob, 7, 50, 80), Of(TraceKind::kJoin, 7, 80, 90),
                       Of(TraceKind::kEncode, 7, 90, 100)}) {
    e.tenant = 3;
    e.name = recorder.Intern("wake");
    if (e.kind == TraceKind::kJob) e.mark = Us(60);
    recorder.Record(e);
  }
  recorder.Record(request);
  const std::vector<TestJson> events = Read(recorder);
  EXPECT_EQ(Count(events, "b", "request"), 7u);
  std::set<std::string> ids, names;
  for (const TestJson& e : events) {
    if (e["ph"].text != "b") continue;
    ids.insert(e["id"].text);
    names.insert(e["name"].text);
  }
  EXPECT_EQ(ids.size(), 1u) << "one tree";
  EXPECT_EQ(names, (std::set<std::string>{"wake", "decode", "wait for compile of wake", "job wake",
                                          "wait for launch", "join wake", "encode"}));
  const TestJson* root = Find(events, "wake");
  EXPECT_EQ((*root)["args"]["tenant"].text, "acme");
  EXPECT_EQ((*root)["args"]["status"].text, "DEADLINE_EXCEEDED");
  EXPECT_EQ((*root)["args"]["request"].number, 7);
}

TEST(TraceJsonTest, WhatDoesNotNestGetsATreeOfItsOwn) {
  TraceRecorder recorder(64);
  recorder.Start({});
  recorder.Record(Of(TraceKind::kRequest, 7, 0, 50));
  recorder.Record(Of(TraceKind::kJob, 7, 10, 40));
  recorder.Record(Of(TraceKind::kJob, 7, 20, 60));
  recorder.Record(Of(TraceKind::kJob, 7, 50, 60));
  Read(recorder);  // checks the pairs
}

TEST(TraceJsonTest, HostileNamesStayNames) {
  TraceRecorder recorder(64);
  const std::string hostile[] = {"\"},{\"ph\":\"X\"",
                                 "a\\",
                                 std::string("nul\0x", 5),
                                 "\x01\x1f\x7f\n\t",
                                 "\xff\xfe broken \xc3",
                                 "\xed\xa0\x80 surrogate",
                                 "\xf5\x80\x80\x80",
                                 "</script>",
                                 "\u65e5\u672c\u8a9e \U0001f600",
                                 std::string(100'000, '"')};
  recorder.AddDevice(hostile[0], hostile[1]);
  recorder.Start({});
  for (const std::string& name : hostile) {
    TraceEvent e = Blocks(1, 0, 1, 2);
    e.name = e.label = recorder.Intern(name);
    recorder.Record(e);
  }
  const std::vector<TestJson> events = Read(recorder);
  EXPECT_NE(Find(events, hostile[0]), nullptr);
  EXPECT_NE(Find(events, hostile[2]), nullptr);
  EXPECT_NE(Find(events, hostile[8]), nullptr);
  EXPECT_NE(Find(events, "\ufffd\ufffd broken \ufffd"), nullptr);
}

TEST(TraceJsonTest, NumbersThatAreNoneAreText) {
  TraceRecorder recorder(64);
  recorder.Start({});
  for (const double key : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    TraceEvent e = Blocks(1, 0, 1, 2);
    e.key = key;
    recorder.Record(e);
  }
  Read(recorder);
}

TEST(TraceJsonTest, ComesInPiecesAndStopsWhenTheSinkGivesUp) {
  TraceRecorder recorder(4096);
  recorder.Start({});
  for (int i = 0; i < 4000; ++i) recorder.Record(Blocks(i, 0, i, i + 1));
  size_t pieces = 0, largest = 0;
  std::string whole;
  const TraceRecorder::Snapshot snapshot = recorder.Take();
  EXPECT_TRUE(WriteTraceJson(snapshot, [&](std::string_view piece) {
    ++pieces;
    largest = std::max(largest, piece.size());
    whole += piece;
    return true;
  }));
  EXPECT_GT(pieces, 10u);
  EXPECT_LT(largest, 80u << 10);
  EXPECT_EQ(Count(Read(whole), "X", "blocks"), 4000u);
  pieces = 0;
  EXPECT_FALSE(WriteTraceJson(snapshot, [&](std::string_view) { return ++pieces < 3; }));
  EXPECT_EQ(pieces, 3u);
}

TEST(TraceJsonTest, WritesAFileOrSaysWhichOneItCannot) {
  TraceRecorder recorder(4);
  recorder.Start({});
  recorder.Record(Blocks(1, 0, 1, 2));
  const std::string path = testing::TempDir() + "plexus_trace_test.json";
  ASSERT_TRUE(WriteTraceFile(recorder.Take(), path).ok());
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::remove(path.c_str());
  EXPECT_EQ(Count(Read(text.str()), "X", "blocks"), 1u);
  const Status status = WriteTraceFile(recorder.Take(), "/nowhere/at/all.json");
  EXPECT_EQ(status.code(), StatusCode::kPermissionDenied);
  EXPECT_NE(status.message().find("/nowhere/at/all.json"), std::string::npos);
}

}  // namespace
}  // namespace plexus
