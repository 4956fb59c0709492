#include "simulate/report.h"

#include <gtest/gtest.h>

namespace plexus {
namespace {

using std::chrono::milliseconds;

Workload OneModel() {
  return ParseWorkload("models: [{name: m, kernels: [{grid: 1, block_us: 5}]}]", "w", {}).value();
}

TEST(ReportTest, PercentilesAreByNearestRank) {
  Workload w = OneModel();
  w.models[0].alone_time = milliseconds(2);
  SimulationResult result;
  for (int i = 100; i >= 1; --i) {
    result.jobs.push_back({0, TimePoint(milliseconds(10)), TimePoint(milliseconds(10 + i))});
  }
  result.end = TimePoint(milliseconds(110));
  const Report report = MakeReport(w, result);
  EXPECT_EQ(report.all.jobs, 100u);
  EXPECT_DOUBLE_EQ(report.all.p50_ms, 50);
  EXPECT_DOUBLE_EQ(report.all.p90_ms, 90);
  EXPECT_DOUBLE_EQ(report.all.p99_ms, 99);
  EXPECT_DOUBLE_EQ(report.all.max_ms, 100);
  EXPECT_DOUBLE_EQ(report.all.mean_ms, 50.5);
  EXPECT_DOUBLE_EQ(report.all.mean_slowdown, 50.5 / 2);
  EXPECT_DOUBLE_EQ(report.makespan_s, 0.1);
  EXPECT_DOUBLE_EQ(report.throughput_per_s, 1000);
  EXPECT_EQ(report.offered_per_s, 0);
}

TEST(ReportTest, EveryTextSaysThatItIsSimulated) {
  Workload w = OneModel();
  w.models[0].name = "<m>&";
  SimulationResult result;
  result.jobs.push_back({0, TimePoint{}, TimePoint(milliseconds(1))});
  result.end = TimePoint(milliseconds(1));
  const Report report = MakeReport(w, result);
  EXPECT_NE(ReportToJson(w, report).find("\"simulated\":true"), std::string::npos);
  EXPECT_NE(ReportToTable(w, report).find("simulated t4"), std::string::npos);
  const std::string svg = ReportToSvg(w, result);
  EXPECT_NE(svg.find("simulated t4"), std::string::npos);
  EXPECT_NE(svg.find("&lt;m>&amp;"), std::string::npos);
}

TEST(ReportTest, TheTableTellsHowManyMetTheirDeadlineWhereThereAreAny) {
  Workload w = OneModel();
  w.models[0].alone_time = milliseconds(2);
  SimulationResult result;
  for (int i = 1; i <= 4; ++i) {
    result.jobs.push_back({0, TimePoint{}, TimePoint(milliseconds(i))});
  }
  result.end = TimePoint(milliseconds(4));
  EXPECT_EQ(ReportToTable(w, MakeReport(w, result)).find("in time"), std::string::npos);
  w.models[0].deadline = milliseconds(3);
  const std::string table = ReportToTable(w, MakeReport(w, result));
  EXPECT_NE(table.find("in time\n"), std::string::npos) << table;
  EXPECT_NE(table.find(" 75.0 %\n"), std::string::npos) << table;
}

TEST(ReportTest, AModelWithoutJobsIsShownWithoutNumbers) {
  Workload w = OneModel();
  const Report report = MakeReport(w, SimulationResult{});
  ASSERT_EQ(report.models.size(), 1u);
  EXPECT_EQ(report.models[0].jobs, 0u);
  EXPECT_EQ(ReportToJson(w, report).find("nan"), std::string::npos);
}

}  // namespace
}  // namespace plexus
