// Places in line: jobs that are put together when their turn comes.
#include <gtest/gtest.h>

#include "sched/test_bed.h"

namespace plexus {
namespace {

// Notes its turn; answers it at once with a job if it was given one.
class Holder : public PlaceHolder {
 public:
  explicit Holder(TestBed& bed) : bed_(bed) {}
  void OnTurn(JobId place) override {
    ++turns;
    if (answer == nullptr) return;
    JobSpec spec = bed_.Spec(answer);
    spec.attributes = attributes;
    const std::vector<JobId> places = {place};
    const Result<JobId> made = bed_.dispatcher.Replace(places, std::move(spec));
    ASSERT_TRUE(made.ok());
    bed_.programs[*made] = answer;
    job = *made;
  }
  void OnJobDone(JobId, Status status, JobBuffers) override { ended.push_back(std::move(status)); }

  RequestAttributes attributes;
  ProgramPtr answer;
  int turns = 0;
  JobId job;
  std::vector<Status> ended;

 private:
  TestBed& bed_;
};

class PlaceTest : public ::testing::Test {
 protected:
  void Make(uint32_t units, const std::string& policy = "fifo", bool addressed = true) {
    TestBed::Options options;
    options.device.units = units;
    options.device.unit_addressed = addressed;
    options.policy = policy;
    bed_ = std::make_unique<TestBed>(options);
  }
  std::shared_ptr<Holder> Place(RequestAttributes attributes = {}) {
    auto holder = std::make_shared<Holder>(*bed_);
    holder->attributes = attributes;
    JobSpec spec;
    spec.program = Chain("one", 1, 1, 10 * kUs);
    spec.attributes = attributes;
    spec.place = holder;
    const Result<JobId> id = bed_->dispatcher.Submit(std::move(spec));
    EXPECT_TRUE(id.ok()) << id.status().ToString();
    last_ = id.ok() ? *id : JobId();
    return holder;
  }
  std::unique_ptr<TestBed> bed_;
  JobId last_;
};

TEST_F(PlaceTest, OnAnIdleDeviceItsTurnComesAtOnceAndTheJobRunsInstead) {
  for (const bool addressed : {true, false}) {
    Make(1, "fifo", addressed);
    auto holder = std::make_shared<Holder>(*bed_);
    holder->answer = Chain("many", 1, 1, 30 * kUs);
    JobSpec spec;
    spec.program = Chain("one", 1, 1, 10 * kUs);
    spec.place = holder;
    ASSERT_TRUE(bed_->dispatcher.Submit(std::move(spec)).ok());
    bed_->Run();
    EXPECT_EQ(holder->turns, 1);
    EXPECT_TRUE(holder->ended.empty());
    EXPECT_TRUE(bed_->Ended(holder->job));
    bed_->CheckAtRest();
    bed_->CheckHistory();
    EXPECT_EQ(holder.use_count(), 1) << "the dispatcher has let go";
  }
}

TEST_F(PlaceTest, TheOrderIsThatOfThePlaces) {
  Make(1, "edf");
  bed_->Submit(Chain("busy", 1, 1, 100 * kUs));
  RequestAttributes soon;
  soon.deadline = bed_->clock.Now() + 200 * kUs;
  JobSpec later = bed_->Spec(Chain("later", 1, 1, 50 * kUs));  // too long to wait at the unit
  later.attributes.deadline = bed_->clock.Now() + 400 * kUs;
  const JobId other = bed_->Submit(std::move(later));
  const std::shared_ptr<Holder> holder = Place(soon);
  holder->answer = Chain("many", 1, 1, 30 * kUs);
  EXPECT_EQ(holder->turns, 0) << "the device is busy";
  bed_->Run();
  EXPECT_EQ(holder->turns, 1);
  EXPECT_LT(bed_->EndOf(holder->job), bed_->EndOf(other));
}

TEST_F(PlaceTest, TheOtherUnitsGoOnMeanwhile) {
  Make(2);
  const std::shared_ptr<Holder> holder = Place();
  EXPECT_EQ(holder->turns, 1);
  const JobId place = last_;
  const JobId other = bed_->Submit(Chain("other", 1, 1, 10 * kUs));
  bed_->Run();
  EXPECT_TRUE(bed_->Ended(other));
  EXPECT_TRUE(bed_->dispatcher.Withdraw(place).has_value());
  bed_->CheckAtRest();
}

TEST_F(PlaceTest, TheDeviceIsKeptFreeUntilATurnIsAnswered) {
  for (const bool addressed : {true, false}) {
    Make(1, "fifo", addressed);
    const std::shared_ptr<Holder> holder = Place();
    const JobId place = last_;
    const std::shared_ptr<Holder> second = Place();
    second->answer = Chain("many", 1, 1, 10 * kUs);
    const JobId other = bed_->Submit(Chain("other", 1, 1, 10 * kUs));
    bed_->Run();
    EXPECT_EQ(holder->turns, 1);
    EXPECT_EQ(second->turns, 0);
    EXPECT_FALSE(bed_->Ended(other));
    EXPECT_TRUE(bed_->dispatcher.Withdraw(place).has_value());
    EXPECT_FALSE(bed_->dispatcher.Withdraw(place).has_value());
    EXPECT_EQ(second->turns, 1);
    bed_->Run();
    EXPECT_TRUE(bed_->Ended(second->job));
    EXPECT_TRUE(holder->ended.empty());
    EXPECT_EQ(holder.use_count(), 1);
    bed_->CheckAtRest();
  }
}

TEST_F(PlaceTest, AJobTakesTheFirstOfThePlacesThatItReplaces) {
  Make(1);
  bed_->Submit(Chain("busy", 1, 1, 100 * kUs));
  const std::shared_ptr<Holder> a = Place();
  std::vector<JobId> places = {last_};
  const JobId other = bed_->Submit(Chain("other", 1, 1, 10 * kUs));
  const std::shared_ptr<Holder> b = Place();
  places.insert(places.begin(), last_);
  JobSpec spec = bed_->Spec(Chain("many", 1, 1, 30 * kUs));
  spec.attributes.arrival = bed_->clock.Now();
  const Result<JobId> made = bed_->dispatcher.Replace(places, std::move(spec));
  ASSERT_TRUE(made.ok());
  bed_->programs[*made] = Chain("many", 1, 1, 30 * kUs);
  bed_->Run();
  EXPECT_EQ(a->turns + b->turns, 0);
  EXPECT_LT(bed_->EndOf(*made), bed_->EndOf(other));
  EXPECT_EQ(bed_->dispatcher.stats().jobs_submitted, 3u) << "places do not count";
  bed_->CheckAtRest();
}

TEST_F(PlaceTest, WhatIsRefusedLeavesNoPlacesBehind) {
  Make(1);
  const std::shared_ptr<Holder> holder = Place();
  const std::vector<JobId> places = {last_};
  EXPECT_EQ(bed_->dispatcher.Replace(places, JobSpec()).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_FALSE(bed_->dispatcher.Withdraw(last_).has_value());
  const JobId other = bed_->Submit(Chain("other", 1, 1, 10 * kUs));
  bed_->Run();
  EXPECT_TRUE(bed_->Ended(other)) << "the unit is free";
  bed_->CheckAtRest();
}

TEST_F(PlaceTest, TimeoutsAndCancelsEndThemAndTheirHolderHears) {
  Make(1);
  bed_->Submit(Chain("busy", 1, 1, 100 * kUs));
  RequestAttributes hasty;
  hasty.timeout_at = bed_->clock.Now() + 50 * kUs;
  const std::shared_ptr<Holder> late = Place(hasty);
  const std::shared_ptr<Holder> cancelled = Place();
  bed_->dispatcher.Cancel(last_, CancelledError("enough"));
  bed_->clock.Advance(60 * kUs);
  bed_->dispatcher.Pump(bed_->clock.Now());
  ASSERT_EQ(late->ended.size(), 1u);
  EXPECT_EQ(late->ended[0].code(), StatusCode::kDeadlineExceeded);
  ASSERT_EQ(cancelled->ended.size(), 1u);
  EXPECT_EQ(cancelled->ended[0].code(), StatusCode::kCancelled);
  bed_->Run();
  EXPECT_EQ(late->turns + cancelled->turns, 0);
  EXPECT_EQ(late.use_count() + cancelled.use_count(), 2);
}

TEST_F(PlaceTest, AnUnansweredTurnThatIsCancelledFreesTheUnit) {
  Make(1);
  const std::shared_ptr<Holder> holder = Place();
  bed_->dispatcher.Cancel(last_, OkStatus());
  ASSERT_EQ(holder->ended.size(), 1u);
  const JobId other = bed_->Submit(Chain("other", 1, 1, 10 * kUs));
  bed_->Run();
  EXPECT_TRUE(bed_->Ended(other));
}

TEST_F(PlaceTest, ATenantThatLacksItsShareHasItsTurnFirst) {
  Make(1, "fair(fifo, 1000)");
  bed_->Submit(Chain("busy", 1, 1, 1000 * kUs));
  RequestAttributes flood, calm;
  flood.tenant = TenantId(0);
  calm.tenant = TenantId(1);
  std::vector<std::shared_ptr<Holder>> flooding;
  for (int i = 0; i < 20; ++i) {
    flooding.push_back(Place(flood));
    flooding.back()->answer = Chain("many", 1, 1, 1000 * kUs);
  }
  const std::shared_ptr<Holder> one = Place(calm);
  one->answer = Chain("calm", 1, 1, 10 * kUs);
  bed_->Run();
  int before = 0;
  for (const auto& each : flooding) before += bed_->EndOf(each->job) < bed_->EndOf(one->job);
  EXPECT_LT(before, 20);
}

}  // namespace
}  // namespace plexus
