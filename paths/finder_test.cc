#include "paths/finder.h"

#include <random>
#include <set>

#include "graph/passes/tiny_evaluator.h"
#include "paths/test_pipelines.h"

namespace plexus {
namespace {

// The path's calls put together again.
Graph Inline(const Path& path, const Graph& pipeline) {
  Graph out;
  std::vector<ValueId> inputs;
  for (ValueId id : pipeline.inputs()) inputs.push_back(out.AddInput(pipeline.value(id)));
  std::vector<std::vector<ValueId>> made;
  const auto resolve = [&](const PathValue& v) {
    if (v.from == PathValue::From::kInput) return inputs.at(v.index);
    if (v.from == PathValue::From::kCall) return made.at(v.call).at(v.index);
    return out.AddConstant("c" + std::to_string(out.num_values()), v.constant);
  };
  for (const Call& call : path.calls) {
    const Graph& body = *call.segment->graph;
    std::map<uint32_t, ValueId> map;
    for (size_t i = 0; i < call.inputs.size(); ++i) {
      map[body.inputs()[i].value()] = resolve(call.inputs[i]);
    }
    for (const Node& inner : body.nodes()) {
      Node node = inner;
      for (ValueId& id : node.inputs) {
        if (!id.valid()) continue;
        if (map.count(id.value()) == 0) map[id.value()] = out.AddValue(body.value(id));
        id = map.at(id.value());
      }
      for (ValueId& id : node.outputs) id = map[id.value()] = out.AddValue(body.value(id));
      out.AddNode(std::move(node));
    }
    made.emplace_back();
    for (ValueId id : body.outputs()) made.back().push_back(map.at(id.value()));
  }
  for (const PathValue& v : path.outputs) out.outputs().push_back(resolve(v));
  return out;
}

std::string Function(const Graph& graph) {
  std::vector<uint32_t> nodes, order;
  std::vector<ValueId> inputs;
  std::set<uint32_t> needed;
  const std::vector<NodeId> producers = graph.Producers();
  std::vector<ValueId> stack(graph.outputs());
  while (!stack.empty()) {  // what nobody reads does not count
    const ValueId id = stack.back();
    stack.pop_back();
    if (!id.valid() || !producers[id.value()].valid()) continue;
    if (!needed.insert(producers[id.value()].value()).second) continue;
    for (ValueId in : graph.node(producers[id.value()]).inputs) stack.push_back(in);
  }
  nodes.assign(needed.begin(), needed.end());
  return FunctionText(graph, nodes, graph.outputs(), false, &inputs, &order);
}

TEST(PathFinder, OnePipelineIsOneSegment) {
  const PathMapPtr map = Find({{"a", Builder().Layer(1).Layer(2).Op("Tanh").Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu MatMul Relu Tanh {a}"}));
  EXPECT_EQ(map->constant_bytes_saved, 0u);
}

TEST(PathFinder, SharesAPrefix) {
  const PathMapPtr map = Find({{"a", Builder().Layer(1).Layer(2).Layer(3).Done()},
                               {"b", Builder("other").Layer(1).Layer(2).Layer(4).Done()}});
  EXPECT_EQ(Segments(*map),
            (Set{"MatMul Relu MatMul Relu {a b}", "MatMul Relu {a}", "MatMul Relu {b}"}));
  EXPECT_EQ(map->constant_bytes_saved, 2u * 16 * 16 * 4);
}

TEST(PathFinder, SharesAMiddle) {
  const PathMapPtr map = Find({{"a", Builder().Layer(1).Layer(2).Layer(3).Layer(4).Done()},
                               {"b", Builder().Layer(5).Layer(2).Layer(3).Layer(6).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu MatMul Relu {a b}", "MatMul Relu {a}",
                                 "MatMul Relu {a}", "MatMul Relu {b}", "MatMul Relu {b}"}));
}

TEST(PathFinder, SharesASuffixBehindDifferentEncoders) {
  const PathMapPtr map =
      Find({{"a", Builder().Layer(1).Layer(8).Op("Tanh").Layer(9).Done()},
            {"b", Builder().Layer(2).Layer(3).Layer(8).Op("Tanh").Layer(9).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu Tanh MatMul Relu {a b}", "MatMul Relu {a}",
                                 "MatMul Relu MatMul Relu {b}"}));
}

TEST(PathFinder, AnAdapterInTheMiddleLeavesBothSidesShared) {
  Builder b;
  b.Layer(1);
  const ValueId trunk = b.value();
  b.AddLayerOf(trunk, 7).Layer(2);
  const PathMapPtr map =
      Find({{"plain", Builder().Layer(1).Layer(2).Done()}, {"adapted", b.Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu {adapted plain}", "MatMul Relu {adapted plain}",
                                 "MatMul Add {adapted}"}));
}

TEST(PathFinder, ThreePipelinesGetEachTheirCut) {
  const PathMapPtr map = Find({{"a", Builder().Layer(1).Layer(2).Layer(3).Done()},
                               {"b", Builder().Layer(1).Layer(2).Layer(4).Done()},
                               {"c", Builder().Layer(1).Layer(5).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu {a b c}", "MatMul Relu {a b}", "MatMul Relu {a}",
                                 "MatMul Relu {b}", "MatMul Relu {c}"}));
}

TEST(PathFinder, AnExitInTheMiddleIsAnOutputForAll) {
  Builder exit;
  exit.Layer(1).Out().Layer(2).Out();
  const PathMapPtr map =
      Find({{"early", exit.Done()}, {"late", Builder().Layer(1).Layer(2).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu MatMul Relu {early late}"}));
  EXPECT_EQ(map->segments[0].segment->graph->outputs().size(), 2u);
}

TEST(PathFinder, WorkDoneTwiceInOnePipelineIsOneCall) {
  Builder b;
  const ValueId x = b.value();
  b.Layer(1);
  const ValueId once = b.value();
  b.From(x).Layer(1);
  const ValueId again = b.value();
  b.From(b.graph().Op("sum", "Add", {once, again}));
  const PathMapPtr map = Find({{"a", b.Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu Add {a}"}));
}

TEST(PathFinder, TheSameModelOnDifferentDataIsOneSegmentCalledTwice) {
  Builder b;
  const ValueId x = b.value();
  b.Layer(1).Layer(2);
  const ValueId left = b.value();
  b.From(b.graph().Op("negated", "Neg", {x})).Layer(1).Layer(2);
  b.From(b.graph().Op("difference", "Sub", {left, b.value()}));
  const PathMapPtr map = Find({{"pair", b.Done()}, {"one", Builder().Layer(1).Layer(2).Done()}});
  EXPECT_EQ(Segments(*map),
            (Set{"MatMul Relu MatMul Relu {one pair}", "Neg {pair}", "Sub {pair}"}));
  for (const SegmentUse& use : map->segments) {
    EXPECT_EQ(use.calls, use.pipelines.size() == 2 ? 3u : 1u);
  }
}

// --- What must not merge

TEST(PathFinder, OneBitOfAWeightKeepsLayersApart) {
  Builder a, b;
  std::vector<float> weights(256, 0.5f);
  a.From(a.graph().Op("m", "MatMul", {a.value(), a.graph().Floats("w", {16, 16}, weights)}));
  weights[255] = std::nextafter(0.5f, 1.0f);
  b.From(b.graph().Op("m", "MatMul", {b.value(), b.graph().Floats("w", {16, 16}, weights)}));
  EXPECT_EQ(Segments(*Find({{"a", a.Done()}, {"b", b.Done()}})), (Set{"MatMul {a}", "MatMul {b}"}));
}

TEST(PathFinder, AnAttributeKeepsNodesApart) {
  const PathMapPtr map =
      Find({{"a", Builder().Layer(1).Op("LeakyRelu", {{"alpha", 0.1f}}).Done()},
            {"b", Builder().Layer(1).Op("LeakyRelu", {{"alpha", 0.2f}}).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu {a b}", "LeakyRelu {a}", "LeakyRelu {b}"}));
}

TEST(PathFinder, ASharedSegmentIsFedInEachPipelinesOwnOrder) {
  const auto make = [](bool swapped) {
    Builder b;
    const ValueId x = b.value();
    b.Layer(1);
    b.From(swapped ? b.graph().Op("d", "Sub", {x, b.value()})
                   : b.graph().Op("d", "Sub", {b.value(), x}));
    return b.Done();
  };
  const PathMapPtr map = Find({{"a", make(false)}, {"b", make(true)}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu {a b}", "Sub {a b}"}));
  const auto first_operand = [&](const char* name) {
    return map->paths.at(name)->calls.back().inputs[0].from;
  };
  EXPECT_EQ(first_operand("a"), PathValue::From::kCall);
  EXPECT_EQ(first_operand("b"), PathValue::From::kInput);
}

TEST(PathFinder, RandomWorkIsNeverShared) {
  const auto noisy = [] {
    Builder b;
    b.Layer(1);
    b.From(b.graph().Op("noise", "RandomNormalLike", {b.value()}));
    return b.Layer(2).Done();
  };
  const PathMapPtr map = Find({{"a", noisy()}, {"b", noisy()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu {a b}", "RandomNormalLike {a}",
                                 "RandomNormalLike {b}", "MatMul Relu {a b}"}));
}

TEST(PathFinder, RandomWorkIsDoneAsOftenAsItIsAskedFor) {
  Builder b;
  const ValueId x = b.value();
  const ValueId one = b.graph().Op("one", "RandomNormalLike", {x});
  const ValueId two = b.graph().Op("two", "RandomNormalLike", {x});
  b.From(b.graph().Op("sum", "Add", {one, two}));
  EXPECT_EQ(Segments(*Find({{"a", b.Done()}})), (Set{"RandomNormalLike RandomNormalLike Add {a}"}));
}

TEST(PathFinder, ACutGoesAroundAFusionGroup) {
  // In `a` the product and its Relu are one kernel; in `b` the product is read twice, so the two
  // stand alone there. To share the product would split a's kernel.
  Builder b;
  const ValueId product =
      b.Layer(5).graph().Op("m", "MatMul", {b.value(), b.graph().Ramp("w", {16, 16}, 1.0f)});
  b.From(product).Out().From(b.graph().Op("r", "Relu", {product})).Out();
  const PathMapPtr map = Find({{"a", Builder().Layer(5).Layer(1).Done()}, {"b", b.Done()}});
  EXPECT_EQ(Segments(*map), (Set{"MatMul Relu {a b}", "MatMul Relu {a}", "MatMul Relu {b}"}));
}

TEST(PathFinder, InputsOfAnotherShapeOrElementTypeKeepPrefixesApart) {
  const auto make = [](Shape shape, DType dtype = DType::kFloat32) {
    Builder b;
    const ValueId x = b.graph().Input("y", std::move(shape), dtype);
    const ValueId e = b.graph().Op("e", "Exp", {x}, {}, dtype);
    b.From(b.graph().Op("l", "Log", {e}, {}, dtype));
    return b.Done();
  };
  const Set apart = {"Exp Log {a}", "Exp Log {b}"};
  EXPECT_EQ(Segments(*Find({{"a", make({1, 3})}, {"b", make({1, 4})}})), apart);
  EXPECT_EQ(Segments(*Find({{"a", make({1, 3})}, {"b", make({1, 3}, DType::kFloat64)}})), apart);
  EXPECT_EQ(Segments(*Find({{"a", make({1, 3})}, {"b", make({1, 3})}})), Set{"Exp Log {a b}"});
}

TEST(PathFinder, WhatIsKnownOfSizesKeepsNoLayersApart) {
  // `a` declares the sizes of its input; in `b` the first layer comes behind something else.
  const auto map = Find({{"a", Builder().Layer(5).Layer(1).Done()},
                         {"b", Builder().Op("Exp").Layer(5).Layer(1).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"Exp {b}", "MatMul Relu MatMul Relu {a b}"}));
  Builder wide;
  wide.From(wide.graph().Input("y", {2, 16})).Layer(5).Layer(1);
  EXPECT_EQ(Segments(*Find({{"a", Builder().Layer(5).Layer(1).Done()}, {"b", wide.Done()}})),
            Set{"MatMul Relu MatMul Relu {a b}"});
}

TEST(PathFinder, BodiesThatDeclareOtherSizesForWhatTheyCaptureAreApart) {
  const auto make = [](std::vector<int64_t> sizes) {
    TestGraph body;
    const ValueId value = body.Input("v", sizes);
    body.g.captures() = body.g.inputs();
    body.g.inputs().clear();
    body.Output(body.Op("m", "MatMul", {value, body.Ramp("w", {16, 16}, 5.0f)}));
    const auto branch = std::make_shared<const Graph>(body.g);
    TestGraph t;
    const ValueId x = t.Input("x", {}), c = t.Input("c", {}, DType::kBool);
    t.infer = false;
    t.Output(t.Op("i", "If", {c}, {{"then_branch", branch}, {"else_branch", branch}}));
    t.g.nodes().back().implicit_inputs = {x};
    EXPECT_TRUE(MarkFusionGroups(t.g).ok());
    return std::make_shared<const Graph>(t.g);
  };
  EXPECT_EQ(Segments(*Find({{"a", make({1, 16})}, {"b", make({2, 16})}})),
            (Set{"If {a}", "If {b}"}));
  EXPECT_EQ(Segments(*Find({{"a", make({1, 16})}, {"b", make({1, 16})}})), Set{"If {a b}"});
}

TEST(PathFinder, GlueInFrontOfWhatEvenMoreShareStaysWithWhatFeedsIt) {
  const auto make = [](int last) {
    Builder b;
    const auto cast = [&](const char* name, DType to) {
      const std::map<std::string, Attribute> attributes = {{"to", static_cast<int64_t>(to)}};
      b.From(b.graph().Op(name, "Cast", {b.value()}, attributes, to));
    };
    b.Op("Exp");
    cast("wide", DType::kFloat64);
    cast("narrow", DType::kFloat32);
    b.Layer(5).Layer(last);
    return b;
  };
  const auto map =
      Find({{"a", make(1).Done()}, {"b", make(2).Done()}, {"c", Builder().Layer(5).Done()}});
  EXPECT_EQ(Segments(*map), (Set{"Exp Cast Cast {a b}", "MatMul Relu {a b c}", "MatMul Relu {a}",
                                 "MatMul Relu {b}"}));
}

TEST(PathFinder, WeightsOfAnotherElementTypeKeepLayersApart) {
  const auto make = [](bool wide) {
    Builder b;
    TestGraph& g = b.graph();
    const ValueId zeros = wide ? g.Const("w", *Tensor::Allocate(DType::kFloat64, {16, 16}))
                               : g.Const("w", *Tensor::Allocate(DType::kFloat32, {16, 16}));
    g.infer = false;
    b.From(g.Op("m", "MatMul", {b.value(), zeros}));
    return b.Done();
  };
  EXPECT_EQ(Segments(*Find({{"a", make(false)}, {"b", make(true)}})),
            (Set{"MatMul {a}", "MatMul {b}"}));
}

// --- Spellings of one thing: what is loaded is brought to one form first

GraphPtr Canonical(Builder& b) {
  b.Out();
  EXPECT_TRUE(Canonicalize(b.graph().g, TinyEvaluator()).ok());
  return b.Done();
}

TEST(PathFinder, ADefaultThatIsWrittenOutIsTheDefault) {
  const auto make = [](std::map<std::string, Attribute> attributes) {
    Builder b;
    return Canonical(b.Layer(1).Op("LeakyRelu", std::move(attributes)).Layer(2));
  };
  EXPECT_EQ(Segments(*Find({{"a", make({})}, {"b", make({{"alpha", 0.01f}})}})),
            Set{"MatMul Relu LeakyRelu MatMul Relu {a b}"});
  EXPECT_EQ(Segments(*Find({{"a", make({})}, {"b", make({{"alpha", 0.02f}})}})),
            (Set{"MatMul Relu {a b}", "LeakyRelu {a}", "LeakyRelu {b}", "MatMul Relu {a b}"}));
}

TEST(PathFinder, WhatTwoOpsetsWriteDifferentlyIsOne) {
  const auto make = [](bool old, int64_t axis) {
    Builder b;
    b.graph().infer = false;
    b.Layer(1);
    if (old) {  // the axes are an attribute
      b.Op("ReduceMax", {{"axes", std::vector<int64_t>{axis}}, {"keepdims", int64_t{1}}});
      b.graph().g.nodes().back().version = 11;
    } else {
      const ValueId axes = b.graph().Ints({axis});
      b.From(b.graph().Op("most", "ReduceMax", {b.value(), axes}, {{"keepdims", int64_t{1}}}));
    }
    return Canonical(b.Layer(2));
  };
  EXPECT_EQ(Segments(*Find({{"a", make(true, 1)}, {"b", make(false, 1)}})),
            Set{"MatMul Relu ReduceMax MatMul Relu {a b}"});
  EXPECT_EQ(Segments(*Find({{"a", make(true, 1)}, {"b", make(false, 0)}})),
            (Set{"MatMul Relu {a b}", "ReduceMax {a}", "ReduceMax {b}", "MatMul Relu {a b}"}));
}

// --- Loading and unloading

TEST(PathFinder, TheOrderOfLoadingDoesNotMatter) {
  const std::map<std::string, GraphPtr> all = {{"a", Builder().Layer(1).Layer(2).Layer(3).Done()},
                                               {"b", Builder().Layer(1).Layer(2).Layer(4).Done()},
                                               {"c", Builder().Layer(7).Layer(2).Layer(4).Done()}};
  const Set expected = Segments(*Find(all));
  std::vector<std::string> order = {"a", "b", "c"};
  do {
    PathFinder finder;
    for (const std::string& name : order) finder.Update({{name, all.at(name)}});
    EXPECT_EQ(Segments(*finder.map()), expected);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(PathFinder, UnloadingPutsBackTogetherWhatWasCutAndKeepsWhatIsStillUsed) {
  PathFinder finder;
  const GraphPtr a = Builder().Layer(1).Layer(2).Done();
  const PathMapPtr before = finder.Update({{"a", a}});
  const PathMapPtr both = finder.Update({{"b", Builder().Layer(1).Layer(3).Done()}});
  const SegmentPtr shared = both->paths.at("a")->calls.front().segment;
  const PathMapPtr third = finder.Update({{"c", Builder().Layer(1).Layer(4).Done()}});
  EXPECT_EQ(third->paths.at("b")->calls.front().segment, shared);
  const PathMapPtr after = finder.Update({}, {"b", "c"});
  EXPECT_EQ(Segments(*after), Segments(*before));
  EXPECT_EQ(after->paths.at("a")->calls.front().segment,
            before->paths.at("a")->calls.front().segment);
}

TEST(PathFinder, WhatSharesNothingWithTheChangeKeepsItsPath) {
  PathFinder finder;
  const PathMapPtr before = finder.Update({{"a", Builder().Layer(1).Layer(2).Done()},
                                           {"b", Builder().Layer(1).Layer(3).Done()},
                                           {"other", Builder().Layer(7).Layer(8).Done()},
                                           {"another", Builder().Layer(8).Layer(9).Done()}});
  const PathMapPtr after = finder.Update({{"c", Builder().Layer(1).Layer(2).Done()}}, {"a"});
  EXPECT_EQ(after->paths.at("other"), before->paths.at("other"));
  EXPECT_EQ(after->paths.at("another"), before->paths.at("another"));
  EXPECT_EQ(after->paths.count("a"), 0u);
  EXPECT_EQ(Segments(*after),
            (Set{"MatMul Relu {b c}", "MatMul Relu {c}", "MatMul Relu {b}", "MatMul Relu {other}",
                 "MatMul Relu {another other}", "MatMul Relu {another}"}));
}

TEST(PathFinder, APipelineReplacedIsTheNewOne) {
  PathFinder finder;
  finder.Update({{"a", Builder().Layer(1).Done()}, {"b", Builder().Layer(1).Layer(2).Done()}});
  const PathMapPtr after = finder.Update({{"a", Builder().Layer(2).Done()}});
  EXPECT_EQ(Segments(*after), (Set{"MatMul Relu {b}", "MatMul Relu {a b}"}));
  EXPECT_EQ(Segments(*finder.Update({{"c", Builder().Layer(1).Done()}})),
            (Set{"MatMul Relu {b c}", "MatMul Relu {a b}"}));
}

// --- Explaining

std::string Difference(GraphPtr a, GraphPtr b) {
  PathFinder finder;
  finder.Update({{"a", std::move(a)}, {"b", std::move(b)}});
  return finder.FirstDifference("a", "b").value();
}

TEST(PathFinder, SaysWhereTwoPipelinesPart) {
  const auto same = [] { return Builder().Layer(1).Op("Tanh").Done(); };
  EXPECT_EQ(Difference(same(), same()), "");
  EXPECT_EQ(Difference(Builder().Layer(1).Layer(2).Done(), Builder().Layer(1).Layer(3).Done()),
            "MatMul+Relu 'n4' against MatMul+Relu 'n4': input 1 ('w2_3'): other values of the same "
            "shape [16,16]");
  EXPECT_EQ(Difference(Builder().Layer(1).Op("LeakyRelu", {{"alpha", 0.5f}}).Done(),
                       Builder().Layer(1).Op("LeakyRelu", {{"alpha", 0.25f}}).Done()),
            "LeakyRelu 'n3' against LeakyRelu 'n3': attribute alpha 0.500000 against 0.250000");
  EXPECT_EQ(Difference(Builder().Layer(1).Op("Tanh").Done(), Builder().Layer(1).Op("Exp").Done()),
            "Tanh 'n3' against Exp 'n3': operator Tanh against Exp");
  EXPECT_EQ(Difference(Builder().Layer(1).Op("Tanh").Done(), Builder().Layer(1).Done()),
            "Tanh 'n3': nothing in 'b' stands in its place");
  PathFinder finder;
  EXPECT_EQ(finder.FirstDifference("a", "b").status().code(), StatusCode::kNotFound);
}

// --- Properties

GraphPtr RandomPipeline(std::mt19937& random) {
  Builder b;
  std::vector<ValueId> values = {b.value()};
  const int steps = 3 + static_cast<int>(random() % 12);
  for (int i = 0; i < steps; ++i) {
    b.From(values[values.size() - 1 - random() % std::min<size_t>(values.size(), 3)]);
    switch (random() % 6) {
      case 0:
        b.Op("Tanh");
        break;
      case 1:
        b.AddLayerOf(values[random() % values.size()], static_cast<int>(random() % 4));
        break;
      case 2:
        b.Op("Identity");
        break;
      default:
        b.Layer(static_cast<int>(random() % 6));
    }
    values.push_back(b.value());
    if (random() % 8 == 0) b.Out();
  }
  b.From(values.back()).Out();
  return b.Done();
}

TEST(PathFinder, PathsComputeWhatTheirPipelinesDo) {
  for (uint32_t seed = 0; seed < 150; ++seed) {
    std::mt19937 random(seed);
    std::map<std::string, GraphPtr> pipelines;
    const size_t count = 2 + random() % 6;
    for (size_t i = 0; i < count; ++i) {
      pipelines["p" + std::to_string(i)] = RandomPipeline(random);
    }
    const PathMapPtr map = Find(pipelines);
    for (const auto& [name, graph] : pipelines) {
      const Path& path = *map->paths.at(name);
      for (uint32_t c = 0; c < path.calls.size(); ++c) {
        for (const PathValue& in : path.calls[c].inputs) {
          const bool earlier = in.from != PathValue::From::kCall || in.call < c;
          ASSERT_TRUE(earlier) << "seed " << seed;
        }
      }
      const Graph whole = Inline(path, *graph);
      ASSERT_TRUE(whole.Validate().ok()) << "seed " << seed;
      const UnitGraph once = MakeUnits(name, graph);
      ASSERT_EQ(Function(whole), Function(*once.graph)) << "seed " << seed << " " << name;
    }
  }
}

// What each pipeline calls, and from where.
std::string Calls(const PathMap& map) {
  std::string text;
  for (const auto& [name, path] : map.paths) {
    text += name + ":";
    const auto add = [&](const PathValue& from) {
      text += " " + std::to_string(static_cast<int>(from.from)) + "." + std::to_string(from.call) +
              "." + std::to_string(from.index);
    };
    for (const Call& call : path->calls) {
      text += " [" + TestGraph::Ops(*call.segment->graph);
      for (const PathValue& from : call.inputs) add(from);
      text += "]";
    }
    for (const PathValue& from : path->outputs) add(from);
    text += "\n";
  }
  return text;
}

TEST(PathFinder, StepByStepComesToTheSameAsAllAtOnce) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    PathFinder finder;
    std::map<std::string, GraphPtr> loaded;
    for (int step = 0; step < 12; ++step) {
      std::vector<PathFinder::Load> add;
      std::vector<std::string> remove;
      for (size_t i = 0; i < 1 + random() % 2; ++i) {
        const std::string name = "p" + std::to_string(random() % 6);
        if (loaded.count(name) > 0 && random() % 2 == 0) {
          remove.push_back(name);
          loaded.erase(name);
        } else if (std::none_of(add.begin(), add.end(),
                                [&](const auto& load) { return load.pipeline == name; })) {
          loaded[name] = RandomPipeline(random);
          add.push_back({name, loaded[name]});
          std::erase(remove, name);
        }
      }
      std::erase_if(add, [&](const auto& load) { return loaded.count(load.pipeline) == 0; });
      const PathMapPtr map = finder.Update(std::move(add), remove);
      const PathMapPtr fresh = Find(loaded);
      ASSERT_EQ(Segments(*map), Segments(*fresh)) << "seed " << seed << " step " << step;
      ASSERT_EQ(Calls(*map), Calls(*fresh)) << "seed " << seed << " step " << step;
      ASSERT_EQ(map->constant_bytes_saved, fresh->constant_bytes_saved) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace plexus
