// LayerNormalization, GELU, Softmax and attention written out.
#include "graph/passes/passes.h"
#include "graph/passes/test_graph.h"

namespace plexus {
namespace {

// What varies between exporters and between right and wrong.
struct NormOptions {
  std::vector<int64_t> mean_axes = {-1};
  std::vector<int64_t> var_axes = {-1};
  bool epsilon_outside = false;
  bool swapped_sub = false;
  bool mean_is_output = false;
  Shape gamma = {8};
};

ValueId LayerNorm(TestGraph& t, ValueId x, const NormOptions& o = {}) {
  const ValueId mean = t.Op("mean", "ReduceMean", {x, t.Ints(o.mean_axes)});
  if (o.mean_is_output) t.Output(mean);
  const ValueId d = o.swapped_sub ? t.Op("d", "Sub", {mean, x}) : t.Op("d", "Sub", {x, mean});
  const ValueId sq = t.Op("sq", "Pow", {d, t.Scalar(2)});
  ValueId v = t.Op("var", "ReduceMean", {sq, t.Ints(o.var_axes)});
  if (o.epsilon_outside) {
    v = t.Op("root", "Sqrt", {v});
    v = t.Op("eps", "Add", {v, t.Scalar(1e-5f)});
  } else {
    v = t.Op("eps", "Add", {v, t.Scalar(1e-5f)});
    v = t.Op("root", "Sqrt", {v});
  }
  const ValueId n = t.Op("n", "Div", {d, v});
  const ValueId g = t.Op("g", "Mul", {n, t.Ramp("gamma", o.gamma)});
  return t.Op("y", "Add", {t.Ramp("beta", {8}), g});
}

TEST(FuseLayerNorm, DecomposedFormBecomesOneNode) {
  TestGraph t;
  t.Output(LayerNorm(t, t.Input("x", {2, 4, 8})));
  EXPECT_EQ(t.Ops(), "ReduceMean Sub Pow ReduceMean Add Sqrt Div Mul Add");
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[2,4,8])\n"
            "  %y = LayerNormalization(%x, @gamma, @beta) axis=-1 epsilon=1e-05 : "
            "float32[2,4,8]\n"
            "  return %y\n");
}

TEST(FuseLayerNorm, WorksWithoutShapes) {
  TestGraph t;
  t.infer = false;
  t.Output(LayerNorm(t, t.Input("x", {})));
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.Ops(), "LayerNormalization");
}

TEST(FuseLayerNorm, MustNotFuse) {
  const std::string all = "ReduceMean Sub Pow ReduceMean Add Sqrt Div Mul Add";
  const std::string outside = "ReduceMean Sub Pow ReduceMean Sqrt Add Div Mul Add";
  const struct {
    const char* why;
    NormOptions options;
    std::string ops;
  } cases[] = {
      {"variance over another axis", {.var_axes = {1}}, all},
      {"mean over another axis", {.mean_axes = {1}}, all},
      {"epsilon added to the deviation", {.epsilon_outside = true}, outside},
      {"mean minus x", {.swapped_sub = true}, all},
      {"the mean is an output", {.mean_is_output = true}, all},
  };
  for (const auto& c : cases) {
    TestGraph t;
    t.Output(LayerNorm(t, t.Input("x", {2, 8, 8}), c.options));
    t.Run(FuseLayerNorm);
    EXPECT_EQ(t.Ops(), c.ops) << c.why;
  }
}

TEST(FuseLayerNorm, GammaPerRowStaysBehindAPlainNormalisation) {
  TestGraph t;
  t.Output(LayerNorm(t, t.Input("x", {2, 4, 8}), {.gamma = {4, 1}}));
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.Ops(), "LayerNormalization Mul Add");
}

// sum/n without kept axes, reshaped back, variance as E[x²] − E[x]²: how JAX exports it.
ValueId SumsLayerNorm(TestGraph& t, ValueId x, int64_t axis, Shape kept, float inverse_n) {
  const auto mean = [&](const std::string& n, ValueId v) {
    v = t.Op(n + "_sum", "ReduceSum", {v, t.Ints({axis})}, {{"keepdims", int64_t{0}}});
    return t.Op(n, "Mul", {v, t.Scalar(inverse_n)});
  };
  const ValueId m = mean("mean", x);
  const ValueId q = mean("square", t.Op("xx", "Mul", {x, x}));
  ValueId v = t.Op("var", "Sub", {q, t.Op("mm", "Mul", {m, m})});
  v = t.Op("pos", "Max", {t.Scalar(0), v});
  v = t.Op("v_kept", "Reshape", {v, t.Ints(kept)});
  v = t.Op("eps", "Add", {v, t.Scalar(1e-6f)});
  v = t.Op("inv", "Reciprocal", {t.Op("root", "Sqrt", {v})});
  Shape gamma = {8};
  if (axis == 1) gamma = {1, 8, 1};
  v = t.Op("scale", "Mul", {v, t.Ramp("gamma", gamma)});
  const ValueId d = t.Op("d", "Sub", {x, t.Op("m_kept", "Reshape", {m, t.Ints(kept)})});
  return t.Op("y", "Add", {t.Op("dg", "Mul", {d, v}), t.Ramp("beta", gamma)});
}

