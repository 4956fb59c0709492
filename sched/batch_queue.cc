#include "sched/batch_queue.h"

#include <algorithm>
#include <utility>

namespace plexus {
namespace {

TimePoint Due(const RequestAttributes& attributes) {
  return attributes.deadline ? *attributes.deadline - attributes.remaining_path : TimePoint::max();
}

}  // namespace

RequestAttributes JobAttributes(std::span<const BatchItemPtr> items) {
  RequestAttributes job = items[0]->attributes;
  for (const BatchItemPtr& item : items.subspan(1)) {
    const RequestAttributes& each = item->attributes;
    job.arrival = std::min(job.arrival, each.arrival);
    if (each.deadline)
      job.deadline = std::min(*each.deadline, job.deadline.value_or(*each.deadline));
    job.service_time = std::min(job.service_time, each.service_time);
    job.remaining_path = std::min(job.remaining_path, each.remaining_path);
    job.traced = job.traced || each.traced;
  }
  if (items.size() > 1) job.timeout_at.reset();
  return job;
}

std::vector<Payer> JobPayers(std::span<const BatchItemPtr> items) {
  std::vector<Payer> payers;
  for (const BatchItemPtr& item : items) {
    const TenantId tenant = item->attributes.tenant;
    const auto it = std::find_if(payers.begin(), payers.end(),
                                 [&](const Payer& payer) { return payer.tenant == tenant; });
    if (it != payers.end()) {
      it->rows += item->rows;
    } else {
      payers.push_back({tenant, item->rows});
    }
  }
  if (payers.size() == 1) payers.clear();
  return payers;
}

// --- BatchItem

void BatchItem::OnTurn(JobId place) { queue_->OnTurn(*this, place); }

void BatchItem::OnJobDone(JobId, Status status, JobBuffers) { queue_->OnPlaceLost(*this, status); }

// --- BatchQueue

BatchQueue::BatchQueue(Host& host, Dispatcher& dispatcher, ProgramPtr one,
                       const BatchPolicy& policy, uint32_t max_rows)
    : host_(host),
      dispatcher_(dispatcher),
      one_(std::move(one)),
      policy_(policy),
      curve_(max_rows) {}

void BatchQueue::Add(const BatchItemPtr& item) {
  uint32_t prepare;
  {
    std::lock_guard lock(mutex_);
    item->queue_ = this;
    item->state_ = BatchItem::State::kWaiting;
    item->entered_ = host_.Now();
    item->key_ = {item->attributes.priority, Due(item->attributes), next_sequence_++};
    waiting_.emplace(item->key_, item);
    held_.push_back(item);
    waiting_rows_ += item->rows;
    prepare = SizeToPrepare();
  }
  if (prepare > 0) host_.Prepare(prepare);
  LineUp();
}

void BatchQueue::Wake() {
  {
    std::lock_guard lock(mutex_);
    wake_at_ = TimePoint::max();
  }
  LineUp();
}

// Puts the rows that came in line when it is time.
void BatchQueue::LineUp() {
  std::vector<BatchItemPtr> items;
  TimePoint wake = TimePoint::max();
  {
    std::lock_guard lock(mutex_);
    if (held_.empty()) return;
    view_.clear();
    for (const BatchItemPtr& item : held_) {
      view_.push_back({item->entered_, std::get<1>(item->key_), item->rows});
    }
    const BatchView view{host_.Now(), curve_, view_};
    const TimePoint at = policy_.InLineAt(view);
    if (at <= view.now) {
      items.swap(held_);
    } else if (at < wake_at_) {
      wake = wake_at_ = at;
    }
  }
  if (wake != TimePoint::max()) host_.WakeAt(wake);
  for (const BatchItemPtr& item : items) TakePlace(item);
}

void BatchQueue::TakePlace(const BatchItemPtr& item) {
  JobSpec spec;
  spec.program = one_;
  spec.attributes = item->attributes;
  spec.place = item;
  const Result<JobId> place = dispatcher_.Submit(std::move(spec));
  if (!place.ok()) return OnPlaceLost(*item, place.status());
  {
    std::lock_guard lock(mutex_);
    if (item->state_ == BatchItem::State::kWaiting) {
      item->place_ = *place;
      return;
    }
  }
  dispatcher_.Withdraw(*place);  // it has left, or went with others who did not know its place
}

// The item's turn has come: a batch stands in for its place, and for those of all that go with it.
void BatchQueue::OnTurn(BatchItem& item, JobId place) {
  BatchPtr batch;
  std::vector<JobId> places;
  uint32_t prepare;
  {
    std::lock_guard lock(mutex_);
    // Otherwise whoever took it out of the line, or is about to put it there, takes back its place.
    if (item.state_ != BatchItem::State::kWaiting) return;
    item.place_ = place;
    prepare = SizeToPrepare();
    batch = Form(item, places);
  }
  if (prepare > 0) host_.Prepare(prepare);
  const Status status = host_.Submit(batch, places);
  if (status.ok()) {
    {
      std::lock_guard lock(mutex_);
      batch->submitted_ = true;
      if (!AllLeft(*batch)) return;
    }
    return host_.Cancel(*batch);
  }
  for (const JobId each : places) dispatcher_.Withdraw(each);
  std::vector<BatchItemPtr> failed;
  {
    std::lock_guard lock(mutex_);
    running_ -= static_cast<uint32_t>(batch->items.size());
    for (const BatchItemPtr& each : batch->items) {
      if (std::exchange(each->state_, BatchItem::State::kDelivered) != BatchItem::State::kLeft) {
        failed.push_back(each);
      }
    }
  }
  host_.Failed(std::move(failed), status);
}

// The dispatcher ends a place by itself when the row is late, out of time, or the device is gone.
void BatchQueue::OnPlaceLost(BatchItem& item, const Status& why) {
  std::vector<BatchItemPtr> lost(1);
  {
    std::lock_guard lock(mutex_);
    if (item.state_ != BatchItem::State::kWaiting) return;
    item.state_ = BatchItem::State::kDelivered;
    lost[0] = TakeOut(item);
  }
  host_.Failed(std::move(lost), why);
}

BatchPtr BatchQueue::Form(BatchItem& first, std::vector<JobId>& places) {
  BatchChoice choice;  // alone, to fail, if it cannot run here any more
  if (curve_.Fit(first.rows) > 0) choice = policy_.Choose(LookAround(first));
  const BatchPtr batch = host_.NewBatch();
  batch->items.reserve(1 + choice.count);
  const auto take = [&](BatchItem& item) {
    item.state_ = BatchItem::State::kInBatch;
    item.batch_ = batch;
    if (item.place_.valid()) places.push_back(item.place_);
    batch->items.push_back(TakeOut(item));
    batch->rows += item.rows;
  };
  take(first);
  for (size_t i = 0; i < choice.count; ++i) take(*viewed_[choice.from + i]);
  running_ += static_cast<uint32_t>(batch->items.size());
  std::erase_if(
      held_, [](const BatchItemPtr& item) { return item->state_ != BatchItem::State::kWaiting; });
  return batch;
}

BatchItemPtr BatchQueue::TakeOut(BatchItem& item) {
  const auto it = waiting_.find(item.key_);
  BatchItemPtr taken = std::move(it->second);
  waiting_.erase(it);
  waiting_rows_ -= item.rows;
  return taken;
}

// The one whose turn it is, and as many others as could go with it: from the earliest due on, those
// that are late anyway last if the policy wants that.
BatchView BatchQueue::LookAround(const BatchItem& first) {
  view_.clear();
  viewed_.clear();
  const auto add = [&](BatchItem& item) {
    view_.push_back({item.entered_, std::get<1>(item.key_), item.rows});
    viewed_.push_back(&item);
  };
  const TimePoint now = host_.Now();
  const uint32_t priority = std::get<0>(first.key_);
  const auto begin = waiting_.lower_bound({priority, TimePoint::min(), 0});
  const auto timely = policy_.timely_first()
                          ? waiting_.lower_bound({priority, now + curve_.Of(1).latency, 0})
                          : begin;
  const auto look = [&](auto from, auto to) {
    for (; from != to && view_.size() < BatchCurve::kMostRows; ++from) {
      if (std::get<0>(from->first) != priority) break;
      if (from->second.get() != &first) add(*from->second);
    }
  };
  add(*waiting_.at(first.key_));
  look(timely, waiting_.end());
  look(begin, timely);
  BatchView view{now, curve_, view_};
  const uint32_t under_way = host_.JobsUnderWay();
  const auto here = static_cast<uint32_t>(view_.size()) + running_;
  view.others = under_way - std::min(under_way, here);
  return view;
}

bool BatchQueue::Leave(BatchItem& item) {
  BatchPtr batch;
  JobId place;
  BatchItemPtr left;
  {
    std::lock_guard lock(mutex_);
    const bool waits = item.state_ == BatchItem::State::kWaiting;
    if (!waits && item.state_ != BatchItem::State::kInBatch) return false;
    item.state_ = BatchItem::State::kLeft;
    if (waits) {
      left = TakeOut(item);
      std::erase(held_, left);
      place = item.place_;
    } else {
      batch = item.batch_.lock();
      // Whoever submits it looks again.
      if (batch == nullptr || !batch->submitted_ || !AllLeft(*batch)) return true;
    }
  }
  if (batch != nullptr) host_.Cancel(*batch);
  if (place.valid()) dispatcher_.Withdraw(place);
  return true;
}

bool BatchQueue::AllLeft(const Batch& batch) {
  return std::all_of(batch.items.begin(), batch.items.end(), [](const BatchItemPtr& item) {
    return item->state_ == BatchItem::State::kLeft;
  });
}

uint32_t BatchQueue::SizeToPrepare() {
  if (!policy_.batches() || preparing_ > 0 || waiting_rows_ <= curve_.largest()) return 0;
  if (!policy_.takes_any_gain() && host_.InVain()) return 0;
  preparing_ = curve_.Next(policy_.takes_any_gain());
  return preparing_;
}

bool BatchQueue::Ended(const BatchPtr& batch, uint32_t size, BatchCurve::Cost took) {
  std::lock_guard lock(mutex_);
  running_ -= static_cast<uint32_t>(batch->items.size());
  if (size > curve_.limit()) return false;
  curve_.Learn(size, took);
  if (policy_.takes_any_gain() || size == 1) return false;
  const bool useless = curve_.Useless(size) || (host_.InVain() && curve_.Doubted(size));
  if (!useless) return false;
  curve_.GiveUp(size);
  return true;
}

void BatchQueue::Ended(const BatchPtr& batch) {
  std::lock_guard lock(mutex_);
  running_ -= static_cast<uint32_t>(batch->items.size());
}

bool BatchQueue::Claim(BatchItem& item) {
  std::lock_guard lock(mutex_);
  if (item.state_ != BatchItem::State::kInBatch) return false;
  item.state_ = BatchItem::State::kDelivered;
  return true;
}

BatchQueue::Whereabouts BatchQueue::Find(const BatchItem& item) const {
  std::lock_guard lock(mutex_);
  if (item.state_ == BatchItem::State::kWaiting) return {item.place_, nullptr};
  if (item.state_ == BatchItem::State::kInBatch) return {JobId(), item.batch_.lock()};
  return {};
}

void BatchQueue::SetReady(uint32_t size) {
  std::lock_guard lock(mutex_);
  preparing_ = 0;
  curve_.SetReady(size);
}

void BatchQueue::SetLimit(uint32_t size) {
  std::lock_guard lock(mutex_);
  preparing_ = 0;
  curve_.SetLimit(size);
}

void BatchQueue::TryAgain() {
  std::lock_guard lock(mutex_);
  curve_.TryAgain();
}

void BatchQueue::Expect(BatchCurve::Cost alone) {
  std::lock_guard lock(mutex_);
  curve_.Expect(alone);
}

uint32_t BatchQueue::Fit(uint32_t rows) const {
  std::lock_guard lock(mutex_);
  return curve_.Fit(rows);
}

BatchCurve::Cost BatchQueue::CostOf(uint32_t size) const {
  std::lock_guard lock(mutex_);
  return curve_.Of(size);
}

double BatchQueue::Gain() const {
  std::lock_guard lock(mutex_);
  return curve_.Gain();
}

bool BatchQueue::useful() const {
  std::lock_guard lock(mutex_);
  return policy_.batches() && curve_.limit() > 1;
}

}  // namespace plexus
