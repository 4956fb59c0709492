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
      ++it->rows;
    } else {
      payers.push_back({tenant, 1});
    }
  }
  if (payers.size() == 1) payers.clear();
  return payers;
}

void BatchQueue::Add(BatchItemPtr item) {
  {
    std::lock_guard lock(mutex_);
    item->state_ = BatchItem::State::kWaiting;
    item->entered_ = host_.Now();
    waiting_.push_back(std::move(item));
    if (std::exchange(busy_, true)) return;  // whoever is at it sees this one as well
  }
  while (Step()) {
  }
}

void BatchQueue::Wake() {
  {
    std::lock_guard lock(mutex_);
    wake_at_ = TimePoint::max();
    if (std::exchange(busy_, true)) return;
  }
  while (Step()) {
  }
}

bool BatchQueue::Leave(BatchItem& item) {
  BatchPtr batch;
  {
    std::lock_guard lock(mutex_);
    const bool waits = item.state_ == BatchItem::State::kWaiting;
    if (!waits && item.state_ != BatchItem::State::kInBatch) return false;
    item.state_ = BatchItem::State::kLeft;
    if (waits) {
      std::erase_if(waiting_, [&](const BatchItemPtr& each) { return each.get() == &item; });
      return true;
    }
    batch = item.batch_.lock();
    // Whoever hands it over looks again: others may be about to join it.
    if (batch == nullptr || batch == handing_ || !AllLeft(*batch)) return true;
    if (open_ == batch) open_.reset();  // nobody may join what is going to be cancelled
  }
  host_.Cancel(*batch);
  return true;
}

bool BatchQueue::AllLeft(const Batch& batch) {
  return std::all_of(batch.items.begin(), batch.items.end(), [](const BatchItemPtr& item) {
    return item->state_ == BatchItem::State::kLeft;
  });
}

// One choice and what follows from it. False when there is nothing more to do: then another thread
// may be at it.
bool BatchQueue::Step() {
  std::unique_lock lock(mutex_);
  if (waiting_.empty()) {
    busy_ = false;
    return false;
  }
  const BatchChoice choice = Choose();
  const uint32_t prepare = SizeToPrepare();
  if (choice.what == BatchChoice::What::kWait) {
    busy_ = false;
    const bool sooner = choice.until < wake_at_;
    if (sooner) wake_at_ = choice.until;
    lock.unlock();
    if (prepare > 0) host_.Prepare(prepare);
    if (sooner) host_.WakeAt(choice.until);
    return false;
  }
  const bool joins = choice.what == BatchChoice::What::kJoin;
  if (!joins) open_ = host_.NewBatch();
  const BatchPtr batch = open_;
  std::vector<BatchItemPtr> items = Take(choice.rows, batch);
  handing_ = batch;
  lock.unlock();
  if (prepare > 0) host_.Prepare(prepare);
  if (joins && !host_.Withdraw(*batch)) {
    lock.lock();
    handing_.reset();
    if (open_ == batch) open_.reset();  // it has begun
    GiveBack(std::move(items));
    const bool deserted = AllLeft(*batch);
    lock.unlock();
    if (deserted) host_.Cancel(*batch);
    return true;
  }
  lock.lock();
  batch->items.insert(batch->items.end(), items.begin(), items.end());
  std::erase_if(batch->items,
                [](const BatchItemPtr& item) { return item->state_ == BatchItem::State::kLeft; });
  if (batch->items.empty()) {
    handing_.reset();
    open_.reset();
    return true;
  }
  lock.unlock();
  const Status status = host_.Submit(batch);
  lock.lock();
  handing_.reset();
  if (status.ok()) {
    if (!AllLeft(*batch)) return true;
    if (open_ == batch) open_.reset();
    lock.unlock();
    host_.Cancel(*batch);
    return true;
  }
  if (open_ == batch) open_.reset();
  std::vector<BatchItemPtr> failed = std::move(batch->items);
  std::erase_if(failed, [](const BatchItemPtr& item) {
    return std::exchange(item->state_, BatchItem::State::kDelivered) == BatchItem::State::kLeft;
  });
  lock.unlock();
  host_.Failed(std::move(failed), status);
  return true;
}

BatchChoice BatchQueue::Choose() {
  const uint32_t priority = waiting_.front()->attributes.priority;
  view_.clear();
  for (const BatchItemPtr& item : waiting_) {
    if (item->attributes.priority != priority) break;
    view_.push_back({item->entered_, Due(item->attributes)});
  }
  BatchView view{host_.Now(), curve_, view_};
  uint32_t here = static_cast<uint32_t>(waiting_.size());
  if (open_ != nullptr) {
    here += static_cast<uint32_t>(open_->items.size());
    if (open_->items[0]->attributes.priority == priority) {
      view.open_rows = static_cast<uint32_t>(open_->items.size());
      for (const BatchItemPtr& item : open_->items) {
        view.open_due = std::min(view.open_due, Due(item->attributes));
      }
    }
  }
  const uint32_t under_way = host_.JobsUnderWay();
  view.others = under_way - std::min(under_way, here);
  return policy_.Choose(view);
}

uint32_t BatchQueue::SizeToPrepare() {
  const size_t here = waiting_.size() + (open_ != nullptr ? open_->items.size() : 0);
  if (!policy_.batches() || preparing_ > 0 || here <= curve_.largest()) return 0;
  preparing_ = curve_.Next(policy_.takes_any_gain());
  return preparing_;
}

std::vector<BatchItemPtr> BatchQueue::Take(uint32_t rows, const BatchPtr& batch) {
  std::vector<BatchItemPtr> items(waiting_.begin(), waiting_.begin() + rows);
  waiting_.erase(waiting_.begin(), waiting_.begin() + rows);
  for (const BatchItemPtr& item : items) {
    item->state_ = BatchItem::State::kInBatch;
    item->batch_ = batch;
  }
  return items;
}

void BatchQueue::GiveBack(std::vector<BatchItemPtr> items) {
  std::erase_if(items,
                [](const BatchItemPtr& item) { return item->state_ == BatchItem::State::kLeft; });
  for (const BatchItemPtr& item : items) item->state_ = BatchItem::State::kWaiting;
  waiting_.insert(waiting_.begin(), items.begin(), items.end());
}

void BatchQueue::Ended(const BatchPtr& batch, uint32_t size, BatchCurve::Cost took) {
  std::lock_guard lock(mutex_);
  if (open_ == batch) open_.reset();
  Learn(size, took);
}

void BatchQueue::Ended(const BatchPtr& batch) {
  std::lock_guard lock(mutex_);
  if (open_ == batch) open_.reset();
}

bool BatchQueue::Claim(BatchItem& item) {
  std::lock_guard lock(mutex_);
  if (item.state_ != BatchItem::State::kInBatch) return false;
  item.state_ = BatchItem::State::kDelivered;
  return true;
}

BatchPtr BatchQueue::BatchOf(const BatchItem& item) const {
  std::lock_guard lock(mutex_);
  return item.state_ == BatchItem::State::kInBatch ? item.batch_.lock() : nullptr;
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

void BatchQueue::Learn(uint32_t size, BatchCurve::Cost took) {
  curve_.Learn(size, took);
  if (!policy_.takes_any_gain() && curve_.Useless(size)) curve_.SetLimit(size / 2);
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

bool BatchQueue::useful() const {
  std::lock_guard lock(mutex_);
  return policy_.batches() && curve_.limit() > 1;
}

}  // namespace plexus
