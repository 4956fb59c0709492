#include "simulate/segments.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace plexus {

// One request, in one segment after the other.
struct Segments::Row : BatchItem {
  uint32_t request = 0, model = 0;
  uint32_t at = 0;  // index into its model's path
};

class Segments::Queue : public BatchQueue::Host {
 public:
  Queue(Segments& all, uint32_t segment)
      : all_(all),
        segment_(segment),
        queue_(*this, all.dispatcher_, ProgramFor(1), *all.policy_,
               all.workload_.system.max_batch) {
    BatchCurve::Cost alone;
    alone.latency = alone.busy = all_.dispatcher_.ExpectedTime(*ProgramFor(1), 1);
    queue_.Expect(alone);
  }

  BatchQueue& queue() { return queue_; }
  // One row by itself: as measured, else as estimated.
  Duration Alone() { return queue_.CostOf(1).latency; }

 private:
  struct Running : Batch, JobListener {
    Queue* queue = nullptr;
    std::shared_ptr<Running> self;  // while it is submitted
    JobId job;
    uint32_t size = 1;
    Duration busy{0};
    void OnDeviceTime(JobId, Duration time) override { busy = time; }
    void OnJobDone(JobId, Status status, JobBuffers) override { queue->Done(*this, status); }
  };

  const ProgramPtr& ProgramFor(uint32_t size) const {
    return all_.workload_.segments[segment_].programs[std::bit_width(size) - 1];
  }

  // --- BatchQueue::Host
  BatchPtr NewBatch() override {
    auto batch = std::make_shared<Running>();
    batch->queue = this;
    return batch;
  }
  Status Submit(const BatchPtr& batch, std::span<const JobId> places) override {
    auto running = std::static_pointer_cast<Running>(batch);
    running->size = queue_.Fit(batch->rows);
    JobSpec spec;
    spec.program = ProgramFor(running->size);
    spec.buffers.inputs.resize(spec.program->inputs.size());
    spec.buffers.outputs.resize(spec.program->outputs.size());
    spec.attributes = JobAttributes(batch->items);
    spec.payers = JobPayers(batch->items);
    spec.rows = running->size;
    spec.listener = running.get();
    running->self = running;
    const uint32_t first = static_cast<Row&>(*batch->items[0]).request;
    all_.hooks_.submitting(first);
    const Result<JobId> job = all_.dispatcher_.Replace(places, std::move(spec));
    if (!job.ok()) {
      running->self.reset();
      return job.status();
    }
    running->job = *job;
    all_.hooks_.submitted(*job, first);
    return OkStatus();
  }
  void Cancel(Batch& batch) override {
    all_.dispatcher_.Cancel(static_cast<Running&>(batch).job, OkStatus());
  }
  void Failed(std::vector<BatchItemPtr>, const Status& why) override { all_.hooks_.fail(why); }
  void Prepare(uint32_t size) override {
    const bool there = static_cast<size_t>(std::bit_width(size)) <=
                       all_.workload_.segments[segment_].programs.size();
    there ? queue_.SetReady(size) : queue_.SetLimit(size / 2);
  }
  void WakeAt(TimePoint at) override { all_.hooks_.wake_at(segment_, at); }
  TimePoint Now() override { return all_.clock_.Now(); }
  uint32_t JobsUnderWay() override { return all_.under_way_; }

  void Done(Running& running, const Status& status) {
    const std::shared_ptr<Running> batch = std::move(running.self);
    if (!status.ok()) return all_.hooks_.fail(status);
    BatchCurve::Cost took;
    took.latency = all_.dispatcher_.ExpectedTime(*ProgramFor(batch->size), batch->size);
    took.busy = batch->busy / all_.workload_.device.sms;
    queue_.Ended(batch, batch->size, took);
    for (const BatchItemPtr& item : batch->items) {
      if (!queue_.Claim(*item)) continue;
      const Row& row = static_cast<const Row&>(*item);
      auto next = std::make_shared<Row>();
      next->attributes = row.attributes;
      next->request = row.request;
      next->model = row.model;
      next->at = row.at + 1;
      all_.Enter(std::move(next));
    }
  }

  Segments& all_;
  const uint32_t segment_;
  BatchQueue queue_;
};

Segments::Segments(const Workload& workload, Dispatcher& dispatcher, const Clock& clock,
                   SegmentHooks hooks)
    : workload_(workload),
      dispatcher_(dispatcher),
      clock_(clock),
      hooks_(std::move(hooks)),
      policy_(MakeBatchPolicy(workload.system.batching).value()) {
  for (uint32_t s = 0; s < workload.segments.size(); ++s) {
    queues_.push_back(std::make_unique<Queue>(*this, s));
  }
}

Segments::~Segments() = default;

void Segments::Start(uint32_t request, uint32_t model, RequestAttributes attributes) {
  ++under_way_;
  for (const uint32_t segment : workload_.models[model].path) {
    attributes.service_time += queues_[segment]->Alone();
  }
  auto row = std::make_shared<Row>();
  row->attributes = attributes;
  row->request = request;
  row->model = model;
  Enter(std::move(row));
}

void Segments::Wake(uint32_t segment) { queues_[segment]->queue().Wake(); }

void Segments::Enter(std::shared_ptr<Row> row) {
  const std::vector<uint32_t>& path = workload_.models[row->model].path;
  if (row->at == path.size()) {
    --under_way_;
    return hooks_.done(row->request);
  }
  row->attributes.remaining_path = Duration{0};
  for (size_t i = row->at + 1; i < path.size(); ++i) {
    row->attributes.remaining_path += queues_[path[i]]->Alone();
  }
  const uint32_t segment = path[row->at];
  queues_[segment]->queue().Add(std::move(row));
}

}  // namespace plexus
