// What is wrong with nested stages is found while loading.
#include <gtest/gtest.h>

#include "pipeline/graph_maker.h"
#include "pipeline/pipeline_file.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

// x: f32[1,3] to f32[1,2].
Result<GraphPtr> Lookup(const std::string& name) {
  if (name != "linear") return NotFoundError("model '" + name + "' is not in the repository");
  GraphMaker g;
  const ValueId x = g.In("x", {1, 3});
  g.Out(g.Op("MatMul", {x, g.Const(Floats({3, 2}, {1, 2, 3, 4, 5, 6}))}));
  g.graph.value(g.graph.outputs()[0]).name = "y";
  return g.Done();
}

constexpr char kHead[] = R"(
name: p
inputs:
  - {name: x, dtype: FP32, shape: [-1, 3]}
  - {name: b, dtype: BOOL, shape: []}
stages:
)";
constexpr char kTail[] = "\noutputs: [{name: out, from: s}]\n";

Result<PipelineFile> Parse(const std::string& stages) {
  return ParsePipeline(kHead + ("  " + stages) + kTail, "p.yaml", "/", Lookup);
}

std::string ParseError(const std::string& stages) {
  const auto parsed = Parse(stages);
  return parsed.ok() ? "none" : parsed.status().message();
}

struct BadCase {
  const char* stages;
  const char* expected;  // part of the message
};

void Check(std::initializer_list<BadCase> cases) {
  for (const BadCase& c : cases) {
    const std::string message = ParseError(c.stages);
    EXPECT_NE(message.find(c.expected), std::string::npos) << c.stages << "\n gave: " << message;
    EXPECT_EQ(message.find("p.yaml: "), 0u) << message;
  }
}

TEST(NestedStages, BadBranchesAreRejected) {
  Check({
      {"- {name: s, when: b}", "stage 's': key 'then': expected {stages"},
      {"- {name: s, when: x, then: {outputs: [x]}}",
       "stage 's': 'when' takes a BOOL value, 'x' is FP32"},
      {"- {name: s, when: gone, then: {outputs: [x]}}", "stage 's' reads 'gone'"},
      {"- {name: s, when: b, then: {outputs: [x]}, otherwise: {}}", "unknown key 'otherwise'"},
      {"- {name: s, when: b, then: {outputs: [x], stage: []}}",
       "stage 's', 'then': unknown key 'stage'"},
      {"- {name: s, when: b, then: {outputs: []}}", "a list with at least one entry"},
      {"- {name: s, when: b, then: {outputs: [x, x]}}", "two outputs are named 'x'"},
      {"- {name: s, when: b, then: {outputs: [{name: y, from: x}]}}",
       "output 'y' passes the value of that name through, and there is none"},
      {"- {name: s, when: b, then: {outputs: [x]}, else: {outputs: [{name: y, from: x}]}}",
       "stage 's': 'then' gives output 'x', 'else' does not"},
      {"- {name: s, when: b, then: {outputs: [x]}, else: {outputs: [x, b]}}",
       "must give the same outputs"},
      {"- {name: s, when: b, then: {outputs: [x]}, else: {outputs: [{name: x, from: b}]}}",
       "output 'x' is FP32 from 'then' and BOOL from 'else'"},
      {"- name: s\n    when: b\n    then:\n      stages: [{name: x, op: scale, input: x}]\n"
       "      outputs: [x]",
       "two inputs or stages are named 's/then/x'"},
      {"- name: s\n    when: b\n    then:\n      stages: [{name: i, op: cast, input: x, to: "
       "FP99}]\n"
       "      outputs: [i]",
       "stage 's/then/i': key 'to'"},
      {"- name: s\n    when: b\n    then:\n      stages: [{name: i, op: scale, input: s}]\n"
       "      outputs: [i]",
       "stage 's' is part of a cycle"},
      {"- name: s\n    when: b\n    then:\n"
       "      stages: [{name: i, op: scale, input: j}, {name: j, op: scale, input: i}]\n"
       "      outputs: [i]",
       "stage 's/then/i' is part of a cycle"},
      {"- {name: s, op: scale, input: t}\n  - name: t\n    when: b\n    then:\n"
       "      stages: [{name: i, op: scale, input: s}]\n      outputs: [{name: x, from: i}]",
       "is part of a cycle"},
      {"- name: s\n    when: b\n    then:\n"
       "      stages: [{name: i, model: linear, input: b}]\n      outputs: [{name: x, from: i}]",
       "stage 's/then/i': input 'x' of model 'linear' is FP32, 'b' is BOOL"},
      {"- {name: s, when: b, foreach: x, then: {outputs: [x]}}", "one of 'when', 'foreach'"},
  });
}

