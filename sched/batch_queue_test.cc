// Batches on the real dispatcher and a simulated device.
#include "sched/batch_queue.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>
#include <utility>

#include "sched/test_bed.h"

namespace plexus {
namespace {

struct Item : BatchItem {
  int answers = 0;
  uint32_t rows_of_batch = 0;
  Status status;
  TimePoint at{};
};
using ItemPtr = std::shared_ptr<Item>;

// One kind of work on one simulated core; a batch of n takes `base + n * each`.
class Bed : public BatchQueue::Host {
 public:
  Bed(const std::string& policy, Duration base, Duration each, uint32_t max_rows = 8)
      : base_(base),
        each_(each),
        bed_(Options()),
        max_rows_(max_rows),
        policy_(MakeBatchPolicy(policy).value()),
        queue_(*this, bed_.dispatcher, Chain("x1", 1, 1, Time(1)), *policy_, max_rows) {}

  ItemPtr Add(RequestAttributes attributes = {}, uint32_t rows = 1) {
    auto item = std::make_shared<Item>();
    item->rows = rows;
    if (attributes.arrival == TimePoint{}) attributes.arrival = bed_.clock.Now();
    item->attributes = attributes;
    ++under_way_;
    queue_.Add(item);
    return item;
  }
  // Sizes up to `most`, all learned.
  void Teach(uint32_t most) {
    for (uint32_t size = 1; size <= most; size *= 2) {
      if (size > 1) queue_.SetReady(size);
      const auto nobody = std::make_shared<Running>();
      for (int i = 0; i < 3; ++i) queue_.Ended(nobody, size, {Time(size), Time(size)});
    }
  }
  // Somebody else's jobs: the core is busy so long, and one more waits at the core itself.
  void Occupy(Duration time) {
    bed_.Submit(Chain("other", 1, 1, time));
    bed_.Submit(Chain("next", 1, 1, kUs));
  }
  void Run() {
    while (bed_.device.Step() || WakeUp()) {
    }
  }
  void RunUntilABatchIsFormed() {
    while (specs.empty() && bed_.device.Step()) {
    }
  }
  bool WakeUp() {
    if (wake_at_ == TimePoint::max()) return false;
    if (wake_at_ > bed_.clock.Now()) bed_.clock.Advance(wake_at_ - bed_.clock.Now());
    wake_at_ = TimePoint::max();
    queue_.Wake();
    return true;
  }

  BatchQueue& queue() { return queue_; }
  TestBed& bed() { return bed_; }
  Duration Time(uint32_t size) const { return base_ + each_ * size; }

  std::vector<uint32_t> prepared;
  bool prepares = true;  // a size asked for is there at once
  bool refuses = false;  // no batch can be handed over
  bool in_vain = false;  // so it was elsewhere
  int cancelled = 0;
  std::function<void()> when_submitted = [] {};
  std::vector<JobSpec> specs;
  std::vector<BatchItemPtr> last_items;  // of the last batch submitted

 private:
  struct Running : Batch, JobListener {
    Bed* bed = nullptr;
    JobId job;
    uint32_t size = 1;
    std::shared_ptr<Running> self;
    void OnJobDone(JobId id, Status status, JobBuffers) override { bed->Done(*this, id, status); }
  };

  static TestBed::Options Options() {
    TestBed::Options o;
    o.device.units = 1;
    return o;
  }

