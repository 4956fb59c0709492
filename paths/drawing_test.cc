#include "paths/drawing.h"

#include "graph/passes/tiny_evaluator.h"
#include "paths/test_pipelines.h"

namespace plexus {
namespace {

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

PathSummary Summary(std::map<std::string, GraphPtr> pipelines) {
  static const TinyEvaluator evaluator;
  return Summarize(Find(std::move(pipelines)), {}, evaluator);
}

// Every element is closed, in order.
bool IsBalanced(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (tag.back() == '/') continue;
    if (tag[0] != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    } else if (open.empty() || open.back() != tag.substr(1)) {
      return false;
    } else {
      open.pop_back();
    }
  }
  return open.empty();
}

TEST(Drawing, ShowsSegmentsInputsAndPipelines) {
  const PathSummary summary = Summary({{"a", Builder().Layer(1).Layer(2).Done()},
                                       {"b", Builder().Layer(1).Layer(3).Done()},
                                       {"c", Builder("other").Layer(4).Done()}});
  const std::string svg = DrawSvg(summary);
  EXPECT_TRUE(IsBalanced(svg)) << svg;
  EXPECT_EQ(Count(svg, "<g>"), 4u + 2 + 3);  // segments, inputs, pipelines
  EXPECT_EQ(Count(svg, "<path"), 2u + 2 + 3);
  EXPECT_NE(svg.find(">2 pipelines<"), std::string::npos);
  EXPECT_NE(svg.find("3 pipelines in 4 segments"), std::string::npos);
  EXPECT_EQ(svg, DrawSvg(summary));

  const std::string dot = DrawDot(summary);
  EXPECT_EQ(Count(dot, "shape=box"), 4u);
  EXPECT_EQ(Count(dot, "shape=oval"), 5u);
  EXPECT_EQ(Count(dot, " -> "), 7u);
  // One colour for two users, another for one.
  EXPECT_EQ(Count(dot, "fillcolor=\"#74c29d\""), 1u);
  EXPECT_EQ(Count(dot, "fillcolor=\"#f6f4ec\""), 3u);
}

TEST(Drawing, NamesCannotBreakTheDocument) {
  const PathSummary summary = Summary({{"a<b>&\"c\\", Builder("in<\"").Layer(1).Done()}});
  const std::string svg = DrawSvg(summary);
  EXPECT_TRUE(IsBalanced(svg)) << svg;
  EXPECT_NE(svg.find("a&lt;b&gt;&amp;&quot;c\\"), std::string::npos) << svg;
  EXPECT_NE(DrawDot(summary).find("a<b>&\\\"c\\\\\""), std::string::npos) << DrawDot(summary);
}

TEST(Drawing, NoPipelinesMakeAnEmptyPicture) {
  EXPECT_TRUE(IsBalanced(DrawSvg(Summary({}))));
  EXPECT_EQ(Count(DrawDot(Summary({})), "label="), 0u);
}

}  // namespace
}  // namespace plexus