TEST(NestedStages, BadFanOutsAreRejected) {
  Check({
      {"- {name: s, foreach: x, outputs: [x]}", "key 'as' is missing"},
      {"- {name: s, foreach: b, as: e, outputs: [e]}", "'b' is a scalar: it has no axis to walk"},
      {"- {name: s, foreach: [x, x], as: e, outputs: [e]}", "as many values as each other"},
      {"- {name: s, foreach: x, as: x, outputs: [x]}", "two inputs or stages are named 'x'"},
      {"- {name: s, foreach: x, as: e, limit: 0, outputs: [e]}", "key 'limit': expected 1 to"},
      {"- {name: s, foreach: x, as: e, concurrency: 1000, outputs: [e]}", "key 'concurrency'"},
      {"- {name: s, foreach: x, as: e, outputs: [{name: o, from: e, pad: red}]}",
       "output 'o': key 'pad': 'red' is no value of type FP32"},
      {"- {name: s, foreach: x, as: e, outputs: [{name: o, from: e, sizes: o}]}",
       "two outputs are named 'o'"},
      {"- {name: s, foreach: x, as: e, outputs: [e.y]}", "output 'e.y' needs a name"},
      {"- {name: s, foreach: x, as: e, outputs: [{name: o, from: e, stack: 1}]}",
       "unknown key 'stack'"},
      {"- {name: s, foreach: x, as: e, outputs: [gone]}", "stage 's', output 'gone', reads 'gone'"},
      {"- {name: s, foreach: x, as: e, stages: 3, outputs: [e]}", "expected a list of stages"},
  });
}

TEST(NestedStages, BadLoopsAreRejected) {
  Check({
      {"- {name: s, repeat: {}, outputs: [x]}", "stage 's', 'repeat': key 'limit' is missing"},
      {"- {name: s, repeat: {limit: 0}, outputs: [x]}", "key 'limit': expected 1 to 1000000"},
      {"- {name: s, repeat: {limit: 2000000}, outputs: [x]}", "expected 1 to 1000000"},
      {"- {name: s, repeat: {limit: 3, until: b}, outputs: [x]}", "unknown key 'until'"},
      {"- {name: s, repeat: {limit: 3, at_limit: error}, outputs: [x]}", "without 'while'"},
      {"- {name: s, repeat: {limit: 3, while: b, at_limit: maybe}, outputs: [x]}",
       "expected error or stop"},
      {"- {name: s, repeat: {limit: 3, while: x}, outputs: [x]}",
       "stage 's': 'while' takes a BOOL value, 'x' is FP32"},
      {"- {name: s, repeat: {limit: 3}, state: 3, outputs: [x]}", "key 'state': expected a list"},
      {"- {name: s, repeat: {limit: 3}, state: [{name: v, from: x, next: b}], outputs: [v]}",
       "state 'v' is FP32, its next value 'b' is BOOL"},
      {"- {name: s, repeat: {limit: 3}, state: [{name: v, from: x, next: w}], outputs: [v]}",
       "stage 's', state 'v', reads 'w'"},
      {"- {name: s, repeat: {limit: 3}, state: [{name: v, from: x}], outputs: [v]}",
       "key 'next' is missing"},
  });
}

TEST(NestedStages, TheyNestEightDeepAndCountAsStages) {
  const auto nested = [](int levels) {
    std::string yaml = "- {name: s, foreach: x, as: e0, ";
    for (int i = 1; i < levels; ++i) {
      const std::string n = std::to_string(i);
      yaml +=
          "stages: [{name: i" + n + ", foreach: e" + std::to_string(i - 1) + ", as: e" + n + ", ";
    }
    const std::string last = std::to_string(levels - 1);
    yaml += "outputs: [{name: o, from: e" + last + "}]";
    for (int i = levels - 1; i > 0; --i) {
      yaml += "}], outputs: [{name: o, from: i" + std::to_string(i) + "}]";
    }
    return yaml + "}";
  };
  EXPECT_EQ(ParseError(nested(8)), "none");
  EXPECT_NE(ParseError(nested(9)).find("nest deeper than 8 levels"), std::string::npos);
  // Aliases make a small file large.
  std::string wide = "- {name: s, foreach: x, as: e, stages: &a [";
  for (int i = 0; i < 600; ++i) {
    wide += "{name: n" + std::to_string(i) + ", op: scale, input: x},";
  }
  wide += "], outputs: [e]}\n  - {name: t, foreach: x, as: f, stages: *a, outputs: [f]}";
  EXPECT_NE(ParseError(wide).find("more than 1000 stages"), std::string::npos) << ParseError(wide);
}