  // --- BatchQueue::Host
  BatchPtr NewBatch() override {
    auto batch = std::make_shared<Running>();
    batch->bed = this;
    return batch;
  }
  Status Submit(const BatchPtr& batch, std::span<const JobId> places) override {
    if (refuses) return UnavailableError("no more");
    auto running = std::static_pointer_cast<Running>(batch);
    running->size = queue_.Fit(batch->rows);
    if (running->size == 0) {
      EXPECT_EQ(batch->items.size(), 1u) << "given up since";
      return UnavailableError("no program for so many");
    }
    EXPECT_GE(running->size, batch->rows);
    EXPECT_LE(running->size, max_rows_);
    for (const BatchItemPtr& item : batch->items) {
      EXPECT_EQ(item->attributes.priority, batch->items[0]->attributes.priority);
    }
    JobSpec spec = bed_.Spec(Chain("x" + std::to_string(running->size), 1, 1, Time(running->size)));
    spec.listener = running.get();
    spec.attributes = JobAttributes(batch->items);
    spec.payers = JobPayers(batch->items);
    specs.push_back(spec);
    last_items = batch->items;
    running->self = running;
    const Result<JobId> job = bed_.dispatcher.Replace(places, std::move(spec));
    EXPECT_TRUE(job.ok()) << job.status().ToString();
    std::exchange(when_submitted, [] {})();
    running->job = *job;
    return OkStatus();
  }
  void Cancel(Batch& batch) override {
    ++cancelled;
    bed_.dispatcher.Cancel(static_cast<Running&>(batch).job, OkStatus());
  }
  void Failed(std::vector<BatchItemPtr> items, const Status& why) override {
    for (const BatchItemPtr& each : items) {
      Item& item = static_cast<Item&>(*each);
      ++item.answers;
      --under_way_;
      item.status = why;
    }
  }
  void Prepare(uint32_t size) override {
    prepared.push_back(size);
    if (prepares) queue_.SetReady(size);
  }
  void WakeAt(TimePoint at) override { wake_at_ = std::min(wake_at_, at); }
  TimePoint Now() override { return bed_.clock.Now(); }
  bool InVain() override { return in_vain; }
  uint32_t JobsUnderWay() override { return under_way_ + others; }

  void Done(Running& running, JobId id, const Status& status) {
    const std::shared_ptr<Running> batch = std::move(running.self);
    bed_.OnJobDone(id, status, {});
    if (status.ok()) {
      queue_.Ended(batch, batch->size, {Time(batch->size), Time(batch->size)});
    } else {
      queue_.Ended(batch);
    }
    for (const BatchItemPtr& each : batch->items) {
      if (!queue_.Claim(*each)) continue;
      Item& item = static_cast<Item&>(*each);
      ++item.answers;
      --under_way_;
      item.status = status;
      item.rows_of_batch = batch->rows;
      item.at = bed_.clock.Now();
    }
  }

 public:
  uint32_t others = 0;

