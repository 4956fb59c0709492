// Runs the ONNX standard's own cases. Set PLEXUS_ONNX_CASES to their folder (default:
// build/deps/onnx/backend/test/data), PLEXUS_ONNX_FILTER to a part of the names to run only some,
// PLEXUS_WRITE_OPERATORS to a path to write the table of docs/operators.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>

#include "graph/onnx/onnx_import.h"
#include "pipeline/runtime.h"
#include "program/reference/reference.h"
#include "tests/onnx_case.h"

namespace plexus::testing {
namespace {

// A way to run a model. kUnimplemented means that it knows not how.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual std::string name() const = 0;
  // One tensor per graph output.
  virtual Result<std::vector<Tensor>> Run(const GraphPtr& graph,
                                          const std::vector<Tensor>& inputs) = 0;
};

class ReferenceExecutor : public Executor {
 public:
  std::string name() const override { return "reference"; }
  Result<std::vector<Tensor>> Run(const GraphPtr& graph,
                                  const std::vector<Tensor>& inputs) override {
    return RunGraph(*graph, inputs);
  }
};

// The whole path of a request: prepare, specialise, optimise, compile, dispatch.
class RuntimeExecutor : public Executor {
 public:
  RuntimeExecutor() {
    RuntimeOptions options;
    options.threads = 2;
    runtime_ = Runtime::Create(options).value();
  }
  std::string name() const override { return "runtime"; }
  Result<std::vector<Tensor>> Run(const GraphPtr& graph,
                                  const std::vector<Tensor>& inputs) override {
    PLEXUS_ASSIGN_OR_RETURN(const ExecutablePtr loaded, runtime_->Load("case", graph, {}));
    RunResult result = runtime_->Run(loaded, inputs);
    PLEXUS_RETURN_IF_ERROR(result.status);
    return std::move(result.outputs);
  }

 private:
  std::unique_ptr<Runtime> runtime_;
};

std::string Env(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : fallback;
}

enum class Outcome { kPassed, kUnsupported, kFailed };

struct CaseResult {
  Outcome outcome = Outcome::kFailed;
  std::string why;
};

bool Contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

bool UsesOperator(const OnnxCase& test_case, const char* op) {
  return test_case.operators.count({"", op}) > 0;
}

// Training modes and other domains than ONNX's default one are not what Plexus serves.
bool IsOutOfScope(const OnnxCase& test_case) {
  return test_case.foreign_domain || Contains(test_case.name, "training");
}

// The ONNX runner's own tolerance but for the operators named here.
Tolerance ToleranceOf(const OnnxCase& test_case) {
  Tolerance tolerance;
  for (const char* op : {"Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform",
                         "RandomUniformLike", "Multinomial"}) {
    if (UsesOperator(test_case, op)) tolerance.shapes_only = true;
  }
  // The standard's transforms were computed in float32: sums of cancelling terms whose exact value
  // is 0 are off.
  if (UsesOperator(test_case, "DFT")) tolerance.absolute = 1e-5;
  return tolerance;
}

CaseResult Classify(const Status& status) {
  if (status.ok()) return {Outcome::kPassed, ""};
  if (status.code() == StatusCode::kUnimplemented) {
    return {Outcome::kUnsupported, status.ToString()};
  }
  return {Outcome::kFailed, status.ToString()};
}

Status RunCase(const OnnxCase& test_case, Executor& executor) {
  PLEXUS_ASSIGN_OR_RETURN(GraphPtr graph, ImportOnnxFile(test_case.folder / "model.onnx"));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<DataSet> sets, ReadDataSets(test_case));
  if (sets.empty()) return NotFoundError("no data set");
  for (const DataSet& set : sets) {
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, executor.Run(graph, set.inputs));
    if (outputs.size() != set.outputs.size()) return DataLossError("another number of outputs");
    for (size_t i = 0; i < outputs.size(); ++i) {
      PLEXUS_RETURN_IF_ERROR(CompareValues(outputs[i], set.outputs[i], ToleranceOf(test_case))
                                 .WithContext("output " + std::to_string(i)));
    }
  }
  return OkStatus();
}

struct Tally {
  int passed = 0, unsupported = 0, failed = 0;
  int total() const { return passed + unsupported + failed; }
  void Add(Outcome outcome) {
    if (outcome == Outcome::kPassed) ++passed;
    if (outcome == Outcome::kUnsupported) ++unsupported;
    if (outcome == Outcome::kFailed) ++failed;
  }
};

