#include "paths/drawing.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "paths/bodies.h"
#include "paths/layout.h"

namespace plexus {
namespace {

struct Box {
  enum class Kind { kInput, kSegment, kPipeline };
  Kind kind = Kind::kSegment;
  std::vector<std::string> lines;
  std::string tooltip;
  size_t users = 0;
};

// What both forms show.
struct Picture {
  std::vector<Box> boxes;
  std::map<std::pair<uint32_t, uint32_t>, std::set<std::string>> edges;  // and who uses them
  size_t most_users = 1;
};

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text),
                value < 9.995   ? "%.2f"
                : value < 99.95 ? "%.1f"
                                : "%.0f",
                value);
  return text;
}

std::string Scaled(double value, double step, const std::vector<const char*>& units) {
  size_t unit = 0;
  for (; value >= step && unit + 1 < units.size(); ++unit) value /= step;
  return (unit == 0 ? std::to_string(static_cast<int64_t>(value)) : Number(value)) + " " +
         units[unit];
}

std::string Plural(size_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

// At most `most` characters; what falls out is the middle. Names of nodes are ASCII as a rule:
// where not, no character is cut in two.
std::string Shortened(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  const auto inside = [&](size_t at) {
    return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
  };
  size_t head = most / 2, tail = text.size() - (most - most / 2 - 1);
  while (head > 0 && inside(head)) --head;
  while (inside(tail)) ++tail;
  return text.substr(0, head) + "…" + text.substr(tail);
}

Box SegmentBox(const SegmentSummary& segment) {
  constexpr size_t kLongest = 30;
  Box box;
  box.users = segment.pipelines.size();
  std::string name = segment.name;
  std::string who = Plural(box.users, "pipeline");
  if (box.users == 1) {
    who = segment.pipelines[0];
    if (name.rfind(who + "/", 0) == 0) name = name.substr(who.size() + 1);
  }
  if (!segment.stage.empty()) name = name.substr(segment.stage.size() + 2);
  box.lines.push_back(Shortened(name, kLongest));
  if (!segment.stage.empty()) box.lines.push_back(Shortened(segment.stage, kLongest));
  box.lines.push_back(
      Plural(segment.nodes, "node") + ", " +
      Scaled(static_cast<double>(segment.constant_bytes), 1024, {"B", "KiB", "MiB", "GiB", "TiB"}));
  if (segment.flops) {
    box.lines.back() += ", " + std::string(segment.flops_complete ? "" : "≥ ") +
                        Scaled(*segment.flops, 1000, {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"});
  }
  box.lines.push_back(Shortened(who, kLongest));
  if (segment.calls > box.users) box.lines.back() += ", " + Plural(segment.calls, "call");
  box.tooltip = segment.name + ":";
  for (const std::string& pipeline : segment.pipelines) box.tooltip += " " + pipeline;
  return box;
}

// Edges between the calls of a body, and to those that read what it is given.
void JoinBody(const Path& path, uint32_t stage, const std::map<const Segment*, uint32_t>& segments,
              const std::set<std::string>& users, Picture* picture) {
  for (const Call& call : path.calls) {
    const uint32_t to = segments.at(call.segment.get());
    for (const PathValue& in : call.inputs) {
      if (in.from == PathValue::From::kConstant) continue;
      const uint32_t from = in.from == PathValue::From::kInput
                                ? stage
                                : segments.at(path.calls[in.call].segment.get());
      if (from != to) picture->edges[{from, to}].insert(users.begin(), users.end());
    }
  }
}

Picture MakePicture(const PathSummary& summary) {
  Picture picture;
  std::map<const Segment*, uint32_t> segments;
  for (const SegmentSummary& segment : summary.segments) {
    segments[segment.segment.get()] = static_cast<uint32_t>(picture.boxes.size());
    picture.boxes.push_back(SegmentBox(segment));
    picture.most_users = std::max(picture.most_users, picture.boxes.back().users);
  }
  // What runs in a stage stands behind the segment that has the stage.
  for (const SegmentSummary& segment : summary.segments) {
    for (const StageBody& body : StageBodies(*segment.segment->graph)) {
      const auto at = summary.map->bodies.find(body.graph.get());
      if (at == summary.map->bodies.end()) continue;
      const std::vector<std::string>& users = summary.bodies.at(at->second).pipelines;
      JoinBody(*summary.map->paths.at(at->second), segments.at(segment.segment.get()), segments,
               {users.begin(), users.end()}, &picture);
    }
  }
  std::map<std::string, uint32_t> inputs;
  for (const auto& [name, path] : summary.map->paths) {
    if (BodyPaths::IsBody(name)) continue;
    const auto source = [&, &path = path](const PathValue& value) {
      if (value.from == PathValue::From::kCall) {
        return segments.at(path->calls[value.call].segment.get());
      }
      const Value& input = path->inputs[value.index];
      const std::string type = std::string(DTypeProtocolName(input.dtype)) + input.shape.ToString();
      const auto [it, is_new] =
          inputs.emplace(input.name + " " + type, static_cast<uint32_t>(picture.boxes.size()));
      if (is_new) {
        picture.boxes.push_back(
            {Box::Kind::kInput, {Shortened(input.name, 24), Shortened(type, 24)}, input.name, 0});
      }
      return it->second;
    };
    const auto join = [&, &name = name](const PathValue& from, uint32_t to) {
      if (from.from == PathValue::From::kConstant) return;
      const uint32_t box = source(from);
      if (box != to) picture.edges[{box, to}].insert(name);
    };
    for (const Call& call : path->calls) {
      for (const PathValue& in : call.inputs) join(in, segments.at(call.segment.get()));
    }
    const auto end = static_cast<uint32_t>(picture.boxes.size());
    picture.boxes.push_back({Box::Kind::kPipeline, {Shortened(name, 30)}, name, 1});
    for (const PathValue& out : path->outputs) join(out, end);
  }
  return picture;
}

// From nearly white for one user to green for the most, in steps that the eye tells apart.
std::string ColorOf(size_t users, size_t most) {
  const double share =
      most < 2 ? 0 : std::log(static_cast<double>(users)) / std::log(static_cast<double>(most));
  const auto mix = [&](int from, int to) {
    return static_cast<int>(std::lround(from + share * (to - from)));
  };
  char text[8];
  std::snprintf(text, sizeof(text), "#%02x%02x%02x", mix(0xf6, 0x74), mix(0xf4, 0xc2),
                mix(0xec, 0x9d));
  return text;
}

double StrokeOf(size_t pipelines) {
  return std::min(6.0, 1.2 + 0.8 * std::log2(static_cast<double>(pipelines)));
}

std::string Escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

template <typename... Args>
void Append(std::string* out, const char* format, Args... args) {
  char text[512];
  std::snprintf(text, sizeof(text), format, args...);
  *out += text;
}

constexpr double kMargin = 16, kLine = 16, kLetter = 6.7, kPadding = 10, kHeader = 48;

size_t Letters(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

LayoutBox SizeOf(const Box& box) {
  size_t letters = 0;
  for (const std::string& line : box.lines) letters = std::max(letters, Letters(line));
  LayoutBox size;
  size.width = static_cast<double>(letters) * kLetter + 2 * kPadding;
  size.height = static_cast<double>(box.lines.size()) * kLine + kPadding;
  if (box.kind == Box::Kind::kInput) size.end = LayoutBox::End::kFirst;
  if (box.kind == Box::Kind::kPipeline) size.end = LayoutBox::End::kLast;
  return size;
}

void DrawBox(const Box& box, const LayoutBox& size, LayoutPoint at, size_t most_users,
             std::string* svg) {
  const bool segment = box.kind == Box::Kind::kSegment;
  const std::string fill = segment ? ColorOf(box.users, most_users) : "#ffffff";
  *svg += "<g><title>" + Escaped(box.tooltip) + "</title>";
  Append(svg,
         "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"%.1f\" fill=\"%s\" "
         "stroke=\"#555\"/>",
         at.x, at.y, size.width, size.height, segment ? 4 : size.height / 2, fill.c_str());
  for (size_t i = 0; i < box.lines.size(); ++i) {
    Append(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\"%s>", at.x + size.width / 2,
           at.y + kPadding / 2 + kLine * (static_cast<double>(i) + 0.75),
           i == 0 ? segment ? " font-weight=\"bold\"" : "" : " fill=\"#444\"");
    *svg += Escaped(box.lines[i]) + "</text>";
  }
  *svg += "</g>\n";
}

void DrawEdge(const std::vector<LayoutPoint>& points, const std::set<std::string>& users,
              std::string* svg) {
  const bool back = points.back().x < points.front().x;
  Append(svg, "<path d=\"M%.1f %.1f", points[0].x, points[0].y);
  for (size_t i = 1; i < points.size(); ++i) {
    const LayoutPoint &a = points[i - 1], &b = points[i];
    const double reach = back ? 40 : (b.x - a.x) / 2;
    Append(svg, " C%.1f %.1f %.1f %.1f %.1f %.1f", a.x + reach, a.y, b.x - reach, b.y, b.x, b.y);
  }
  Append(svg, "\" fill=\"none\" stroke=\"#777\" stroke-width=\"%.1f\"%s><title>",
         StrokeOf(users.size()), back ? " stroke-dasharray=\"5 3\"" : "");
  std::string names;
  for (const std::string& name : users) names += (names.empty() ? "" : ", ") + name;
  *svg += Escaped(names) + "</title></path>\n";
}

// One square for each number of users that there is, a few of them where there are many.
void DrawLegend(const Picture& picture, std::string* svg) {
  std::set<size_t> counts;
  for (const Box& box : picture.boxes) {
    if (box.kind == Box::Kind::kSegment) counts.insert(box.users);
  }
  std::vector<size_t> shown(counts.begin(), counts.end());
  constexpr size_t kMost = 5;
  if (shown.size() > kMost) {
    std::vector<size_t> some;
    for (size_t i = 0; i < kMost; ++i) some.push_back(shown[i * (shown.size() - 1) / (kMost - 1)]);
    shown = some;
  }
  double x = kMargin;
  for (size_t users : shown) {
    const std::string text = Plural(users, "pipeline");
    Append(svg,
           "<rect x=\"%.1f\" y=\"28\" width=\"11\" height=\"11\" fill=\"%s\" stroke=\"#555\"/>"
           "<text x=\"%.1f\" y=\"38\">%s</text>\n",
           x, ColorOf(users, picture.most_users).c_str(), x + 16, text.c_str());
    x += 28 + static_cast<double>(text.size()) * kLetter;
  }
}

}  // namespace

std::string DrawDot(const PathSummary& summary) {
  const Picture picture = MakePicture(summary);
  std::string dot =
      "digraph paths {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=11, "
      "style=filled];\n  edge [color=\"#777777\", arrowsize=0.6];\n";
  std::map<Box::Kind, std::string> ends;
  for (size_t i = 0; i < picture.boxes.size(); ++i) {
    const Box& box = picture.boxes[i];
    std::string label;
    for (const std::string& line : box.lines) {
      const std::string quoted = Quoted(line);
      label += (label.empty() ? "" : "\\n") + quoted.substr(1, quoted.size() - 2);
    }
    label = "\"" + label + "\"";
    const std::string id = "n" + std::to_string(i);
    const bool segment = box.kind == Box::Kind::kSegment;
    dot += "  " + id + " [label=" + label + ", tooltip=" + Quoted(box.tooltip) +
           (segment ? ", shape=box, fillcolor=" + Quoted(ColorOf(box.users, picture.most_users))
                    : ", shape=oval, fillcolor=white") +
           "];\n";
    if (!segment) ends[box.kind] += " " + id + ";";
  }
  for (const auto& [kind, ids] : ends) {
    dot += std::string("  { rank=") + (kind == Box::Kind::kInput ? "source" : "sink") + ";" + ids +
           " }\n";
  }
  for (const auto& [ends_of, users] : picture.edges) {
    Append(&dot, "  n%u -> n%u [penwidth=%.1f];\n", ends_of.first, ends_of.second,
           StrokeOf(users.size()));
  }
  return dot + "}\n";
}

std::string DrawSvg(const PathSummary& summary) {
  const Picture picture = MakePicture(summary);
  std::vector<LayoutBox> boxes;
  std::vector<LayoutEdge> edges;
  for (const Box& box : picture.boxes) boxes.push_back(SizeOf(box));
  for (const auto& [ends, users] : picture.edges) edges.push_back({ends.first, ends.second});
  Layout layout = LayOut(boxes, edges);
  const double width = std::max(520.0, layout.width + 2 * kMargin);
  std::string svg;
  Append(&svg,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
         "font-family=\"sans-serif\" font-size=\"12\">\n"
         "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n"
         "<text x=\"%.0f\" y=\"20\" font-size=\"14\">",
         width, layout.height + kHeader + 2 * kMargin, kMargin);
  svg += Plural(summary.pipelines, "pipeline") + " in " +
         Plural(summary.segments.size(), "segment") + "</text>\n";
  DrawLegend(picture, &svg);
  const auto shift = [](LayoutPoint& point) {
    point.x += kMargin;
    point.y += kMargin + kHeader;
  };
  size_t next = 0;
  for (const auto& [ends, users] : picture.edges) {
    std::vector<LayoutPoint>& points = layout.edges[next++];
    for (LayoutPoint& point : points) shift(point);
    DrawEdge(points, users, &svg);
  }
  for (size_t i = 0; i < picture.boxes.size(); ++i) {
    shift(layout.boxes[i]);
    DrawBox(picture.boxes[i], boxes[i], layout.boxes[i], picture.most_users, &svg);
  }
  return svg + "</svg>\n";
}

}  // namespace plexus