 private:
  const Duration base_, each_;
  TestBed bed_;
  const uint32_t max_rows_;
  std::unique_ptr<BatchPolicy> policy_;
  BatchQueue queue_;
  TimePoint wake_at_ = TimePoint::max();
  uint32_t under_way_ = 0;
};

TEST(BatchQueueTest, OneRowOnAnIdleDeviceRunsAtOnceAndAlone) {
  for (const char* policy : {"none", "immediate", "deferred", "path-aware"}) {
    Bed bed(policy, 10 * kUs, kUs);
    bed.Teach(8);
    const TimePoint from = bed.bed().clock.Now();
    const ItemPtr item = bed.Add();
    bed.Run();
    EXPECT_EQ(item->answers, 1);
    EXPECT_EQ(item->rows_of_batch, 1u);
    EXPECT_EQ(item->at, from + 11 * kUs) << policy;
  }
}

TEST(BatchQueueTest, RowsThatWaitForTheDeviceBecomeOneBatch) {
  for (const char* policy : {"immediate", "path-aware"}) {
    Bed bed(policy, 10 * kUs, kUs);
    bed.Teach(8);
    bed.Occupy(100 * kUs);
    std::vector<ItemPtr> items;
    for (int i = 0; i < 4; ++i) items.push_back(bed.Add());
    bed.Run();
    for (const ItemPtr& item : items) EXPECT_EQ(item->rows_of_batch, 4u) << policy;
    EXPECT_EQ(bed.bed().dispatcher.stats().jobs_done, 3u);
    bed.bed().CheckAtRest();
  }
}

TEST(BatchQueueTest, WhatHasBegunDoesNotGrow) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  const ItemPtr first = bed.Add();  // begins at once
  bed.Occupy(100 * kUs);
  const ItemPtr second = bed.Add(), third = bed.Add();
  bed.Run();
  EXPECT_EQ(first->rows_of_batch, 1u);
  EXPECT_EQ(second->rows_of_batch, 2u);
  EXPECT_EQ(third->rows_of_batch, 2u);
}

TEST(BatchQueueTest, AFullBatchIsFollowedByAnother) {
  Bed bed("immediate", 10 * kUs, kUs, 4);
  bed.Teach(4);
  bed.Occupy(100 * kUs);
  std::vector<ItemPtr> items;
  for (int i = 0; i < 6; ++i) items.push_back(bed.Add());
  bed.Run();
  EXPECT_EQ(items[0]->rows_of_batch, 4u);
  EXPECT_EQ(items[5]->rows_of_batch, 2u);
}

TEST(BatchQueueTest, SizesAreAskedForOnceAndUsedWhenTheyAreThere) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.prepares = false;
  bed.Occupy(100 * kUs);
  std::vector<ItemPtr> items;
  for (int i = 0; i < 4; ++i) items.push_back(bed.Add());
  EXPECT_EQ(bed.prepared, (std::vector<uint32_t>{2}));
  bed.queue().SetReady(2);
  for (int i = 0; i < 2; ++i) items.push_back(bed.Add());
  EXPECT_EQ(bed.prepared, (std::vector<uint32_t>{2, 4}));
  bed.Run();
  EXPECT_EQ(items[0]->rows_of_batch, 2u) << "it came before there was a program";
  EXPECT_EQ(items[4]->rows_of_batch, 2u);
}

TEST(BatchQueueTest, ASizeThatTurnsOutUselessIsGivenUp) {
  Bed bed("path-aware", 0 * kUs, 10 * kUs);  // two take twice as long as one
  bed.others = 10;
  bed.Add();
  bed.Run();
  for (int round = 0; round < 40; ++round) {
    bed.Occupy(100 * kUs);
    bed.Add();
    bed.Add();
    bed.Run();
  }
  EXPECT_EQ(bed.prepared, (std::vector<uint32_t>{2}));
  EXPECT_FALSE(bed.queue().useful());
  bed.Occupy(100 * kUs);
  bed.Add();
  const ItemPtr last = bed.Add();
  bed.Run();
  EXPECT_EQ(last->rows_of_batch, 1u);
}

TEST(BatchQueueTest, ARowThatLeavesIsNotAnsweredAndTheOthersAre) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  const ItemPtr a = bed.Add(), b = bed.Add();
  EXPECT_TRUE(bed.queue().Leave(*a));
  EXPECT_FALSE(bed.queue().Leave(*a));
  bed.Run();
  EXPECT_EQ(a->answers, 0);
  EXPECT_EQ(b->answers, 1);
  EXPECT_FALSE(bed.queue().Leave(*b)) << "answered";
  EXPECT_EQ(bed.cancelled, 0);
}

TEST(BatchQueueTest, ABatchThatEverybodyLeftIsCancelled) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  const ItemPtr a = bed.Add(), b = bed.Add();
  bed.RunUntilABatchIsFormed();
  EXPECT_TRUE(bed.queue().Leave(*a));
  EXPECT_TRUE(bed.queue().Leave(*b));
  EXPECT_EQ(bed.cancelled, 1);
  const ItemPtr c = bed.Add();
  bed.Run();
  EXPECT_EQ(a->answers + b->answers, 0);
  EXPECT_EQ(c->rows_of_batch, 1u);
  bed.bed().CheckAtRest();
}

