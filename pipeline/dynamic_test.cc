// when, foreach and repeat: from the pipeline's file to answers.
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "pipeline/graph_maker.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

using Tensors = std::vector<Tensor>;

Result<GraphPtr> NoModels(const std::string& name) { return NotFoundError(name); }

Result<PipelineFile> Parse(const std::string& yaml) {
  return ParsePipeline("name: p\n" + yaml, "p.yaml", "/", NoModels);
}

class DynamicTest : public ::testing::Test {
 protected:
  DynamicTest() {
    RuntimeOptions options;
    options.threads = 2;
    options.value_memory_bytes = 64 * kMiB;
    options.request_memory_bytes = 16 * kMiB;
    runtime_ = Runtime::Create(options).value();
  }

  ExecutablePtr Load(const std::string& yaml) {
    const Result<PipelineFile> file = Parse(yaml);
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    if (!file.ok()) return nullptr;
    Result<ExecutablePtr> loaded = runtime_->Load("p", file->graph, {});
    EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
    return loaded.ok() ? *loaded : nullptr;
  }
  Tensors Ask(const ExecutablePtr& p, Tensors inputs) {
    RunResult result = runtime_->Run(p, std::move(inputs));
    EXPECT_TRUE(result.status.ok()) << result.status.ToString();
    return result.status.ok() ? std::move(result.outputs) : Tensors(8);
  }
  // The message of the error that `inputs` meet.
  std::string Error(const ExecutablePtr& p, Tensors inputs) {
    const std::string message = runtime_->Run(p, std::move(inputs)).status.message();
    const std::string graph = "graph 'p': ";  // before what shows while it is planned
    return message.find(graph) == 0 ? message.substr(graph.size()) : message;
  }
  std::unique_ptr<Runtime> runtime_;
};

std::string Text(const Tensor& t) { return t.defined() ? TensorToString(t, 16) : "nothing"; }
Tensor Ints(const std::vector<int64_t>& values) { return Tensor::VectorInt64(values); }

// --- when ----------------------------------------------------------------------------------------

constexpr char kWhen[] = R"(
inputs: [{name: x, dtype: FP32, shape: [-1]}]
stages:
  - {name: sum, op: reduce, input: x, kind: sum}
  - {name: positive, op: compare, input: sum, is: greater, to: 0}
  - name: y
    when: positive
    then:
      stages: [{name: twice, op: scale, input: x, scale: 2}]
      outputs: [{name: value, from: twice}]
    else:
      stages: [{name: less, op: subtract, input: x, by: 1}]
      outputs: [{name: value, from: less}]
  - {name: last, op: add, input: y, by: 10}
outputs: [{name: out, from: last}]
)";

TEST_F(DynamicTest, WhenTakesTheBranchThatTheValueChooses) {
  const ExecutablePtr p = Load(kWhen);
  EXPECT_EQ(Text(Ask(p, {Floats({2}, {1, 2})})[0]), "float32[2] 12 14");
  EXPECT_EQ(Text(Ask(p, {Floats({2}, {1, -2})})[0]), "float32[2] 10 7");
  EXPECT_EQ(Text(Ask(p, {Floats({0}, {})})[0]), "float32[0]");
}

TEST_F(DynamicTest, WhenWithoutElsePassesValuesThrough) {
  const ExecutablePtr p = Load(R"(
inputs:
  - {name: x, dtype: FP32, shape: [-1]}
  - {name: flip, dtype: BOOL, shape: [1]}
stages:
  - name: y
    when: flip
    then:
      stages: [{name: negative, op: scale, input: x, scale: -1}]
      outputs: [{name: x, from: negative}]
outputs: [{name: out, from: y}]
)");
  const auto flip = [](uint8_t on) { return Tensor::Of<uint8_t>(DType::kBool, {1}, {on}); };
  EXPECT_EQ(Text(Ask(p, {Floats({2}, {1, 2}), flip(1)})[0]), "float32[2] -1 -2");
  EXPECT_EQ(Text(Ask(p, {Floats({2}, {1, 2}), flip(0)})[0]), "float32[2] 1 2");
}

