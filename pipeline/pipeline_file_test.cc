#include "pipeline/pipeline_file.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace plexus {
namespace {

// A model with input x: f32[N,4] and output y, one Relu.
GraphPtr ReluModel() {
  Graph graph;
  graph.name = "relu";
  Value x;
  x.name = "x";
  x.dtype = DType::kFloat32;
  x.shape = SymbolicShape{true, {{std::nullopt, "N"}, {4, ""}}};
  Value y = x;
  y.name = "y";
  Node node;
  node.op = "Relu";
  node.name = "relu";
  node.version = 18;
  node.inputs = {graph.AddInput(x)};
  node.outputs = {graph.AddValue(y)};
  graph.outputs() = {node.outputs[0]};
  graph.AddNode(node);
  return std::make_shared<const Graph>(std::move(graph));
}

Result<GraphPtr> Lookup(const std::string& name) {
  if (name == "relu") return ReluModel();
  return NotFoundError("model '" + name + "' is not in the repository");
}

class PipelineFileTest : public ::testing::Test {
 protected:
  PipelineFileTest() {
    char name[] = "/tmp/plexus-pipeline-XXXXXX";
    folder_ = mkdtemp(name);
    std::ofstream(folder_ / "labels.txt") << "cat\ndog\n";
  }
  ~PipelineFileTest() override { std::filesystem::remove_all(folder_); }

  Result<PipelineFile> Parse(const std::string& yaml) {
    return ParsePipeline(yaml, "p.yaml", folder_, Lookup);
  }
  std::filesystem::path folder_;
};

constexpr char kHead[] = R"(
name: p
inputs:
  - {name: a, dtype: FP32, shape: [-1, 4]}
)";
constexpr char kTail[] = R"(
outputs:
  - {name: out, from: last}
)";

TEST_F(PipelineFileTest, InlinesModelsAndGlueIntoOneGraph) {
  const auto parsed = Parse(std::string(kHead) + R"(
stages:
  - {name: scaled, op: scale, input: a, scale: 2, offset: 1}
  - {name: last, model: relu, inputs: {x: scaled}}
)" + kTail);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(parsed->name, "p");
  EXPECT_EQ(parsed->models, std::vector<std::string>{"relu"});
  EXPECT_EQ(parsed->outputs, std::vector<std::string>{"out"});
  ASSERT_EQ(parsed->stages.size(), 2u);
  EXPECT_EQ(parsed->stages[0].op, "scale");
  EXPECT_EQ(parsed->stages[1].model, "relu");
  EXPECT_EQ(parsed->stages[1].inputs, std::vector<std::string>{"scaled"});
  EXPECT_EQ(parsed->stages[1].nodes, 1u);
  EXPECT_EQ(parsed->graph->ToString(),
            "graph p(%a: float32[?,4])\n"
            "  %scaled/scaled = Mul(%a, 2) : float32?\n"
            "  %scaled = Add(%scaled/scaled, 1) : float32?\n"
            "  %last/y = Relu(%scaled) : float32?\n"
            "  %output out = Identity(%last/y) : float32?\n"
            "  return %output out\n");
}

TEST_F(PipelineFileTest, StagesMayBeListedInAnyOrder) {
  EXPECT_TRUE(Parse(std::string(kHead) + R"(
stages:
  - {name: last, model: relu, input: first}
  - {name: first, op: scale, input: a}
)" + kTail)
                  .ok());
}

TEST_F(PipelineFileTest, MapRowsKeepsTheModelAsABody) {
  const auto parsed = Parse(std::string(kHead) + R"(
stages:
  - {name: last, model: relu, input: a, map_rows: true}
)" + kTail);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const Node& node = parsed->graph->nodes()[0];
  EXPECT_EQ(node.op, "MapRows");
  ASSERT_NE(node.GraphAttr("body"), nullptr);
  EXPECT_EQ(node.GraphAttr("body")->nodes()[0].op, "Relu");
}

TEST_F(PipelineFileTest, ReadsLabelsFromTheFileBeside) {
  const auto parsed = Parse(std::string(kHead) + R"(
stages:
  - {name: best, op: top_k, input: a, k: 1}
  - {name: last, op: label_lookup, input: best.indices, labels: labels.txt}
)" + kTail);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const auto& labels =
      std::get<std::vector<std::string>>(parsed->graph->nodes()[1].attributes.at("labels"));
  EXPECT_EQ(labels, (std::vector<std::string>{"cat", "dog"}));
}

struct BadCase {
  const char* stages;
  const char* expected;  // part of the message
};