// What another thread does between the steps of the one that is at it.
TEST(BatchQueueTest, AllRowsLeaveWhileTheirBatchIsSubmittedAndItIsCancelledAfterwards) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  bed.when_submitted = [&] {
    for (const BatchItemPtr& item : bed.last_items) EXPECT_TRUE(bed.queue().Leave(*item));
    EXPECT_EQ(bed.cancelled, 0) << "nobody knows the job yet";
  };
  const ItemPtr a = bed.Add();
  bed.RunUntilABatchIsFormed();
  EXPECT_EQ(bed.cancelled, 1);
  const ItemPtr b = bed.Add();
  bed.Run();
  EXPECT_EQ(a->answers, 0);
  EXPECT_EQ(b->rows_of_batch, 1u);
  EXPECT_EQ(bed.bed().dispatcher.stats().jobs_cancelled, 1u);
  bed.bed().CheckAtRest();
}

TEST(BatchQueueTest, RowsThatCannotBeHandedOverAreToldWhy) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.refuses = true;
  const ItemPtr a = bed.Add();
  EXPECT_EQ(a->answers, 1);
  EXPECT_EQ(a->status.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(bed.queue().Leave(*a));
}

TEST(BatchQueueTest, TimeoutHoldsRowsBackAndNoLonger) {
  Bed bed("timeout(50)", 10 * kUs, kUs);
  bed.Teach(4);
  const TimePoint from = bed.bed().clock.Now();
  const ItemPtr a = bed.Add(), b = bed.Add();
  bed.Run();
  EXPECT_EQ(a->rows_of_batch, 2u);
  EXPECT_EQ(b->at, from + 50 * kUs + bed.Time(2));
}

TEST(BatchQueueTest, PrioritiesAreNotMixed) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  RequestAttributes urgent;
  urgent.priority = 1;
  const ItemPtr a = bed.Add(), b = bed.Add(urgent), c = bed.Add(urgent);
  bed.Run();
  EXPECT_EQ(a->rows_of_batch, 1u);
  EXPECT_EQ(b->rows_of_batch, 2u);
  EXPECT_EQ(c->rows_of_batch, 2u);
}

TEST(BatchQueueTest, TheJobIsAsUrgentAsItsMostUrgentRowAndPaidByRows) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  const TimePoint now = bed.bed().clock.Now();
  RequestAttributes a, b;
  a.tenant = TenantId(1);
  a.arrival = now;
  b.arrival = now + 5 * kUs;
  a.remaining_path = 7 * kUs;
  a.timeout_at = now + 900 * kUs;
  b.tenant = TenantId(2);
  b.deadline = now + 900 * kUs;
  b.remaining_path = 3 * kUs;
  bed.Add(a);
  bed.Add(b);
  bed.Add(b);
  bed.RunUntilABatchIsFormed();
  ASSERT_EQ(bed.specs.size(), 1u);
  const JobSpec& last = bed.specs.back();
  EXPECT_EQ(last.attributes.arrival, a.arrival);
  EXPECT_EQ(last.attributes.deadline, b.deadline);
  EXPECT_EQ(last.attributes.remaining_path, 3 * kUs);
  EXPECT_FALSE(last.attributes.timeout_at.has_value());
  ASSERT_EQ(last.payers.size(), 2u);
  EXPECT_EQ(last.payers[1].tenant, TenantId(2));
  EXPECT_EQ(last.payers[1].rows, 2u);
  bed.Run();
}

TEST(BatchQueueTest, RowsOfOneItemStayTogether) {
  Bed bed("immediate", 10 * kUs, kUs, 8);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  RequestAttributes other;
  other.tenant = TenantId(2);
  const ItemPtr a = bed.Add({}, 3), b = bed.Add(other, 4), c = bed.Add({}, 2), d = bed.Add();
  bed.Run();
  EXPECT_EQ(a->rows_of_batch, 7u) << "the third has no room";
  EXPECT_EQ(b->rows_of_batch, 7u);
  EXPECT_EQ(c->rows_of_batch, 3u);
  EXPECT_EQ(d->rows_of_batch, 3u);
  ASSERT_EQ(bed.specs[0].payers.size(), 2u);
  EXPECT_EQ(bed.specs[0].payers[0].rows, 3u);
  EXPECT_EQ(bed.specs[0].payers[1].rows, 4u);
}

