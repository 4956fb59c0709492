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
        policy_(MakeBatchPolicy(policy).value()),
        queue_(*this, *policy_, max_rows) {}

  ItemPtr Add(RequestAttributes attributes = {}) {
    auto item = std::make_shared<Item>();
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
      for (int i = 0; i < 3; ++i) queue_.Ended(BatchPtr(), size, {Time(size), Time(size)});
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
  int cancelled = 0;
  std::function<void()> when_withdrawn = [] {}, when_submitted = [] {};
  std::vector<JobSpec> specs;
  std::vector<BatchItemPtr> last_items;  // of the last batch handed over

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
  Status Submit(const BatchPtr& batch) override {
    if (refuses) return UnavailableError("no more");
    auto running = std::static_pointer_cast<Running>(batch);
    const auto rows = static_cast<uint32_t>(batch->items.size());
    running->size = queue_.Fit(rows);
    EXPECT_GE(running->size, rows);
    JobSpec spec = bed_.Spec(Chain("x" + std::to_string(running->size), 1, 1, Time(running->size)));
    spec.listener = running.get();
    spec.attributes = JobAttributes(batch->items);
    spec.payers = JobPayers(batch->items);
    specs.push_back(spec);
    last_items = batch->items;
    running->self = running;
    const JobId job = bed_.Submit(std::move(spec));
    std::exchange(when_submitted, [] {})();
    running->job = job;
    return OkStatus();
  }
  bool Withdraw(Batch& batch) override {
    Running& running = static_cast<Running&>(batch);
    std::exchange(when_withdrawn, [] {})();
    if (!bed_.dispatcher.Withdraw(running.job).has_value()) return false;
    running.self.reset();
    return true;
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
      item.rows_of_batch = static_cast<uint32_t>(batch->items.size());
      item.at = bed_.clock.Now();
    }
  }

 public:
  uint32_t others = 0;

 private:
  const Duration base_, each_;
  TestBed bed_;
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
  EXPECT_EQ(items[0]->rows_of_batch, 1u);
  EXPECT_EQ(items[4]->rows_of_batch, 2u);
}

TEST(BatchQueueTest, ASizeThatTurnsOutUselessIsGivenUp) {
  Bed bed("path-aware", 0 * kUs, 10 * kUs);  // two take twice as long as one
  bed.others = 10;
  bed.Add();
  bed.Run();
  for (int round = 0; round < 10; ++round) {
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
TEST(BatchQueueTest, TheLastRowLeavesWhileAnotherJoinsAndThatOneIsAnswered) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  const ItemPtr a = bed.Add();
  bed.when_withdrawn = [&] { EXPECT_TRUE(bed.queue().Leave(*a)); };
  const ItemPtr b = bed.Add();
  EXPECT_EQ(bed.cancelled, 0);
  bed.Run();
  EXPECT_EQ(a->answers, 0);
  EXPECT_EQ(b->answers, 1);
  EXPECT_TRUE(b->status.ok()) << b->status.ToString();
  bed.bed().CheckAtRest();
}

TEST(BatchQueueTest, TheLastRowLeavesWhileItIsHandedOverAndTheBatchIsCancelledAfterwards) {
  Bed bed("immediate", 10 * kUs, kUs);
  bed.Teach(8);
  bed.Occupy(100 * kUs);
  bed.when_submitted = [&] {
    for (const BatchItemPtr& item : bed.last_items) EXPECT_TRUE(bed.queue().Leave(*item));
    EXPECT_EQ(bed.cancelled, 0) << "nobody knows the job yet";
  };
  const ItemPtr a = bed.Add();
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
  a.timeout_at = now + 10 * kUs;
  b.tenant = TenantId(2);
  b.deadline = now + 900 * kUs;
  b.remaining_path = 3 * kUs;
  bed.Add(a);
  bed.Add(b);
  bed.Add(b);
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
          items.push_back(bed.Add(attributes));
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
        ASSERT_LE(item->rows_of_batch, BatchCurve::kMostRows);
      }
      bed.bed().CheckAtRest();
    }
  }
}

}  // namespace
}  // namespace plexus