TEST_F(PipelineFileTest, BadStagesAreRejectedWithTheStageAndTheReason) {
  const BadCase cases[] = {
      {"- {name: last, model: nothere, input: a}", "stage 'last': model 'nothere'"},
      {"- {name: last, op: fly, input: a}", "unknown operator 'fly'"},
      {"- {name: last, op: scale, input: b}", "reads 'b', which is no input or stage"},
      {"- {name: last, op: scale, input: a, speed: 3}", "unknown key 'speed'"},
      {"- {name: last, op: scale, input: a, scale: fast}", "key 'scale': expected a number"},
      {"- {name: last, op: scale, input: a, scale: .nan}", "expected a finite number"},
      {"- {name: last, op: window, input: a, size: 0}", "'size' and 'step' must be at least 1"},
      {"- {name: last, op: window, input: a}", "key 'size' is missing"},
      {"- {name: last, op: cast, input: a, to: FP99}", "key 'to'"},
      {"- {name: last, op: bytes, input: a}", "expects BYTES, its input is FP32"},
      {"- {name: last, op: reshape, input: a, shape: [-1, -1]}", "-1 once"},
      {"- {name: last, op: reduce, input: a, kind: median}", "sum, mean, max or min"},
      {"- {name: last, op: scale}", "takes one 'input'"},
      {"- {name: last, model: relu, inputs: {z: a}}", "has no input 'z'; it has 'x'"},
      {"- {name: last, model: relu}", "input 'x' of model 'relu' is not given"},
      {"- {name: last, model: relu, op: scale, input: a}", "either 'model' or 'op'"},
      {"- {name: a, op: scale, input: a}", "two inputs or stages are named 'a'"},
      {"- {name: 'x y', op: scale, input: a}", "bad name"},
      {"- {name: last, op: scale, input: last}", "part of a cycle"},
      {"- {name: last, op: scale, input: b}\n  - {name: b, op: scale, input: last}",
       "part of a cycle"},
      {"- {name: t, op: top_k, input: a, k: 1}\n  - {name: last, op: scale, input: t}",
       "several outputs"},
      {"- {name: t, op: top_k, input: a, k: 1}\n  - {name: last, op: scale, input: t.best}",
       "there are: 'values', 'indices'"},
      {"- {name: t, op: top_k, input: a, k: 1}\n  - {name: last, model: relu, input: t.indices}",
       "is FP32, 't.indices' is INT64"},
      {"- {name: t, op: top_k, input: a, k: 1}\n"
       "  - {name: last, op: label_lookup, input: t.indices, labels: ../labels.txt}",
       "a file beside the pipeline"},
      {"- {name: t, op: top_k, input: a, k: 1}\n"
       "  - {name: last, op: label_lookup, input: t.indices, labels: gone.txt}",
       "is not there"},
      {"- [not, a, mapping]", "expected a mapping"},
      {"- {name: last, op: scale, input: [a}", "p.yaml"},
  };
  for (const BadCase& c : cases) {
    const auto parsed = Parse(std::string(kHead) + "stages:\n  " + c.stages + "\n" + kTail);
    ASSERT_FALSE(parsed.ok()) << c.stages;
    EXPECT_NE(parsed.status().message().find(c.expected), std::string::npos)
        << c.stages << "\n gave: " << parsed.status().message();
    EXPECT_NE(parsed.status().message().find("p.yaml"), std::string::npos);
  }
}

TEST_F(PipelineFileTest, AKeyThatStandsTwiceIsRejectedWithItsLines) {
  const auto message = [&](const std::string& yaml) { return Parse(yaml).status().message(); };
  EXPECT_EQ(message("name: p\ninputs: []\nname: q\n"),
            "p.yaml: line 3: key 'name' is there already, in line 1");
  EXPECT_EQ(message("name: p\nstages:\n  - {name: s,\n     op: scale, name: t}\n"),
            "p.yaml: line 4: key 'name' is there already, in line 3");
  EXPECT_EQ(message("a: {x: 1, y: {x: 2}, z: x, \"x\": 3}\n"),
            "p.yaml: line 1: key 'x' is there already, in line 1");
  // Equal keys of different mappings, and values equal to keys, are nobody's mistake.
  EXPECT_EQ(message("a: &m {x: a, y: [x, x]}\nb: {x: *m}\n").find("already"), std::string::npos);
}

TEST_F(PipelineFileTest, AMessageNamesAnInputOnce) {
  const auto parsed = Parse(
      "name: p\ninputs: [{name: a, dtype: FP99, shape: [1]}]\n"
      "stages: [{name: s, op: scale, input: a}]\n"
      "outputs: [{name: o, from: s}]\n");
  EXPECT_EQ(parsed.status().message().find("p.yaml: input 'a': unknown dtype 'FP99'; there are: "),
            0u)
      << parsed.status().message();
}

TEST_F(PipelineFileTest, BadFilesAreRejected) {
  for (const char* yaml :
       {"", "[]", "name: p", "name: p\ninputs: []\nstages: []\noutputs: []", "a: &a [*a, *a]",
        "name: p\ninputs: 3\nstages: 4\noutputs: 5", "{{{{", "\t\tx: y", "name: ../p"}) {
    const auto parsed = Parse(yaml);
    ASSERT_FALSE(parsed.ok()) << yaml;
    EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument) << yaml;
  }
  EXPECT_FALSE(Parse(std::string(100'000, '[')).ok()) << "deep nesting";
  EXPECT_FALSE(Parse(std::string(2 << 20, ' ')).ok()) << "too large";
}

TEST_F(PipelineFileTest, NeverReadsLabelsThroughALink) {
  std::filesystem::create_symlink("/etc/passwd", folder_ / "link.txt");
  const auto parsed = Parse(std::string(kHead) + R"(
stages:
  - {name: best, op: top_k, input: a, k: 1}
  - {name: last, op: label_lookup, input: best.indices, labels: link.txt}
)" + kTail);
  ASSERT_FALSE(parsed.ok());
  EXPECT_NE(parsed.status().message().find("not a regular file"), std::string::npos);
}

}  // namespace
}  // namespace plexus
