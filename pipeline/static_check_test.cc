#include "pipeline/static_check.h"

#include <gtest/gtest.h>

#include "pipeline/graph_maker.h"
#include "pipeline/runtime.h"

namespace plexus {
namespace {

Status LoadStatus(GraphMaker& maker) {
  static const std::unique_ptr<Runtime> runtime = [] {
    RuntimeOptions options;
    options.threads = 1;
    return Runtime::Create(options).value();
  }();
  return runtime->Load("m", maker.Done(), {}).status();
}

TEST(StaticCheck, AFaultThatEveryRequestWouldMeetIsFoundWhileLoading) {
  {
    GraphMaker g;
    g.Out(g.Op("Add", {g.In("a", {-1}), g.In("b", {-1}, DType::kInt64)}));
    const Status status = LoadStatus(g);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("Add"), std::string::npos) << status.message();
    EXPECT_NE(status.message().find("do not match"), std::string::npos) << status.message();
  }
  {
    GraphMaker g;
    g.Out(g.Op("MatMul", {g.In("a", {2, 3}), g.Const(Floats({4, 1}, {1, 2, 3, 4}))}));
    EXPECT_EQ(LoadStatus(g).code(), StatusCode::kInvalidArgument);
  }
  {
    GraphMaker g;
    g.Out(g.Op("Concat", {g.In("a", {2, 3}), g.In("b", {2, 3})}, DType::kFloat32,
               {{"axis", int64_t{5}}}));
    EXPECT_EQ(LoadStatus(g).code(), StatusCode::kInvalidArgument);
  }
  {
    GraphMaker g;
    g.Out(g.Op("Expand", {g.In("a", {1}), g.Const(Tensor::VectorInt64({int64_t{1} << 40}))}));
    const Status status = LoadStatus(g);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
    EXPECT_NE(status.message().find("Expand"), std::string::npos) << status.message();
  }
}

TEST(StaticCheck, ANodeWithoutItsFirstOperandIsAnError) {
  for (const char* op : {"Relu", "Elu", "Log", "Max", "Min", "Gelu", "MaxPool", "LSTM", "Concat",
                         "Split", "Shape", "If", "Resize", "NonZero"}) {
    for (const bool left_out : {false, true}) {
      GraphMaker g;
      g.In("x", {-1});
      g.Out(g.Op(op, left_out ? std::vector<ValueId>{ValueId()} : std::vector<ValueId>()));
      EXPECT_FALSE(LoadStatus(g).ok()) << op;
    }
  }
}

TEST(StaticCheck, AModelThatIsFineForSomeShapesLoads) {
  GraphMaker g;
  g.Out(g.Op("Add", {g.In("a", {-1}), g.In("b", {-1})}));
  g.Out(g.Op("MatMul", {g.In("c", {-1, -1}), g.Const(Floats({4, 1}, {1, 2, 3, 4}))}));
  EXPECT_TRUE(LoadStatus(g).ok());
}

TEST(StaticCheck, TellsWhatIsKnownOfTheOutputs) {
  GraphMaker g;
  g.Out(g.Op("Relu", {g.In("a", {2, 3})}));
  g.Out(g.Op("Relu", {g.In("b", {-1, 3})}));
  const auto known = InferStatically(*g.Done(), SIZE_MAX).value();
  EXPECT_EQ(known[0].shape, (Shape{2, 3}));
  EXPECT_EQ(known[1].shape, std::nullopt);
  EXPECT_EQ(known[1].dtype, DType::kFloat32);
}

TEST(StaticCheck, ADeclaredShapeHoldsSizesOrLeavesThemOpen) {
  const SymbolicShape declared{true, {{std::nullopt, ""}, {3, ""}}};
  EXPECT_TRUE(CheckDeclaredShape(declared, {7, 3}).ok());
  EXPECT_TRUE(CheckDeclaredShape(SymbolicShape(), {1}).ok());
  EXPECT_FALSE(CheckDeclaredShape(declared, {7, 4}).ok());
  EXPECT_FALSE(CheckDeclaredShape(declared, {3}).ok());
}

}  // namespace
}  // namespace plexus