TEST_F(DynamicTest, AnErrorInABranchNamesTheStage) {
  const ExecutablePtr p = Load(R"(
inputs: [{name: x, dtype: FP32, shape: [-1]}]
stages:
  - {name: sum, op: reduce, input: x, kind: sum}
  - {name: positive, op: compare, input: sum, is: greater, to: 0}
  - name: pair
    when: positive
    then:
      stages: [{name: shaped, op: reshape, input: x, shape: [2, 1]}]
      outputs: [{name: x, from: shaped}]
outputs: [{name: out, from: pair}]
)");
  EXPECT_EQ(Text(Ask(p, {Floats({2}, {1, 2})})[0]), "float32[2,1] 1 2");
  EXPECT_EQ(Text(Ask(p, {Floats({3}, {1, 2, -7})})[0]), "float32[3] 1 2 -7");
  const std::string error = Error(p, {Floats({3}, {1, 2, 3})});
  EXPECT_EQ(error.find("stage 'pair', then: "), 0u) << error;
  EXPECT_NE(error.find("'pair/then/shaped'"), std::string::npos) << error;
}

TEST_F(DynamicTest, HeadTakesAsManyAsTheDataSay) {
  const ExecutablePtr p = Load(R"(
inputs:
  - {name: x, dtype: FP32, shape: [-1, 2]}
  - {name: n, dtype: INT64, shape: [1]}
stages: [{name: first, op: head, inputs: [x, n]}]
outputs: [{name: out, from: first}]
)");
  const Tensor x = Floats({3, 2}, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(Text(Ask(p, {x, Ints({2})})[0]), "float32[2,2] 1 2 3 4");
  EXPECT_EQ(Text(Ask(p, {x, Ints({7})})[0]), "float32[3,2] 1 2 3 4 5 6");
  for (const int64_t none : {0, -1}) EXPECT_EQ(Text(Ask(p, {x, Ints({none})})[0]), "float32[0,2]");
  EXPECT_NE(Parse("inputs: [{name: x, dtype: FP32, shape: [-1]}]\n"
                  "stages: [{name: s, op: head, inputs: [x, x]}]\noutputs: [{name: o, from: s}]\n")
                .status()
                .message()
                .find("stage 's': expects INT64, its input is FP32"),
            std::string::npos);
}

// --- foreach -------------------------------------------------------------------------------------

// Per row of x: the entries above `least`, doubled.
std::string Above(const std::string& outputs, const std::string& keys = "") {
  return R"(
inputs:
  - {name: x, dtype: FP32, shape: [-1, -1]}
  - {name: least, dtype: FP32, shape: []}
stages:
  - {name: twice, op: multiply, input: least, by: 2}
  - name: rows
    foreach: x
    as: row)" +
         keys + R"(
    stages:
      - {name: flat, op: reshape, input: row, shape: [-1]}
      - {name: double, op: scale, input: flat, scale: 2}
      - {name: large, op: compare, inputs: [double, twice], is: greater}
      - {name: kept, op: filter, inputs: [double, large]}
      - {name: some, op: size, input: kept}
      - {name: wide, op: reshape, input: kept, shape: [1, -1]}
    outputs: )" +
         outputs + "\n";
}

TEST_F(DynamicTest, ForeachGathersInOrderWhateverEachElementGives) {
  const ExecutablePtr p =
      Load(Above("[{name: values, from: kept, sizes: counts}, {name: some, from: some},"
                 " {name: table, from: wide, pad: -1}]") +
           R"(
outputs:
  - {name: values, from: rows.values}
  - {name: counts, from: rows.counts}
  - {name: some, from: rows.some}
  - {name: table, from: rows.table}
)");
  const Tensors out = Ask(p, {Floats({3, 2}, {1, 5, 2, 3, 7, 8}), Tensor::Scalar(2)});
  EXPECT_EQ(Text(out[0]), "float32[4] 10 6 14 16");
  EXPECT_EQ(Text(out[1]), "int64[3] 1 1 2");
  EXPECT_EQ(Text(out[2]), "int64[3] 1 1 2");
  EXPECT_EQ(Text(out[3]), "float32[3,2] 10 -1 6 -1 14 16");
}

