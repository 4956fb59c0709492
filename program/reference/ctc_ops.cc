// Text from the outputs of a recogniser trained with connectionist temporal classification, domain
// plexus.
#include <algorithm>

#include "program/reference/kernels_util.h"

namespace plexus::reference {
namespace {

struct Decoder {
  const std::vector<std::string>& labels;  // of all classes but the blank
  int64_t blank;
  std::vector<bool> kept;  // per class: its label comes out

  int64_t num_classes() const { return static_cast<int64_t>(labels.size()) + 1; }

  // Best path: the likeliest class of every step, repeats and blanks left out. The score is the
  // mean probability of the steps that gave a character; 0 without any.
  void Decode(std::span<const float> probabilities, std::string* text, float* score) const {
    int64_t before = blank;
    double sum = 0;
    int64_t count = 0;
    for (size_t at = 0; at < probabilities.size(); at += num_classes()) {
      const float* step = &probabilities[at];
      const int64_t best = std::max_element(step, step + num_classes()) - step;
      if (best != blank && best != before && kept[best]) {
        *text += labels[best < blank ? best : best - 1];
        sum += step[best];
        ++count;
      }
      before = best;
    }
    *score = count == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(count));
  }
};

// CtcText(probabilities f32[n,T,C] or f32[T,C]; labels: strings, blank: int, classes: ints) →
// text string[n], score f32[n]; n is 1 for f32[T,C]. C is one more than there are labels: class
// `blank` stands for none of them. With `classes` only their labels come out.
Status CtcText(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const auto it = ctx.node.attributes.find("labels");
  if (it == ctx.node.attributes.end() ||
      !std::holds_alternative<std::vector<std::string>>(it->second)) {
    return InvalidArgumentError("attribute 'labels' is missing");
  }
  Decoder decoder{std::get<std::vector<std::string>>(it->second), ctx.node.IntAttr("blank", 0), {}};
  const std::vector<int64_t> classes = ctx.node.IntsAttr("classes");
  const auto is_class = [&](int64_t c) { return c >= 0 && c < decoder.num_classes(); };
  if (!is_class(decoder.blank) || !std::all_of(classes.begin(), classes.end(), is_class)) {
    return InvalidArgumentError("'blank' or 'classes' lie outside the classes");
  }
  decoder.kept.assign(decoder.num_classes(), classes.empty());
  for (int64_t c : classes) decoder.kept[c] = true;
  if (x.dtype() != DType::kFloat32 || x.rank() < 2 || x.rank() > 3 ||
      x.shape().back() != decoder.num_classes()) {
    return InvalidArgumentError(
        "needs float32[n,T,C] with C = " + std::to_string(decoder.num_classes()) +
        " (labels and the blank), got " + std::string(DTypeName(x.dtype())) +
        ShapeToString(x.shape()));
  }
  const int64_t rows = x.rank() == 3 ? x.shape()[0] : 1;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0], NewTensor(DType::kString, {rows}));
  PLEXUS_ASSIGN_OR_RETURN(Tensor scores, NewTensor(DType::kFloat32, {rows}));
  const int64_t row_size = rows == 0 ? 0 : x.num_elements() / rows;
  for (int64_t row = 0; row < rows; ++row) {
    std::string text;
    decoder.Decode(x.data<float>().subspan(row * row_size, row_size), &text,
                   &scores.mutable_data<float>()[row]);
    ctx.outputs[0].AssignString(row, text);
  }
  if (ctx.num_outputs() > 1) ctx.outputs[1] = std::move(scores);
  return OkStatus();
}

constexpr OpEntry kOps[] = {{"plexus", "CtcText", 1, kLatest, CtcText}};

}  // namespace

std::span<const OpEntry> CtcOps() { return kOps; }

}  // namespace plexus::reference