TEST(BatchQueueTest, RowsKeepTheirOwnPlaceInLine) {
  Bed bed("path-aware", 10 * kUs, 10 * kUs);  // nothing to gain
  bed.Teach(2);
  bed.bed().dispatcher.SetPolicy(MakePolicy("edf").value());
  bed.Occupy(100 * kUs);
  const TimePoint now = bed.bed().clock.Now();
  RequestAttributes late, soon;
  late.deadline = now + 900 * kUs;
  soon.deadline = now + 300 * kUs;
  const ItemPtr a = bed.Add(late), b = bed.Add(soon);
  JobSpec other = bed.bed().Spec(Chain("other", 1, 1, 10 * kUs));
  other.attributes.deadline = now + 500 * kUs;
  const JobId between = bed.bed().Submit(std::move(other));
  bed.Run();
  EXPECT_LT(b->at, bed.bed().EndOf(between));
  EXPECT_LT(bed.bed().EndOf(between), a->at);
}

TEST(BatchQueueTest, NobodyIsBoundToABatchBeforeItsTurn) {
  Bed bed("path-aware", 10 * kUs, kUs);
  bed.prepares = false;
  bed.Occupy(100 * kUs);
  std::vector<ItemPtr> items;
  for (int i = 0; i < 8; ++i) items.push_back(bed.Add());
  bed.Teach(8);  // only now
  bed.Run();
  for (const ItemPtr& item : items) EXPECT_EQ(item->rows_of_batch, 8u);
}

// Everything at once, nothing learned: the sizes grow while the rows wait.
TEST(BatchQueueTest, PathAwareIsNotBehindTheSimplePoliciesWhenAllComeAtOnce) {
  std::map<std::string, Duration> took;
  for (const char* policy : {"immediate", "path-aware"}) {
    Bed bed(policy, 10 * kUs, kUs, 16);
    const TimePoint from = bed.bed().clock.Now();
    for (int i = 0; i < 1000; ++i) bed.Add();
    bed.Run();
    took[policy] = bed.bed().clock.Now() - from;
  }
  EXPECT_LT(took["path-aware"], took["immediate"] * 11 / 10);
}

TEST(BatchQueueTest, ARowWhosePlaceRunsOutOfTimeIsToldSoAndTheOthersGoOn) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  RequestAttributes hasty;
  hasty.timeout_at = bed.bed().clock.Now() + 50 * kUs;
  const ItemPtr a = bed.Add(hasty), b = bed.Add();
  bed.Run();
  EXPECT_EQ(a->answers, 1);
  EXPECT_EQ(a->status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(b->rows_of_batch, 1u);
}

TEST(BatchQueueTest, NoSizeIsTriedOfWorkThatWasSeenToGainNothing) {
  Bed bed("path-aware", 0 * kUs, 10 * kUs);
  bed.others = 10;
  const auto rounds = [&](int count) {
    for (int i = 0; i < count; ++i) {
      bed.Occupy(100 * kUs);
      bed.Add();
      bed.Add();
      bed.Run();
    }
  };
  bed.in_vain = true;
  rounds(10);
  EXPECT_TRUE(bed.prepared.empty());
  bed.in_vain = false;
  rounds(4);
  EXPECT_EQ(bed.prepared, (std::vector<uint32_t>{2}));
  EXPECT_TRUE(bed.queue().useful()) << "it is to be measured once more";
  bed.in_vain = true;
  rounds(20);
  EXPECT_FALSE(bed.queue().useful());
}

