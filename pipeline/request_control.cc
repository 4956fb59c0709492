// The control flow of a request: If, Loop and plexus.MapRows, whose bodies are plans of their own.
#include <algorithm>
#include <limits>

#include "pipeline/request.h"
#include "program/reference/rows.h"

namespace plexus {
namespace {

constexpr int64_t kDefaultLanes = 16;

Result<bool> ToBool(const Tensor& t) {
  if (t.num_elements() != 1) return InvalidArgumentError("condition is not one value");
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> value, ToInt64Vector(t));
  return value[0] != 0;
}

// Row `i` of t as [1, ...]; shares the storage.
Tensor Row(const Tensor& t, int64_t i) {
  Shape shape = t.shape();
  const int64_t rows = shape[0];
  shape[0] = 1;
  if (t.dtype() == DType::kString) {
    const int64_t n = t.num_elements() / rows;
    const auto begin = t.strings().begin() + i * n;
    return Tensor::FromStrings(shape, std::vector<std::string>(begin, begin + n));
  }
  const size_t row_bytes = t.size_bytes() / rows;
  return Tensor::FromBuffer(t.dtype(), shape, t.buffer(), t.offset_bytes() + i * row_bytes);
}

// "stage 'lines', element 3" of a pipeline; of a model, "node 'scan' (Loop), turn 3".
Status InNode(const Node& node, const std::string& part, const Status& status) {
  std::string where = node.HasAttr("stage") ? "stage '" + node.name + "'"
                                            : "node '" + node.name + "' (" + node.op + ")";
  if (!part.empty()) where += ", " + part;
  return status.WithContext(where);
}

}  // namespace

Result<Tensor> Request::Join(const Tensors& parts, const Tensor* pad) const {
  HostScope scope(memory_, &alive_);
  Result<Tensor> joined = JoinRows(parts, pad);
  PLEXUS_RETURN_IF_ERROR(HostScope::TakeFailure());
  return joined;
}

Task<Result<Tensors>> Request::RunIf(const HostStep* step, Tensors inputs, Tensors captures,
                                     int depth) {
  const Node& node = step->owner->node(step->node);
  Result<bool> condition = ToBool(inputs[0]);
  if (!condition.ok()) co_return InNode(node, "", condition.status());
  PlannedGraphPtr body = step->Body(*condition ? "then_branch" : "else_branch");
  Result<Tensors> results = co_await RunBody(std::move(body), std::move(captures), depth + 1);
  if (!results.ok()) co_return InNode(node, *condition ? "then" : "else", results.status());
  co_return results;
}