TEST(NestedStages, ShapesThatContradictEachOtherAreFoundWhileLoading) {
  RuntimeOptions options;
  options.threads = 1;
  const std::unique_ptr<Runtime> runtime = Runtime::Create(options).value();
  const auto load_error = [&](const std::string& stages) {
    const auto parsed = ParsePipeline(
        "name: p\ninputs:\n  - {name: x, dtype: FP32, shape: [4, 3]}\n"
        "  - {name: b, dtype: BOOL, shape: []}\n  - {name: bb, dtype: BOOL, shape: [2]}\nstages:\n"
        "  " +
            stages + kTail,
        "p.yaml", "/", Lookup);
    EXPECT_TRUE(parsed.ok()) << parsed.status().ToString();
    if (!parsed.ok()) return std::string();
    const auto loaded = runtime->Load("p", parsed->graph, {});
    return loaded.ok() ? std::string("none") : loaded.status().message();
  };
  const auto expect = [&](const std::string& stages, const std::string& where,
                          const std::string& what) {
    const std::string error = load_error(stages);
    EXPECT_EQ(error.find(where), 0u) << error;
    EXPECT_NE(error.find(what), std::string::npos) << error;
  };
  const std::string shaped = "stages: [{name: i, op: reshape, input: x, shape: [5]}], ";
  expect("- {name: s, when: b, then: {" + shaped + "outputs: [{name: x, from: i}]}}",
         "stage 's': ", "s/then/i");
  expect("- {name: s, when: bb, then: {outputs: [x]}}", "stage 's': ", "the predicate is [2]");
  expect(
      "- {name: s, foreach: x, as: e, stages: [{name: i, op: reshape, input: e, shape: [5]}], "
      "outputs: [i]}",
      "stage 's': ", "s/i");
  expect(
      "- {name: s, foreach: x, as: e, stages: [{name: i, model: linear, input: x}, "
      "{name: j, op: add, inputs: [i, e]}], outputs: [j]}",
      "stage 's': ", "s/j");
  expect("- {name: s, foreach: [x, bb], as: [e, f], outputs: [e]}",
         "stage 's': ", "differ in length: 4 and 2");
  expect("- {name: s, repeat: {limit: 3, while: bb}, outputs: [x]}",
         "stage 's': ", "the value of 'while' is [2]");
  EXPECT_EQ(load_error("- {name: s, foreach: x, as: e, stages: [{name: i, model: linear, "
                       "input: e}], outputs: [i]}"),
            "none");
}

TEST(NestedStages, AModelOverEachElementRunsOnAllRowsAtOnceWhereThatIsProven) {
  RuntimeOptions options;
  options.threads = 1;
  const std::unique_ptr<Runtime> runtime = Runtime::Create(options).value();
  const auto parsed = Parse(
      "- {name: y, op: scale, input: x}\n"
      "  - {name: s, foreach: y, as: e, limit: 3, stages: [{name: i, model: linear, input: e}],"
      " outputs: [i]}");
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const ExecutablePtr p = runtime->Load("p", parsed->graph, {}).value();
  for (const Node& node : p->graph().nodes()) EXPECT_NE(node.op, "MapRows");
  const Tensor b = Tensor::Of<uint8_t>(DType::kBool, {}, {1});
  const RunResult r = runtime->Run(p, {Floats({2, 3}, {1, 0, 0, 0, 1, 0}), b});
  ASSERT_TRUE(r.status.ok()) << r.status.ToString();
  EXPECT_EQ(TensorToString(r.outputs[0]), "float32[2,2] 1 2 3 4");
  EXPECT_EQ(runtime->Run(p, {*Tensor::Allocate(DType::kFloat32, {4, 3}), b}).status.message(),
            "graph 'p': stage 's': 4 elements, its limit is 3");
}

}  // namespace
}  // namespace plexus
