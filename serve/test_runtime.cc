#include "serve/test_runtime.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "graph/onnx/wire_writer.h"
#include "paths/merge.h"

namespace plexus {
namespace {

constexpr auto kPatience = std::chrono::minutes(1);

// Takes no launch: nothing is ever submitted to it.
class IdleDevice : public Device {
 public:
  const DeviceInfo& info() const override { return info_; }
  void SetSink(DeviceEventSink*) override {}
  Status Submit(const Launch&) override { return UnavailableError("idle"); }
  Result<std::unique_ptr<Arena>> AllocateArena(size_t) override {
    return ResourceExhaustedError("idle");
  }
  void Stop() override {}

 private:
  DeviceInfo info_;
};

class TestExecutable : public Executable {
 public:
  TestExecutable(std::string name, GraphPtr graph)
      : name_(std::move(name)), graph_(std::move(graph)) {}
  const std::string& name() const override { return name_; }
  const Graph& graph() const override { return *graph_; }

 private:
  std::string name_;
  GraphPtr graph_;
};

}  // namespace

class TestRuntime::Request : public CancelToken {
 public:
  Request(TestRuntime& runtime, std::vector<Tensor> outputs, Done done, Status status)
      : outputs(std::move(outputs)),
        done(std::move(done)),
        status(std::move(status)),
        runtime_(runtime) {}

  void Cancel(Status why) override {
    cancelled_ = true;
    {
      std::lock_guard lock(runtime_.mutex_);
      runtime_.cancels_.push_back(why);
      runtime_.changed_.notify_all();
      std::erase_if(runtime_.waiting_, [this](const auto& each) { return each.get() == this; });
    }
    Answer(std::move(why));
  }
  bool cancelled() const override { return cancelled_; }
  void Answer(Status with) {
    if (answered_.exchange(true)) return;
    RunResult result;
    result.status = std::move(with);
    if (result.status.ok()) result.outputs = std::move(outputs);
    result.timings = {std::chrono::microseconds(3), std::chrono::microseconds(5)};
    std::exchange(done, nullptr)(std::move(result));
  }

  std::vector<Tensor> outputs;
  Done done;
  Status status;

 private:
  TestRuntime& runtime_;
  std::atomic<bool> cancelled_{false}, answered_{false};
};

TestRuntime::TestRuntime()
    : device_(new IdleDevice),
      dispatcher_(new Dispatcher(*device_, MakePolicy("fifo").value(), RealClock::Get(), nullptr,
                                 nullptr)) {}
TestRuntime::~TestRuntime() { Release(); }

void TestRuntime::Hold() {
  std::lock_guard lock(mutex_);
  held_ = true;
}

void TestRuntime::Release() {
  std::deque<std::shared_ptr<Request>> waiting;
  {
    std::lock_guard lock(mutex_);
    held_ = false;
    waiting.swap(waiting_);
  }
  for (const auto& request : waiting) request->Answer(request->status);
}

void TestRuntime::FailNext(Status status) {
  std::lock_guard lock(mutex_);
  fail_next_ = std::move(status);
}

void TestRuntime::AnswerNext(std::vector<Tensor> outputs) {
  std::lock_guard lock(mutex_);
  answer_next_ = std::move(outputs);
}

void TestRuntime::WaitForStarts(size_t starts) {
  std::unique_lock lock(mutex_);
  PLEXUS_CHECK(changed_.wait_for(lock, kPatience, [&] { return starts_ >= starts; }));
}

void TestRuntime::WaitForCancels(size_t cancels) {
  std::unique_lock lock(mutex_);
  PLEXUS_CHECK(changed_.wait_for(lock, kPatience, [&] { return cancels_.size() >= cancels; }));
}

std::vector<Status> TestRuntime::cancels() const {
  std::lock_guard lock(mutex_);
  return cancels_;
}
RequestAttributes TestRuntime::last_attributes() const {
  std::lock_guard lock(mutex_);
  return last_attributes_;
}
std::vector<Tensor> TestRuntime::last_inputs() const {
  std::lock_guard lock(mutex_);
  return last_inputs_;
}

Result<ExecutablePtr> TestRuntime::Load(const std::string& name, GraphPtr graph,
                                        const CompileOptions&) {
  return ExecutablePtr(std::make_shared<TestExecutable>(name, std::move(graph)));
}

Result<ExecutablePtr> TestRuntime::LoadGroup(const std::string& name,
                                             std::span<const ExecutablePtr> members) {
  std::vector<MergePart> parts;
  for (const ExecutablePtr& member : members) {
    parts.push_back({member->name(), std::make_shared<const Graph>(member->graph())});
  }
  PLEXUS_ASSIGN_OR_RETURN(Graph merged, MergeGraphs(name, parts));
  return Load(name, std::make_shared<const Graph>(std::move(merged)), {});
}

std::shared_ptr<CancelToken> TestRuntime::Start(ExecutablePtr executable,
                                                std::vector<Tensor> inputs,
                                                RequestAttributes attributes, Done done) {
  std::shared_ptr<Request> request;
  {
    std::lock_guard lock(mutex_);
    last_attributes_ = attributes;
    last_inputs_ = inputs;
    std::vector<Tensor> outputs = std::exchange(answer_next_, {});
    if (outputs.empty()) outputs = std::move(inputs);
    while (!outputs.empty() && outputs.size() < executable->graph().outputs().size()) {
      outputs.push_back(outputs.back());  // of a group
    }
    request = std::make_shared<Request>(*this, std::move(outputs), std::move(done),
                                        std::exchange(fail_next_, OkStatus()));
    ++starts_;
    changed_.notify_all();
    if (held_) {
      waiting_.push_back(request);
      return request;
    }
  }
  request->Answer(request->status);
  return request;
}

RunResult TestRuntime::Run(ExecutablePtr, std::vector<Tensor> inputs, RequestAttributes) {
  RunResult result;
  result.outputs = std::move(inputs);
  return result;
}

TestFolder::TestFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "plexus-XXXXXX").string();
  PLEXUS_CHECK(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}
TestFolder::~TestFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}
void TestFolder::Write(const std::string& file, const std::string& bytes) const {
  std::filesystem::create_directories((path_ / file).parent_path());
  std::ofstream(path_ / file, std::ios::binary) << bytes;
}

std::string IdentityModel(int dtype, const std::vector<int64_t>& shape, const std::string& op) {
  using onnx::BytesField;
  using onnx::IntField;
  std::string dims;
  for (const int64_t dim : shape) {
    dims += BytesField(1, dim < 0 ? BytesField(2, "n") : IntField(1, static_cast<uint64_t>(dim)));
  }
  const auto info = [&](std::string_view name) {
    const std::string type = BytesField(1, IntField(1, dtype) + BytesField(2, dims));
    return BytesField(1, name) + BytesField(2, type);
  };
  return onnx::ModelBytes(onnx::NodeField(op, {"x"}, {"y"}, "", "same") +
                          BytesField(2, "identity") + BytesField(11, info("x")) +
                          BytesField(12, info("y")));
}

}  // namespace plexus