// Loop(M?, cond?, v_initial...) → (v_final..., scan_outputs...), ONNX opset 13 and later.
Task<Result<Tensors>> Request::RunLoop(const HostStep* step, Tensors inputs, Tensors captures,
                                       int depth) {
  const Node& node = step->owner->node(step->node);
  const PlannedGraphPtr body = step->Body("body");
  int64_t max_trips = INT64_MAX;
  if (!inputs.empty() && inputs[0].defined()) {
    Result<std::vector<int64_t>> m = ToInt64Vector(inputs[0]);
    if (!m.ok() || m->size() != 1) {
      co_return InNode(node, "", InvalidArgumentError("bad trip count"));
    }
    max_trips = (*m)[0];
  }
  bool going = true;
  if (inputs.size() > 1 && inputs[1].defined()) {
    Result<bool> condition = ToBool(inputs[1]);
    if (!condition.ok()) co_return InNode(node, "", condition.status());
    going = *condition;
  }
  Tensors carried(inputs.begin() + std::min<size_t>(2, inputs.size()), inputs.end());
  inputs.clear();
  const size_t num_scans = body->graph.outputs().size() - 1 - carried.size();
  std::vector<Tensors> scans(num_scans);
  for (int64_t trip = 0; going && trip < max_trips; ++trip) {
    const auto in_turn = [&](const Status& status) {
      return InNode(node, "turn " + std::to_string(trip), status);
    };
    if (trip >= kMaxLoopIterations) {
      co_return InNode(node, "",
                       ResourceExhaustedError("more than " + std::to_string(kMaxLoopIterations) +
                                              " iterations"));
    }
    Tensors arguments = {Tensor::ScalarInt64(trip), Tensor::Of<uint8_t>(DType::kBool, {}, {1})};
    for (Tensor& value : carried) arguments.push_back(std::move(value));
    arguments.insert(arguments.end(), captures.begin(), captures.end());
    Result<Tensors> results = co_await RunBody(body, std::move(arguments), depth + 1);
    if (!results.ok()) co_return in_turn(results.status());
    Result<bool> condition = ToBool((*results)[0]);
    if (!condition.ok()) co_return in_turn(condition.status());
    going = *condition;
    for (size_t i = 0; i < carried.size(); ++i) carried[i] = std::move((*results)[1 + i]);
    for (size_t i = 0; i < num_scans; ++i) {
      Tensor element = std::move((*results)[1 + carried.size() + i]);
      Shape row = element.shape();
      row.insert(row.begin(), 1);
      scans[i].push_back(element.Reshaped(std::move(row)));
    }
  }
  if (going) {
    const Status at_limit = CheckLoopEnd(node, max_trips);
    if (!at_limit.ok()) co_return InNode(node, "", at_limit);
  }
  Tensors outputs = std::move(carried);
  for (size_t i = 0; i < num_scans; ++i) {
    if (scans[i].empty()) {  // no iteration: the body's declared type, zero rows
      const Value& declared = body->graph.value(body->graph.outputs()[1 + outputs.size()]);
      Shape shape = {0};
      for (const SymbolicDim& d : declared.shape.dims) shape.push_back(d.value.value_or(0));
      Result<Tensor> empty = Tensor::Allocate(declared.dtype, shape);
      if (!empty.ok()) co_return InNode(node, "", empty.status());
      outputs.push_back(std::move(*empty));
      continue;
    }
    Result<Tensor> stacked = Join(scans[i], nullptr);
    if (!stacked.ok()) co_return InNode(node, "", stacked.status());
    outputs.push_back(std::move(*stacked));
  }
  outputs.resize(node.outputs.size());
  co_return outputs;
}

// What the lanes of one fan-out share. It lives in the frame of the coroutine that waits for them.
struct Request::FanOut {
  PlannedGraphPtr body;
  Tensors inputs, captures;
  int depth = 0;
  int64_t count = 0;
  Duration left{0};                        // expected after this fan-out began
  std::vector<Tensors> results = {};       // by element; empty: not done
  std::atomic<int64_t> next{0};            // elements are begun in order
  std::atomic<Duration::rep> spent_ns{0};  // by elements that have ended, all lanes
  std::atomic<bool> failed{false};
  std::mutex mutex;  // guards the next two
  int64_t failed_at = std::numeric_limits<int64_t>::max();
  Status failure;  // of the first element that failed, whichever was heard of first

  std::atomic<int64_t> running{0};  // lanes besides the waiting coroutine's own
  std::coroutine_handle<> waiting;

  Tensors Arguments(int64_t i) const {
    Tensors arguments;
    for (const Tensor& t : inputs) arguments.push_back(Row(t, i));
    arguments.insert(arguments.end(), captures.begin(), captures.end());
    return arguments;
  }
  void Fail(int64_t i, Status status) {
    std::lock_guard lock(mutex);
    failed.store(true, std::memory_order_relaxed);  // a hint; the mutex orders what it tells of
    if (i > failed_at) return;
    failed_at = i;
    failure = std::move(status);
  }
};

// Near its limit a request begins nothing more beside what it is at.
bool Request::IsShortOfMemory() const { return memory_->used_bytes() > memory_->limit_bytes() / 2; }

// Takes elements until none is left. Every element before one that fails has been begun by then, so
// that the failure told is always that of the first one.
Task<Status> Request::RunElements(FanOut* fan, bool is_lane) {
  while (!fan->failed.load(std::memory_order_relaxed)) {
    if (is_lane && IsShortOfMemory()) break;  // the waiting coroutine goes on by itself
    const int64_t i = fan->next.fetch_add(1, std::memory_order_relaxed);  // numbers, no data
    if (i >= fan->count) break;
    const Duration spent_elsewhere(fan->spent_ns.load(std::memory_order_relaxed));
    left_ = {std::max(Duration{0}, fan->left - spent_elsewhere), spent_};
    const Duration from = spent_;
    Result<Tensors> results = co_await RunBody(fan->body, fan->Arguments(i), fan->depth);
    fan->spent_ns.fetch_add((spent_ - from).count(), std::memory_order_relaxed);  // an estimate
    if (results.ok()) {
      fan->results[i] = std::move(*results);
    } else {
      fan->Fail(i, results.status());
    }
  }
  co_return OkStatus();
}