TEST(BatchQueueTest, ASizeUnderTrialIsGivenUpAtOnceIfItWasInVainElsewhere) {
  Bed bed("path-aware", 0 * kUs, 10 * kUs);
  bed.Teach(1);
  bed.queue().SetReady(2);
  const auto nobody = std::make_shared<Batch>();
  const auto end = [&] { return bed.queue().Ended(nobody, 2, {20 * kUs, 20 * kUs}); };
  EXPECT_FALSE(end());
  EXPECT_FALSE(end());
  bed.in_vain = true;
  EXPECT_TRUE(end()) << "the third of them tells";
}

TEST(BatchQueueTest, WhatWasGivenUpIsTriedAgainWhenAsked) {
  Bed bed("path-aware", 0 * kUs, 10 * kUs);
  bed.others = 10;
  for (int round = 0; round < 40; ++round) {
    bed.Occupy(100 * kUs);
    bed.Add();
    bed.Add();
    bed.Run();
  }
  EXPECT_FALSE(bed.queue().useful());
  bed.queue().TryAgain();
  EXPECT_TRUE(bed.queue().useful());
  bed.Occupy(100 * kUs);
  const ItemPtr a = bed.Add(), b = bed.Add();
  bed.Run();
  EXPECT_EQ(bed.prepared, (std::vector<uint32_t>{2, 2}));
  EXPECT_EQ(a->rows_of_batch, 2u);
  EXPECT_EQ(b->rows_of_batch, 2u);
}

// Thousands of rows come and go under every policy: each is answered once or has left.
TEST(BatchQueuePropertyTest, EveryRowIsAnsweredOnceUnlessItLeft) {
  for (const std::string& policy : BatchPolicyNames()) {
    for (uint32_t seed = 1; seed <= 30; ++seed) {
      std::mt19937 random(seed);
      const auto pick = [&](uint32_t n) { return static_cast<int>(random() % n); };
      Bed bed(policy, pick(20) * kUs, (1 + pick(5)) * kUs, 1u << pick(5));
      bed.prepares = pick(4) > 0;
      std::vector<ItemPtr> items;
      std::map<Item*, bool> left;
      for (int step = 0; step < 300; ++step) {
        const int what = pick(20);
        if (what < 10) {
          RequestAttributes attributes;
          if (pick(2) == 0) attributes.deadline = bed.bed().clock.Now() + (1 + pick(200)) * kUs;
          attributes.priority = static_cast<uint32_t>(pick(3));
          attributes.tenant = TenantId(static_cast<uint32_t>(pick(3)));
          if (pick(8) == 0) attributes.timeout_at = bed.bed().clock.Now() + pick(200) * kUs;
          uint32_t rows = 1 + static_cast<uint32_t>(pick(8) == 0 ? pick(16) : 0);
          if (bed.queue().Fit(rows) == 0) rows = 1;
          items.push_back(bed.Add(attributes, rows));
        } else if (what < 12 && !items.empty()) {
          Item& item = *items[random() % items.size()];
          if (bed.queue().Leave(item)) left[&item] = true;
        } else if (what < 13) {
          bed.Occupy((1 + pick(50)) * kUs);
        } else if (what < 14) {
          bed.refuses = !bed.refuses;
        } else if (!bed.bed().device.Step()) {
          bed.WakeUp();
        }
      }
      bed.refuses = false;
      bed.Run();
      for (const ItemPtr& item : items) {
        ASSERT_EQ(item->answers, left[item.get()] ? 0 : 1) << policy << " seed " << seed;
      }
      const DispatcherStats s = bed.bed().dispatcher.stats();
      ASSERT_EQ(s.in_flight + s.ready + s.running, 0u) << policy << " seed " << seed;
      ASSERT_EQ(s.jobs_submitted,
                s.jobs_done + s.jobs_failed + s.jobs_cancelled + s.jobs_withdrawn);
    }
  }
}

}  // namespace
}  // namespace plexus