TEST_F(DynamicTest, ForeachOverNothingGivesNothingOfTheRightType) {
  const ExecutablePtr p =
      Load(Above("[{name: values, from: kept, sizes: counts}, {name: some, from: some}]") + R"(
outputs:
  - {name: values, from: rows.values}
  - {name: counts, from: rows.counts}
  - {name: some, from: rows.some}
)");
  const Tensors out = Ask(p, {Floats({0, 2}, {}), Tensor::Scalar(2)});
  EXPECT_EQ(Text(out[0]), "float32[0]");
  EXPECT_EQ(Text(out[1]), "int64[0]");
  EXPECT_EQ(Text(out[2]), "int64[0]");
}

TEST_F(DynamicTest, SizesThatDifferNeedPadding) {
  const ExecutablePtr p =
      Load(Above("[{name: table, from: wide}]") + "outputs: [{name: table, from: rows}]\n");
  const Tensor same = Floats({2, 2}, {1, 5, 2, 6}), ragged = Floats({2, 2}, {1, 5, 6, 7});
  EXPECT_EQ(Text(Ask(p, {same, Tensor::Scalar(2)})[0]), "float32[2,1] 10 12");
  EXPECT_EQ(Error(p, {ragged, Tensor::Scalar(2)}),
            "stage 'rows': element 1 gives float32[1,2], element 0 float32[1,1]; sizes that differ "
            "need 'pad'");
}

TEST_F(DynamicTest, TextsAreGathered) {
  const ExecutablePtr p = Load(R"(
inputs: [{name: names, dtype: BYTES, shape: [-1]}]
stages:
  - name: lengths
    foreach: names
    as: one
    stages:
      - {name: raw, op: bytes, input: one}
      - {name: size, op: size, input: raw}
    outputs: [{name: size, from: size}, {name: again, from: one}]
outputs:
  - {name: sizes, from: lengths.size}
  - {name: again, from: lengths.again}
)");
  const Tensors out = Ask(p, {Tensor::FromStrings({3}, {"a", "", "ccc"})});
  EXPECT_EQ(Text(out[0]), "int64[3] 1 0 3");
  EXPECT_EQ(out[1].strings(), (std::vector<std::string>{"a", "", "ccc"}));
}

TEST_F(DynamicTest, ForeachWalksSeveralValuesOfOneLength) {
  const ExecutablePtr p = Load(R"(
inputs:
  - {name: a, dtype: INT64, shape: [-1]}
  - {name: b, dtype: INT64, shape: [-1]}
stages:
  - name: sums
    foreach: [a, b]
    as: [x, y]
    stages: [{name: sum, op: add, inputs: [x, y]}]
    outputs: [sum]
outputs: [{name: out, from: sums}]
)");
  EXPECT_EQ(Text(Ask(p, {Ints({1, 2, 3}), Ints({10, 20, 30})})[0]), "int64[3] 11 22 33");
  EXPECT_EQ(Error(p, {Ints({1, 2, 3}), Ints({10})}),
            "stage 'sums': its inputs differ in length: 3 and 1");
}

TEST_F(DynamicTest, StagesNest) {
  const ExecutablePtr p = Load(R"(
inputs: [{name: x, dtype: INT64, shape: [-1, -1]}]
stages:
  - name: rows
    foreach: x
    as: row
    stages:
      - {name: flat, op: reshape, input: row, shape: [-1]}
      - name: cells
        foreach: flat
        as: cell
        stages:
          - {name: odd, op: compare, input: cell, is: greater, to: 4}
          - name: capped
            when: odd
            then:
              stages: [{name: cap, op: constant, dtype: INT64, shape: [1], value: 4}]
              outputs: [{name: value, from: cap}]
            else: {outputs: [{name: value, from: cell}]}
        outputs: [capped]
      - {name: sum, op: reduce, input: cells, kind: sum}
    outputs: [sum]
outputs: [{name: out, from: rows}]
)");
  EXPECT_EQ(Text(Ask(p, {Tensor::VectorInt64({1, 5, 9, 2, 2, 2}).Reshaped({2, 3})})[0]),
            "int64[2] 9 6");
}