TEST(FuseLayerNorm, SumsAndReshapesAreSeenThrough) {
  TestGraph t;
  t.Output(SumsLayerNorm(t, t.Input("x", {4, 8}), -1, {4, 1}, 1.0f / 8));
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.Ops(), "LayerNormalization");
}

TEST(FuseLayerNorm, SumTimesAnotherNumberIsNoMean) {
  TestGraph t;
  t.Output(SumsLayerNorm(t, t.Input("x", {4, 8}), -1, {4, 1}, 1.0f / 7));
  const size_t before = t.g.num_nodes();
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.g.num_nodes(), before);
}

TEST(FuseLayerNorm, ReshapeToTheWrongAxisIsNotSeenThrough) {
  TestGraph t;  // 8x8: the mean per row is subtracted per column
  t.Output(SumsLayerNorm(t, t.Input("x", {8, 8}), -1, {1, 8}, 1.0f / 8));
  const size_t before = t.g.num_nodes();
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.g.num_nodes(), before);
}

TEST(FuseLayerNorm, InnerAxisGetsTransposesThatCancelLater) {
  TestGraph t;
  const ValueId y = SumsLayerNorm(t, t.Input("x", {2, 8, 4}), 1, {2, 1, 4}, 1.0f / 8);
  const ValueId u = t.Op("u", "Unsqueeze", {y, t.Ints({3})});
  const ValueId z = t.Op("z", "Transpose", {u}, {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
  t.Output(t.Op("r", "Relu", {z}));
  t.Run(FuseLayerNorm);
  EXPECT_EQ(t.Ops(), "Transpose LayerNormalization Transpose Unsqueeze Transpose Relu");
  t.Run(EliminateTransposes);
  EXPECT_EQ(t.Ops(), "Transpose LayerNormalization Reshape Relu");
}

ValueId ErfGelu(TestGraph& t, ValueId x, float root, float one, float half) {
  ValueId e = t.Op("div", "Div", {x, t.Scalar(root)});
  e = t.Op("erf", "Erf", {e});
  e = t.Op("add", "Add", {e, t.Scalar(one)});
  e = t.Op("mul", "Mul", {x, e});
  return t.Op("y", "Mul", {e, t.Scalar(half)});
}

TEST(FuseGelu, ErfFormBecomesOneNode) {
  TestGraph t;
  t.Output(ErfGelu(t, t.Input("x", {2, 8}), 1.4142135f, 1, 0.5f));
  t.Run(FuseGelu);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[2,8])\n"
            "  %y = Gelu(%x) approximate=\"none\" : float32[2,8]\n"
            "  return %y\n");
}

TEST(FuseGelu, HalfMayStandBeforeTheProduct) {
  TestGraph t;
  const ValueId x = t.Input("x", {2, 8});
  ValueId e = t.Op("k", "Mul", {x, t.Scalar(0.70710678f)});
  e = t.Op("add", "Add", {t.Scalar(1), t.Op("erf", "Erf", {e})});
  t.Output(t.Op("y", "Mul", {t.Op("h", "Mul", {x, t.Scalar(0.5f)}), e}));
  t.Run(FuseGelu);
  EXPECT_EQ(t.Ops(), "Gelu");
}

TEST(FuseGelu, ConstantsThatAreOffStay) {
  for (const auto& [root, one, half] :
       {std::tuple{1.4143f, 1.0f, 0.5f}, std::tuple{1.4142135f, 1.01f, 0.5f},
        std::tuple{1.4142135f, 1.0f, 0.51f}}) {
    TestGraph t;
    t.Output(ErfGelu(t, t.Input("x", {2, 8}), root, one, half));
    t.Run(FuseGelu);
    EXPECT_EQ(t.Ops(), "Div Erf Add Mul Mul") << root << " " << one << " " << half;
  }
}

TEST(FuseGelu, ErfOfAnotherValueStays) {
  TestGraph t;
  const ValueId x = t.Input("x", {2, 8});
  ValueId e = t.Op("div", "Div", {t.Input("z", {2, 8}), t.Scalar(1.4142135f)});
  e = t.Op("add", "Add", {t.Op("erf", "Erf", {e}), t.Scalar(1)});
  t.Output(t.Op("y", "Mul", {t.Op("m", "Mul", {x, e}), t.Scalar(0.5f)}));
  t.Run(FuseGelu);
  EXPECT_EQ(t.Ops(), "Div Erf Add Mul Mul");
}