using PerOperator = std::map<std::string, Tally>;

// "7–" or "7–9, 11–": where the registrations of one operator join, one range. The importer takes
// opset 7 and later.
std::map<std::string, std::string> SupportedVersions() {
  constexpr int kOldestOpset = 7;
  std::map<std::string, std::map<int, int>> ranges;
  for (const OpEntry& entry : AllOps()) {
    if (!entry.domain.empty() || entry.until <= kOldestOpset) continue;
    ranges[std::string(entry.op)][std::max(entry.since, kOldestOpset)] = entry.until;
  }
  std::map<std::string, std::string> text;
  for (const auto& [op, parts] : ranges) {
    for (auto it = parts.begin(); it != parts.end();) {
      const int since = it->first;
      int until = it->second;
      for (++it; it != parts.end() && it->first <= until; ++it) until = std::max(until, it->second);
      std::string& out = text[op];
      if (!out.empty()) out += ", ";
      out += std::to_string(since) + "–";
      if (until != kLatest) out += std::to_string(until - 1);
    }
  }
  return text;
}

void WriteOperatorTable(const std::string& path, const PerOperator& per_operator) {
  std::map<std::string, std::string> versions = SupportedVersions();
  for (const auto& [op, tally] : per_operator) versions.try_emplace(op, "none");
  std::ofstream out(path);
  out << "# Operators\n\n"
         "ONNX operators of the default domain that Plexus runs, the opset versions it accepts, "
         "and\n"
         "the ONNX standard's own test cases that use them. Written by the conformance test.\n\n"
         "| Operator | Opsets | Passed | Unsupported | Failed |\n|---|---|--:|--:|--:|\n";
  for (const auto& [op, version] : versions) {
    const auto it = per_operator.find(op);
    const Tally tally = it == per_operator.end() ? Tally() : it->second;
    out << "| " << op << " | " << version << " | " << tally.passed << " | " << tally.unsupported
        << " | " << tally.failed << " |\n";
  }
}

// `least_share`: how much of the cases in scope must pass.
void RunConformance(Executor& executor, double least_share) {
  const std::string root = Env("PLEXUS_ONNX_CASES", "build/deps/onnx/backend/test/data");
  const std::string filter = Env("PLEXUS_ONNX_FILTER", "");
  const std::vector<std::filesystem::path> folders = FindCases(root);
  if (folders.empty()) GTEST_SKIP() << "no ONNX cases under " << root;
  Tally tally, out_of_scope;
  PerOperator per_operator;
  for (const std::filesystem::path& folder : folders) {
    if (!filter.empty() && !Contains(folder.filename().string(), filter.c_str())) continue;
    const Result<OnnxCase> test_case = ReadCase(folder);
    ASSERT_TRUE(test_case.ok()) << test_case.status().ToString();
    const CaseResult result = Classify(RunCase(*test_case, executor));
    if (IsOutOfScope(*test_case)) {
      out_of_scope.Add(result.outcome);
      continue;
    }
    tally.Add(result.outcome);
    for (const auto& [domain, op] : test_case->operators) {
      if (domain.empty()) per_operator[op].Add(result.outcome);
    }
    if (result.outcome == Outcome::kUnsupported) {
      std::cout << "unsupported: " << test_case->name << ": " << result.why << "\n";
    }
    EXPECT_NE(result.outcome, Outcome::kFailed) << test_case->name << ": " << result.why;
  }
  std::cout << executor.name() << ": " << tally.passed << " passed, " << tally.unsupported
            << " unsupported, " << tally.failed << " failed of " << tally.total()
            << " cases in scope; out of scope: " << out_of_scope.total() << " ("
            << out_of_scope.passed << " passed)\n";
  EXPECT_EQ(tally.failed, 0);
  if (filter.empty()) {
    EXPECT_GE(tally.passed, least_share * tally.total());
  }
  const std::string table = Env("PLEXUS_WRITE_OPERATORS", "");
  if (!table.empty()) WriteOperatorTable(table, per_operator);
}

TEST(ConformanceTest, ReferenceOperatorsAgreeWithTheStandard) {
  ReferenceExecutor executor;
  RunConformance(executor, 0.9);
}

TEST(ConformanceTest, TheWholePathAgreesWithTheStandard) {
  RuntimeExecutor executor;
  RunConformance(executor, 0.9);
}

}  // namespace
}  // namespace plexus::testing