// One at a time, what found no memory while others ran beside it, and what was not begun for that.
Task<Status> Request::RunElementsAgain(FanOut* fan) {
  for (int64_t i = 0; i < fan->count; ++i) {
    if (!fan->results[i].empty()) continue;
    Result<Tensors> results = co_await RunBody(fan->body, fan->Arguments(i), fan->depth);
    if (!results.ok()) {
      fan->failed_at = i;
      co_return results.status();
    }
    fan->results[i] = std::move(*results);
  }
  co_return OkStatus();
}

DetachedTask Request::RunLane(std::shared_ptr<Request> lane, FanOut* fan) {
  (void)co_await lane->RunElements(fan, true);
  // acq_rel: what the lanes wrote must be visible to whoever goes on.
  if (fan->running.fetch_sub(1, std::memory_order_acq_rel) == 1) fan->waiting.resume();
}

// Suspends until every lane has ended.
struct Request::LanesAwaiter {
  FanOut& fan;
  bool await_ready() const { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    fan.waiting = handle;
    // The last to leave resumes; `fan` is touched by nobody who is not.
    return fan.running.fetch_sub(1, std::memory_order_acq_rel) != 1;
  }
  void await_resume() {}
};

Task<Result<Tensors>> Request::RunMapRows(const HostStep* step, Tensors inputs, Tensors captures,
                                          int depth) {
  const Node& node = step->owner->node(step->node);
  Result<int64_t> rows = CheckFanOut(node, inputs);
  if (!rows.ok()) co_return InNode(node, "", rows.status());
  if (*rows == 0) co_return Evaluate(*step, inputs, captures);
  FanOut fan;
  fan.body = step->Body("body");
  fan.inputs = std::move(inputs);
  fan.captures = std::move(captures);
  fan.depth = depth + 1;
  fan.count = *rows;
  fan.left = Left();
  fan.results.resize(*rows);

  const int64_t lanes = std::min(node.IntAttr("concurrency", kDefaultLanes), *rows);
  std::vector<std::shared_ptr<Request>> others;
  fan.running.store(1, std::memory_order_relaxed);  // no lane runs yet
  // A lane takes its first element before the next one starts, and may even end with the last.
  while (static_cast<int64_t>(others.size()) + 1 < lanes &&
         fan.next.load(std::memory_order_relaxed) < fan.count - 1 &&
         !fan.failed.load(std::memory_order_relaxed) && !IsShortOfMemory()) {
    others.push_back(NewLane());
    fan.running.fetch_add(1, std::memory_order_relaxed);  // before it runs, on this thread
    RunLane(others.back(), &fan);
  }
  const Expectation outside = left_;
  (void)co_await RunElements(&fan, false);
  LanesAwaiter all{fan};
  co_await all;
  left_ = outside;
  for (const auto& lane : others) spent_ += lane->spent_;

  Status status = fan.failure;
  if (!others.empty() && status.code() == StatusCode::kResourceExhausted) {
    status = co_await RunElementsAgain(&fan);
  }
  if (!status.ok()) {
    co_return InNode(node, "element " + std::to_string(fan.failed_at), status);
  }
  Result<Tensors> outputs = Gather(node, std::move(fan.results));
  if (!outputs.ok()) co_return InNode(node, "", outputs.status());
  co_return outputs;
}

Result<Tensors> Request::Gather(const Node& node, std::vector<Tensors> results) const {
  const std::vector<int64_t> sized = node.IntsAttr("sizes");
  const size_t num_parts = node.outputs.size() - sized.size();
  Tensors outputs;
  std::vector<Tensor> sizes;
  for (size_t i = 0; i < num_parts; ++i) {
    Tensors parts;
    parts.reserve(results.size());
    for (Tensors& element : results) parts.push_back(std::move(element[i]));
    if (std::count(sized.begin(), sized.end(), static_cast<int64_t>(i)) > 0) {
      sizes.push_back(RowCounts(parts));
    }
    PLEXUS_ASSIGN_OR_RETURN(Tensor joined,
                            Join(parts, node.TensorAttr("pad_" + std::to_string(i))));
    outputs.push_back(std::move(joined));
  }
  for (Tensor& t : sizes) outputs.push_back(std::move(t));
  return outputs;
}

}  // namespace plexus