TEST_F(DynamicTest, AnElementThatFailsIsNamedAndFailsItsRequestAlone) {
  const std::string stages = R"(
inputs:
  - {name: n, dtype: INT64, shape: [-1]}
  - {name: table, dtype: INT64, shape: [10]}
stages:
  - name: rows
    foreach: n
    as: one
    stages: [{name: taken, op: gather, inputs: [table, one]}]
    outputs: [taken]
outputs: [{name: out, from: rows}]
)";
  const ExecutablePtr p = Load(stages);
  const Tensor table = Ints({0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  std::vector<std::promise<RunResult>> results(8);
  for (size_t i = 0; i < results.size(); ++i) {
    std::vector<int64_t> n(40, 3);
    if (i % 2 == 1) n[30] = n[7] = 99;
    runtime_->Start(p, {Ints(n), table}, {},
                    [&, i](RunResult r) { results[i].set_value(std::move(r)); });
  }
  for (size_t i = 0; i < results.size(); ++i) {
    const RunResult r = results[i].get_future().get();
    EXPECT_EQ(r.status.ok(), i % 2 == 0) << r.status.ToString();
    if (i % 2 == 0) {
      EXPECT_EQ(Text(r.outputs[0].Reshaped({40})).find("int64[40] 3 3 3"), 0u);
      continue;
    }
    EXPECT_EQ(r.status.message().find("stage 'rows', element 7: "), 0u) << r.status.message();
    EXPECT_NE(r.status.message().find("rows/taken"), std::string::npos) << r.status.message();
  }
}

TEST_F(DynamicTest, AFanOutBeyondItsLimitIsRefusedBeforeAnyOfItRuns) {
  const std::string pass = R"(
    stages: [{name: same, op: cast, input: one, to: FP32}]
    outputs: [same]
outputs: [{name: out, from: rows}]
)";
  const std::string head = R"(
inputs: [{name: n, dtype: UINT8, shape: [-1]}]
stages:
  - name: rows
    foreach: n
    as: one)";
  const ExecutablePtr p = Load(head + pass);
  const auto bytes = [](int64_t n) { return *Tensor::Allocate(DType::kUint8, {n}); };
  EXPECT_EQ(Error(p, {bytes(1'000'000)}), "stage 'rows': 1000000 elements, its limit is 10000");
  EXPECT_EQ(Error(p, {bytes(10'001)}), "stage 'rows': 10001 elements, its limit is 10000");
  EXPECT_EQ(Ask(p, {bytes(100)})[0].shape(), Shape{100});
  const ExecutablePtr few = Load(head + "\n    limit: 2" + pass);
  EXPECT_EQ(Error(few, {bytes(3)}), "stage 'rows': 3 elements, its limit is 2");
  EXPECT_EQ(Ask(few, {bytes(2)})[0].shape(), Shape{2});
}

TEST_F(DynamicTest, TheSamePlansServeAnyNumberOfElements) {
  const ExecutablePtr p =
      Load(Above("[{name: some, from: some}]") + "outputs: [{name: some, from: rows}]\n");
  const auto run = [&](int64_t rows) {
    return Ask(p, {Floats({rows, 2}, std::vector<float>(2 * rows, 3)), Tensor::Scalar(2)});
  };
  run(3);
  const uint64_t after_first = runtime_->cache_stats().misses;
  run(4);
  const uint64_t for_another = runtime_->cache_stats().misses - after_first;
  run(5);
  run(6);
  EXPECT_EQ(runtime_->cache_stats().misses - after_first, 3 * for_another);
  EXPECT_LT(for_another, after_first) << "the body is planned once";
}

TEST_F(DynamicTest, ElementsThatFindNoMemoryBesideOthersRunByThemselves) {
  const ExecutablePtr p = Load(R"(
inputs: [{name: n, dtype: INT64, shape: [-1]}]
stages:
  - name: rows
    foreach: n
    as: one
    concurrency: 8
    stages:
      - {name: wide, op: constant, dtype: FP32, shape: [1, 500000]}
      - {name: ahead, op: cast, input: one, to: FP32}
      - {name: column, op: reshape, input: ahead, shape: [1, 1]}
      - {name: added, op: add, inputs: [wide, column]}
      - {name: least, op: compare, input: added, is: greater, to: 0}
      - {name: flat, op: reshape, input: added, shape: [-1]}
      - {name: mask, op: reshape, input: least, shape: [-1]}
      - {name: kept, op: filter, inputs: [flat, mask]}
      - {name: size, op: size, input: kept}
    outputs: [size]
outputs: [{name: out, from: rows}]
)");
  RequestAttributes attributes;
  attributes.memory_bytes = 9 * kMiB;  // one element takes some 5 MiB
  RunResult r = runtime_->Run(p, {Ints({1, 2, 3, 4, 0, 6, 7, 8, 9})}, attributes);
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(Text(r.outputs[0]),
            "int64[9] 500000 500000 500000 500000 0 500000 500000 500000 500000");
  attributes.memory_bytes = 3 * kMiB;
  r = runtime_->Run(p, {Ints({1, 2, 3})}, attributes);
  EXPECT_EQ(r.status.code(), StatusCode::kResourceExhausted) << r.status.ToString();
  EXPECT_EQ(r.status.message().find("stage 'rows', element 0: "), 0u) << r.status.message();
}

// --- repeat --------------------------------------------------------------------------------------

// Adds `step` to x while it is below 10.
std::string Counting(const std::string& bounds) {
  return R"(
inputs:
  - {name: x, dtype: INT64, shape: [1]}
  - {name: step, dtype: INT64, shape: [1]}
stages:
  - name: count
    repeat: {)" +
         bounds + R"(}
    state: [{name: value, from: x, next: more}]
    stages:
      - {name: more, op: add, inputs: [value, step]}
      - {name: small, op: compare, input: more, is: less, to: 10}
      - {name: tenfold, op: multiply, input: value, by: 10}
    outputs: [value, {name: last, from: tenfold}]
outputs:
  - {name: value, from: count.value}
  - {name: last, from: count.last}
)";
}

TEST_F(DynamicTest, RepeatGoesOnWhileItsPredicateHolds) {
  const ExecutablePtr p = Load(Counting("limit: 100, while: small"));
  Tensors out = Ask(p, {Ints({1}), Ints({4})});
  EXPECT_EQ(Text(out[0]), "int64[1] 13") << "the state after the last turn";
  EXPECT_EQ(Text(out[1]), "int64[1] 90") << "what the last turn made";
  EXPECT_EQ(Text(Ask(p, {Ints({50}), Ints({1})})[0]), "int64[1] 51") << "one turn at least";
}

TEST_F(DynamicTest, ALoopThatReachesItsLimitIsAnErrorUnlessTheFileSaysOtherwise) {
  const ExecutablePtr strict = Load(Counting("limit: 100, while: small"));
  const RunResult r = runtime_->Run(strict, {Ints({1}), Ints({0})});
  EXPECT_EQ(r.status.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(r.status.message(), "stage 'count': still going after its limit of 100 turns");
  const ExecutablePtr lenient = Load(Counting("limit: 100, while: small, at_limit: stop"));
  EXPECT_EQ(Text(Ask(lenient, {Ints({1}), Ints({0})})[0]), "int64[1] 1");
  EXPECT_EQ(Text(Ask(strict, {Ints({-89}), Ints({1})})[0]), "int64[1] 10") << "99 turns";
}

TEST_F(DynamicTest, RepeatWithoutAPredicateMakesAllItsTurns) {
  for (const char* limit : {"limit: 3", "limit: 300"}) {  // unrolled, and not
    const ExecutablePtr p = Load(Counting(limit));
    const Tensors out = Ask(p, {Ints({5}), Ints({2})});
    EXPECT_EQ(Text(out[0]), limit == std::string("limit: 3") ? "int64[1] 11" : "int64[1] 605");
    EXPECT_EQ(Text(out[1]), limit == std::string("limit: 3") ? "int64[1] 90" : "int64[1] 6030");
  }
}

TEST_F(DynamicTest, AStateMayGrowAndATurnKnowsItsNumber) {
  const ExecutablePtr p = Load(R"(
inputs: [{name: n, dtype: INT64, shape: []}]
stages:
  - {name: none, op: constant, dtype: INT64, shape: [0]}
  - name: squares
    repeat: {limit: 100, while: fewer, turn: i}
    state: [{name: list, from: none, next: longer}]
    stages:
      - {name: square, op: multiply, inputs: [i, i]}
      - {name: row, op: reshape, input: square, shape: [1]}
      - {name: longer, op: concat, inputs: [list, row]}
      - {name: next, op: add, input: i, by: 1}
      - {name: fewer, op: compare, inputs: [next, n], is: less}
    outputs: [list]
outputs: [{name: out, from: squares}]
)");
  EXPECT_EQ(Text(Ask(p, {Tensor::ScalarInt64(5)})[0]), "int64[5] 0 1 4 9 16");
}

TEST_F(DynamicTest, AnErrorInALoopNamesTheTurn) {
  const ExecutablePtr p = Load(R"(
inputs: [{name: n, dtype: INT64, shape: [1]}]
stages:
  - name: down
    repeat: {limit: 100}
    state: [{name: at, from: n, next: less}]
    stages:
      - {name: ten, op: constant, dtype: INT64, shape: [10]}
      - {name: taken, op: gather, inputs: [ten, at]}
      - {name: less, op: subtract, input: at, by: 5}
    outputs: [taken]
outputs: [{name: out, from: down}]
)");
  const std::string error = Error(p, {Ints({9})});
  EXPECT_EQ(error.find("stage 'down', turn 4: "), 0u) << error;
}

// --- cancellation and time -----------------------------------------------------------------------

struct Construct {
  const char* name;
  std::string yaml;
};

// Each would take minutes.
std::vector<Construct> Endless() {
  const std::string inputs = "inputs: [{name: x, dtype: INT64, shape: [-1]}]\nstages:\n";
  const std::string loop = R"(
      - name: spin
        repeat: {limit: 1000000}
        state: [{name: s, from: x, next: t}]
        stages: [{name: t, op: add, input: s, by: 1}]
        outputs: [t]
)";
  return {
      {"repeat", inputs + loop + "outputs: [{name: out, from: spin}]\n"},
      {"when", inputs + R"(
  - {name: sum, op: reduce, input: x, kind: sum}
  - {name: some, op: compare, input: sum, is: greater, to: 0}
  - name: maybe
    when: some
    then:
      stages:)" + loop +
                   R"(
      outputs: [{name: x, from: spin}]
outputs: [{name: out, from: maybe}]
)"},
      {"foreach", inputs + R"(
  - name: all
    foreach: x
    as: one
    stages:)" + loop +
                      R"(
    outputs: [spin]
outputs: [{name: out, from: all}]
)"},
  };
}

TEST_F(DynamicTest, EveryConstructEndsWhenItsRequestIsCancelled) {
  for (const Construct& c : Endless()) {
    ExecutablePtr p = Load(c.yaml);
    std::promise<Status> ended;
    const auto token =
        runtime_->Start(p, {Ints({1, 2, 3})}, {}, [&](RunResult r) { ended.set_value(r.status); });
    token->Cancel(CancelledError("nobody waits"));
    const Status status = ended.get_future().get();
    EXPECT_EQ(status.code(), StatusCode::kCancelled) << c.name << ": " << status.ToString();
  }
}

TEST_F(DynamicTest, EveryConstructEndsWhenItsTimeHasPassed) {
  for (const Construct& c : Endless()) {
    ExecutablePtr p = Load(c.yaml);
    RequestAttributes attributes;
    attributes.timeout_at = runtime_->clock().Now() + std::chrono::milliseconds(20);
    const RunResult r = runtime_->Run(p, {Ints({1, 2, 3})}, attributes);
    EXPECT_EQ(r.status.code(), StatusCode::kDeadlineExceeded) << c.name << r.status.ToString();
  }
  runtime_.reset();  // waits for what still runs
}

}  // namespace
}  // namespace plexus
