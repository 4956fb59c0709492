// For tests: a Runtime that runs nothing, answers when it is told to, and remembers what it was
// asked for; and model files that it can load.
#pragma once

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "pipeline/runtime.h"

namespace plexus {

// Output i of a request is its input i, or the last one. Thread-safe.
class TestRuntime : public Runtime {
 public:
  TestRuntime();
  ~TestRuntime() override;

  // While held, requests wait for Release() or for their cancellation.
  void Hold();
  void Release();
  // Fails the next request with `status`; the next one gets `outputs` instead of its inputs.
  void FailNext(Status status);
  void AnswerNext(std::vector<Tensor> outputs);
  // Both wait for it; they fail the test's process by a time limit of a minute.
  void WaitForStarts(size_t starts);
  void WaitForCancels(size_t cancels);
  std::vector<Status> cancels() const;
  RequestAttributes last_attributes() const;
  std::vector<Tensor> last_inputs() const;

  Result<ExecutablePtr> Load(const std::string& name, GraphPtr graph,
                             const CompileOptions& options) override;
  Result<ExecutablePtr> LoadGroup(const std::string& name,
                                  std::span<const ExecutablePtr> members) override;
  std::shared_ptr<CancelToken> Start(ExecutablePtr executable, std::vector<Tensor> inputs,
                                     RequestAttributes attributes, Done done) override;
  RunResult Run(ExecutablePtr executable, std::vector<Tensor> inputs,
                RequestAttributes attributes) override;
  Status Warm(ExecutablePtr, std::span<const Tensor>) override { return OkStatus(); }
  Dispatcher& dispatcher() override { return *dispatcher_; }
  TraceRecorder& trace() override { return trace_; }
  const Clock& clock() const override { return RealClock::Get(); }
  CacheStats cache_stats() const override { return {}; }
  std::vector<ProgramPtr> Programs(const ExecutablePtr&) const override { return {}; }

 private:
  class Request;

  TraceRecorder trace_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Dispatcher> dispatcher_;
  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  bool held_ = false;
  Status fail_next_;
  std::vector<Tensor> answer_next_;
  size_t starts_ = 0;
  std::vector<Status> cancels_;
  std::deque<std::shared_ptr<Request>> waiting_;
  RequestAttributes last_attributes_;
  std::vector<Tensor> last_inputs_;
};

// A folder that is deleted with the object.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  const std::filesystem::path& path() const { return path_; }
  void Write(const std::string& file, const std::string& bytes) const;  // makes its folders

 private:
  std::filesystem::path path_;
};

// An ONNX file of one Identity (or another unary operator): input "x" to output "y", `dtype` as in
// TensorProto. A dimension of −1 is open.
std::string IdentityModel(int dtype = 1, const std::vector<int64_t>& shape = {-1},
                          const std::string& op = "Identity");

}  // namespace plexus
