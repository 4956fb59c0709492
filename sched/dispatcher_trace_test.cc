#include <gtest/gtest.h>

#include <map>

#include "sched/test_bed.h"

namespace plexus {
namespace {

TestBed::Options Worker() {
  TestBed::Options options;
  options.device.units = 1;
  return options;
}

TEST(DispatcherTraceTest, NamesBlocksJobsAndDecisionsOnlyWhenEnabled) {
  TestBed bed(Worker());
  bed.Submit(Chain("quiet", 1, 1, kUs));
  bed.Run();
  EXPECT_EQ(bed.trace.ToJson().find("\"k0\""), std::string::npos);
  bed.trace.Start({});
  bed.Submit(Chain("loud", 1, 1, kUs));
  bed.Run();
  const std::string json = bed.trace.ToJson();
  for (const char* word : {"\"k0\"", "\"loud #", "\"decision\"", "\"blocks\"", "\"job\""}) {
    EXPECT_NE(json.find(word), std::string::npos) << word;
  }
}

TEST(DispatcherTraceTest, TellsTheDecisionAndWhereTheBlocksRan) {
  TestBed::Options options = Worker();
  options.policy = "srpt";
  TestBed bed(options);
  bed.trace.Start({});
  const JobId first = bed.Submit(Chain("first", 1, 1, 10 * kUs));
  JobSpec spec = bed.Spec(Chain("second", 1, 3, 5 * kUs));
  spec.attributes.request = RequestId(42);
  spec.attributes.tenant = TenantId(7);
  spec.attributes.remaining_path = 100 * kUs;
  const TimePoint submitted = bed.clock.Now();
  const JobId second = bed.Submit(std::move(spec));
  bed.Run();
  const TraceRecorder::Snapshot taken = bed.trace.Take();
  std::map<uint64_t, uint32_t> next_block;
  for (const TraceEvent& e : taken.events) {
    if (e.job != second.value()) {
      EXPECT_EQ(e.job, first.value());
      EXPECT_EQ(e.request, kNoTraceId);
      continue;
    }
    EXPECT_EQ(e.request, 42u);
    EXPECT_EQ(e.tenant, 7u);
    if (e.kind == TraceKind::kJob) {
      EXPECT_EQ(taken.names.at(e.name), "second");
      EXPECT_EQ(e.begin, submitted);
      EXPECT_EQ(e.end, bed.EndOf(second));
      EXPECT_EQ(e.mark, submitted + 10 * kUs) << "first launched when the first job was done";
      continue;
    }
    ASSERT_EQ(e.kind, TraceKind::kBlocks);
    EXPECT_EQ(taken.names.at(e.name), "k0");
    EXPECT_EQ(e.unit, 0u);
    EXPECT_EQ(e.first_block, next_block[e.job]);
    next_block[e.job] += e.blocks;
    EXPECT_EQ(e.end - e.begin, e.blocks * 5 * kUs);
    EXPECT_EQ(e.ready, 1u);
    EXPECT_EQ(e.key, static_cast<double>(e.remaining_ns));
    EXPECT_GE(Duration(e.remaining_ns), 100 * kUs);
  }
  EXPECT_EQ(next_block[second.value()], 3u);
}

TEST(DispatcherTraceTest, LeavesOutAJobWhoseRequestIsNotSampled) {
  TestBed bed(Worker());
  bed.trace.Start({});
  JobSpec spec = bed.Spec(Chain("hidden", 2, 2, kUs));
  spec.attributes.traced = false;
  bed.Submit(std::move(spec));
  bed.Run();
  EXPECT_TRUE(bed.trace.Take().events.empty());
}

TEST(DispatcherTraceTest, PartsOfALaunchThatTheHardwarePlacesCountItsBlocksUp) {
  TestBed::Options options;
  options.device.units = 2;
  options.device.unit_addressed = false;
  TestBed bed(options);
  bed.trace.Start({});
  bed.Submit(Chain("grid", 1, 64, kUs));
  bed.Run();
  uint32_t next = 0;
  for (const TraceEvent& e : bed.trace.Take().events) {
    if (e.kind != TraceKind::kBlocks) continue;
    EXPECT_EQ(e.unit, kNoTraceUnit);
    EXPECT_EQ(e.first_block, next);
    next += e.blocks;
  }
  EXPECT_EQ(next, 64u);
}

}  // namespace
}  // namespace plexus
