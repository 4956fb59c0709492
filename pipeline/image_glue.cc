// Pipeline operators for images and for the text on them (docs/pipelines.md lists their keys).
// device/cpu/vision computes what has no ONNX operator.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "device/cpu/vision/vision_ops.h"
#include "graph/passes/fused_ops.h"
#include "pipeline/glue_rows.h"

namespace plexus {
namespace {

using Attributes = std::map<std::string, Attribute>;

constexpr float kMaxFloat = std::numeric_limits<float>::max();

// The option as float attribute, if it is given.
void CopyFloat(GlueContext& c, const std::string& key, float least, float most,
               Attributes* attributes) {
  if (!c.options.Has(key)) return;
  const double value = c.options.Double(key);
  if (!Expect(c, value >= least, "key '" + key + "': at least " + std::to_string(least)) ||
      !Expect(c, value <= most, "key '" + key + "': at most " + std::to_string(most))) {
    return;
  }
  (*attributes)[key] = static_cast<float>(value);
}

void CopyInt(GlueContext& c, const std::string& key, int64_t least, Attributes* attributes) {
  if (!c.options.Has(key)) return;
  const int64_t value = c.options.Int(key);
  Expect(c, value >= least, "key '" + key + "': at least " + std::to_string(least));
  (*attributes)[key] = value;
}

bool IsSide(int64_t pixels) { return pixels >= 1 && pixels <= vision::kMaxSide; }

GlueOutputs DecodeImage(GlueContext& c) {
  ExpectType(c, DType::kString);
  const std::string order = c.options.String("order", "rgb");
  Expect(c, order == "rgb" || order == "bgr", "key 'order': expected rgb or bgr");
  Attributes attributes = {{"order", order}};
  CopyInt(c, "max_pixels", 1, &attributes);
  CopyInt(c, "max_bytes", 1, &attributes);
  const Status codecs = LoadImageCodecs();
  Expect(c, codecs.ok(), codecs.message());
  return One(c.Add(kPlexusDomain, "DecodeImage", c.inputs, DType::kUint8, std::move(attributes)));
}

GlueOutputs Resize(GlueContext& c) {
  ExpectType(c, DType::kUint8);
  const std::string interpolation = c.options.String("interpolation", "linear");
  Expect(c,
         interpolation == "linear" || interpolation == "area" || interpolation == "cubic" ||
             interpolation == "nearest",
         "key 'interpolation': expected linear, area, cubic or nearest");
  Attributes attributes = {{"interpolation", interpolation}};
  const bool by_size = c.options.Has("size"), by_width = c.options.Has("widths");
  const bool by_limit =
      c.options.Has("min_side") || c.options.Has("max_side") || c.options.Has("multiple");
  Expect(c, by_size + by_width + by_limit == 1,
         "expects 'size', or 'height' and 'widths', or 'min_side', 'max_side' and 'multiple'");
  if (by_size) {
    const std::vector<int64_t> size = c.options.Ints("size");
    Expect(c, size.size() == 2 && IsSide(size[0]) && IsSide(size[1]),
           "key 'size': expected [height, width], each from 1 to 32767");
    attributes["size"] = size;
    attributes["keep_aspect"] = static_cast<int64_t>(c.options.Bool("keep_aspect", false));
  } else if (by_width) {
    const std::vector<int64_t> widths = c.options.Ints("widths");
    Expect(c,
           !widths.empty() && std::all_of(widths.begin(), widths.end(), IsSide) &&
               std::is_sorted(widths.begin(), widths.end()),
           "key 'widths': expected ascending widths from 1 to 32767");
    attributes["widths"] = widths;
    attributes["height"] = c.options.Int("height");
    Expect(c, IsSide(std::get<int64_t>(attributes["height"])), "key 'height': from 1 to 32767");
  } else {
    for (const char* key : {"min_side", "max_side", "multiple"}) CopyInt(c, key, 1, &attributes);
  }
  if (by_size || by_width) CopyFloat(c, "pad_value", -kMaxFloat, kMaxFloat, &attributes);
  const std::optional<DType> to = DTypeFromProtocolName(c.options.String("to", "UINT8"));
  Expect(c, to == DType::kUint8 || to == DType::kFloat32, "key 'to': expected UINT8 or FP32");
  const bool to_float = to == DType::kFloat32;
  if (to_float) attributes["float"] = int64_t{1};
  return One(c.Add(kPlexusDomain, "ResizeImage", c.inputs,
                   to_float ? DType::kFloat32 : DType::kUint8, std::move(attributes)));
}

// One number for all channels, or one per channel.
std::vector<float> PerChannel(GlueContext& c, const std::string& key, double fallback) {
  const YAML::Node given = c.options.Child(key);
  std::vector<float> values;
  if (given.IsSequence()) {
    for (const YAML::Node& value : given) {
      double number = NAN;
      if (!value.IsScalar() || !YAML::convert<double>::decode(value, number)) number = NAN;
      values.push_back(static_cast<float>(number));
    }
  } else {
    values.push_back(static_cast<float>(c.options.Double(key, fallback)));
  }
  const bool finite =
      std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  Expect(c, finite, "key '" + key + "': expected finite numbers of FP32");
  Expect(c, values.size() == 1 || values.size() == 3,
         "key '" + key + "': expected one number, or one for each of three channels");
  return values;
}

// [h, w, c] to float32[1, c, h, w] with (x / 255 - mean) / std.
GlueOutputs Normalize(GlueContext& c) {
  std::vector<float> mean = PerChannel(c, "mean", 0), deviation = PerChannel(c, "std", 1);
  const bool fine = std::all_of(deviation.begin(), deviation.end(), [](float d) { return d > 0; });
  Expect(c, fine, "key 'std': must be above 0");
  mean.resize(std::max(mean.size(), deviation.size()), mean[0]);
  deviation.resize(mean.size(), deviation[0]);
  std::vector<float> scale, offset;
  for (size_t i = 0; i < mean.size(); ++i) {
    scale.push_back(1.0f / (255.0f * deviation[i]));
    offset.push_back(-mean[i] / deviation[i]);
  }
  const auto constant = [&](const std::vector<float>& values, const char* suffix) {
    return c.Constant(Tensor::Of(DType::kFloat32, {static_cast<int64_t>(values.size())}, values),
                      suffix);
  };
  ValueId x = c.inputs[0];
  if (c.InputType() != DType::kFloat32) {
    ExpectType(c, DType::kUint8);
    x = c.Add("", "Cast", {x}, DType::kFloat32, {{"to", static_cast<int64_t>(DType::kFloat32)}},
              "float");
  }
  x = c.Add("", "Mul", {x, constant(scale, "scale")}, DType::kFloat32, {}, "scaled");
  x = c.Add("", "Add", {x, constant(offset, "offset")}, DType::kFloat32, {}, "normalized");
  x = c.Add("", "Transpose", {x}, DType::kFloat32, {{"perm", std::vector<int64_t>{2, 0, 1}}},
            "planes");
  return One(
      c.Add("", "Unsqueeze", {x, c.Constant(Tensor::VectorInt64({0}), "axis")}, DType::kFloat32));
}

GlueOutputs Rotate180(GlueContext& c) {
  ExpectType(c, DType::kUint8);
  return One(c.Add(kPlexusDomain, "Rotate180", c.inputs, DType::kUint8));
}

GlueOutputs DbBoxes(GlueContext& c) {
  ExpectType(c, DType::kFloat32);
  ExpectType(c, DType::kUint8, 1);
  Attributes attributes;
  for (const char* key : {"threshold", "box_threshold"}) {  // of probabilities
    CopyFloat(c, key, 0, 1, &attributes);
  }
  CopyFloat(c, "unclip", 0, 100, &attributes);
  for (const char* key : {"max_boxes", "min_size", "line_height"}) {
    CopyInt(c, key, 0, &attributes);
  }
  attributes["dilate"] = static_cast<int64_t>(c.options.Bool("dilate", true));
  const ValueId boxes =
      c.Add(kPlexusDomain, "DbBoxes", c.inputs, DType::kFloat32, std::move(attributes), "boxes");
  return std::vector<GlueOutput>{{"boxes", boxes},
                                 {"scores", c.AddOutput(DType::kFloat32, "scores")}};
}

GlueOutputs PerspectiveCrop(GlueContext& c) {
  ExpectType(c, DType::kUint8);
  ExpectType(c, DType::kFloat32, 1);
  Attributes attributes;
  CopyFloat(c, "rotate_tall", 0, kMaxFloat, &attributes);
  return One(
      c.Add(kPlexusDomain, "PerspectiveCrop", c.inputs, DType::kUint8, std::move(attributes)));
}

// The UTF-8 characters of `text`.
std::vector<std::string> Characters(const std::string& text) {
  std::vector<std::string> characters;
  for (char byte : text) {
    const bool continues = (static_cast<uint8_t>(byte) & 0xc0) == 0x80;
    if (continues && !characters.empty()) {
      characters.back().push_back(byte);
    } else {
      characters.emplace_back(1, byte);
    }
  }
  return characters;
}

// The classes of the labels that option `allow` spells; empty without it.
std::vector<int64_t> AllowedClasses(GlueContext& c, const std::vector<std::string>& labels,
                                    int64_t blank) {
  std::vector<int64_t> classes;
  for (const std::string& character : Characters(c.options.String("allow", ""))) {
    const auto found = std::find(labels.begin(), labels.end(), character);
    if (!Expect(c, found != labels.end(),
                "key 'allow': '" + character + "' is not among the labels")) {
      break;
    }
    const int64_t at = found - labels.begin();
    classes.push_back(at < blank ? at : at + 1);
  }
  return classes;
}

GlueOutputs CtcText(GlueContext& c) {
  ExpectType(c, DType::kFloat32);
  std::vector<std::string> labels = ReadLabels(c);
  // Label files end with the last character; the space, if the model knows it, comes after.
  if (c.options.Bool("space", false)) labels.emplace_back(" ");
  const int64_t blank = c.options.Int("blank", 0);
  Expect(c, blank >= 0 && blank <= static_cast<int64_t>(labels.size()),
         "key 'blank': expected a class from 0 to the number of labels");
  Attributes attributes = {{"blank", blank}};
  const std::vector<int64_t> classes = AllowedClasses(c, labels, blank);
  if (!classes.empty()) attributes["classes"] = classes;
  attributes["labels"] = std::move(labels);
  const ValueId text =
      c.Add(kPlexusDomain, "CtcText", c.inputs, DType::kString, std::move(attributes), "text");
  return std::vector<GlueOutput>{{"text", text}, {"score", c.AddOutput(DType::kFloat32, "score")}};
}

constexpr GlueRow kRows[] = {
    {"ctc_text", CtcText},
    {"db_boxes", DbBoxes, 2},
    {"decode_image", DecodeImage},
    {"normalize", Normalize},
    {"perspective_crop", PerspectiveCrop, 2},
    {"resize", Resize},
    {"rotate180", Rotate180},
};

}  // namespace

std::span<const GlueRow> ImageGlue() { return kRows; }

}  // namespace plexus