TEST(FuseGelu, TanhFormAsNestedProductsAndAsPower) {
  for (const bool power : {false, true}) {
    TestGraph t;
    const ValueId x = t.Input("x", {2, 8});
    ValueId c;
    if (power) {
      c = t.Op("p", "Pow", {x, t.Scalar(3)});
      c = t.Op("k", "Mul", {c, t.Scalar(0.044715f)});
    } else {
      c = t.Op("k", "Mul", {t.Scalar(0.044715f), x});
      c = t.Op("k2", "Mul", {x, t.Op("k1", "Mul", {x, c})});
    }
    c = t.Op("sum", "Add", {x, c});
    c = t.Op("in", "Mul", {t.Scalar(0.7978845834732056f), c});
    c = t.Op("one", "Add", {t.Scalar(1), t.Op("tanh", "Tanh", {c})});
    t.Output(t.Op("y", "Mul", {x, t.Op("half", "Mul", {t.Scalar(0.5f), c})}));
    t.Run(FuseGelu);
    EXPECT_EQ(t.Ops(), "Gelu");
    EXPECT_EQ(t.NodeOf("Gelu").StringAttr("approximate", ""), "tanh");
  }
}

ValueId WrittenSoftmax(TestGraph& t, ValueId x, int64_t max_axis, int64_t sum_axis) {
  const ValueId m = t.Op("max", "ReduceMax", {x, t.Ints({max_axis})});
  const ValueId e = t.Op("exp", "Exp", {t.Op("sub", "Sub", {x, m})});
  return t.Op("y", "Div", {e, t.Op("sum", "ReduceSum", {e, t.Ints({sum_axis})})});
}

TEST(FuseSoftmax, WrittenOutFormBecomesOneNode) {
  TestGraph t;
  t.Output(WrittenSoftmax(t, t.Input("x", {4, 8}), 1, -1));
  t.Run(FuseSoftmax);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%x: float32[4,8])\n"
            "  %y = Softmax(%x) axis=1 : float32[4,8]\n"
            "  return %y\n");
}

TEST(FuseSoftmax, SumOverAnotherAxisStays) {
  TestGraph t;
  t.Output(WrittenSoftmax(t, t.Input("x", {4, 4}), 1, 0));
  t.Run(FuseSoftmax);
  EXPECT_EQ(t.Ops(), "ReduceMax Sub Exp ReduceSum Div");
}

struct AttentionOptions {
  Shape mask = {2, 1, 1, 5};
  int64_t axis = -1;
  bool scores_are_output = false;
  std::vector<int64_t> k_perm = {0, 2, 3, 1};
  Shape k = {2, 5, 3, 4};
};
void Attention(TestGraph& t, const AttentionOptions& o = {}) {
  const ValueId q = t.Input("q", {2, 3, 6, 4});
  const ValueId k = t.Op("kt", "Transpose", {t.Input("k", o.k)}, {{"perm", o.k_perm}});
  ValueId s = t.Op("qk", "MatMul", {q, k});
  s = t.Op("scaled", "Div", {s, t.Scalar(2)});
  if (!o.mask.empty()) s = t.Op("masked", "Add", {s, t.Input("mask", o.mask)});
  if (o.scores_are_output) t.Output(s);
  s = t.Op("p", "Softmax", {s}, {{"axis", o.axis}});
  t.Output(t.Op("y", "MatMul", {s, t.Input("v", {2, 3, 5, 7})}));
}

TEST(FuseAttention, ScaleMaskAndKeyTransposeAreAbsorbed) {
  TestGraph t;
  Attention(t);
  t.Run(FuseAttention);
  EXPECT_EQ(t.g.ToString(),
            "graph t(%q: float32[2,3,6,4], %k: float32[2,5,3,4], %mask: float32[2,1,1,5], "
            "%v: float32[2,3,5,7])\n"
            "  %kt/k = Transpose(%k) perm=[0,2,1,3] : float32[2,3,5,4]\n"
            "  %y = plexus.Attention(%q, %kt/k, %v, %mask) scale=0.5 : float32[2,3,6,7]\n"
            "  return %y\n");
}

TEST(FuseAttention, PlainKeyTransposeVanishes) {
  TestGraph t;
  Attention(t, {.k_perm = {0, 1, 3, 2}, .k = {2, 3, 5, 4}});
  t.Run(FuseAttention);
  EXPECT_EQ(t.Ops(), "plexus.Attention");
}

TEST(FuseAttention, MustNotFuse) {
  for (const auto& [why, o] :
       {std::pair{"softmax over queries", AttentionOptions{.axis = 2}},
        std::pair{"scores are an output", AttentionOptions{.scores_are_output = true}}}) {
    TestGraph t;
    Attention(t, o);
    t.Run(FuseAttention);
    EXPECT_EQ(t.Ops(), "Transpose MatMul Div Add Softmax MatMul") << why;
  }
}

}  // namespace
}  // namespace plexus
