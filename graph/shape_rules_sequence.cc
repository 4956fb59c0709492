// Recurrent networks, attention and signal transforms.
#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

int64_t RankOf(const Shape& shape) { return static_cast<int64_t>(shape.size()); }

// x: [T,B,I], or [B,T,I] with layout 1; y: [T,D,B,H] or [B,T,D,H]; y_h: [D,B,H] or [B,D,H].
Status Recurrent(RuleContext& c) {
  for (size_t i = 0; i < 3; ++i) c.Type(i, c.TypeOf(0));
  const Shape *x = c.ShapeOf(0), *r = c.ShapeOf(2);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 3, 3));
  PLEXUS_RETURN_IF_ERROR(c.WantRank(2, 3, 3));
  const Node& node = c.node();
  const int64_t hidden = node.IntAttr("hidden_size", r ? r->back() : -1);
  if (hidden < 1) return r ? c.Error("hidden_size is missing or not positive") : OkStatus();
  const int64_t directions = node.StringAttr("direction", "forward") == "bidirectional" ? 2 : 1;
  const int64_t gates = node.op == "LSTM" ? 4 : node.op == "GRU" ? 3 : 1;
  if (r && (hidden > kMaxExtent || *r != Shape{directions, gates * hidden, hidden})) {
    return c.Error("the recurrent weights do not match hidden_size and direction");
  }
  const bool batch_first = node.IntAttr("layout", 0) != 0;
  const int64_t time = (*x)[batch_first ? 1 : 0], batch = (*x)[batch_first ? 0 : 1];
  const Shape state =
      batch_first ? Shape{batch, directions, hidden} : Shape{directions, batch, hidden};
  c.SetShape(0, batch_first ? Shape{batch, time, directions, hidden}
                            : Shape{time, directions, batch, hidden});
  c.SetShape(1, state);
  c.SetShape(2, state);
  return OkStatus();
}

Status RotaryEmbedding(RuleContext& c) {
  c.Set(0, c.TypeOf(0), c.ShapeOf(0));
  return c.WantRank(0, 3, 4);
}

// signal: [..., L, 1 or 2] transformed along `axis`.
Status Dft(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2));
  int64_t axis = c.node().version < 20 ? c.node().IntAttr("axis", 1) : -2;
  if (c.Has(2)) {
    PLEXUS_ASSIGN_OR_RETURN(const auto input, c.Ints(2));
    if (!input) return OkStatus();
    if (input->size() != 1) return c.Error("axis must be one number");
    axis = (*input)[0];
  }
  PLEXUS_ASSIGN_OR_RETURN(axis, NormalizeAxis(axis, RankOf(*x)));
  Shape out = *x;
  const bool inverse = c.node().IntAttr("inverse", 0) != 0;
  const bool onesided = c.node().IntAttr("onesided", 0) != 0;
  if (c.Has(1)) {
    PLEXUS_ASSIGN_OR_RETURN(const auto length, c.Ints(1));
    if (!length) return OkStatus();
    if (length->size() != 1 || (*length)[0] < 1) return c.Error("dft_length must be positive");
    out[axis] = (*length)[0];
  } else if (inverse && onesided) {
    out[axis] = 2 * (out[axis] - 1);
  }
  if (onesided && !inverse) out[axis] = out[axis] / 2 + 1;
  out.back() = inverse && onesided ? 1 : 2;
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// signal: [B, L, 1 or 2]; result: [B, frames, bins, 2]
Status Stft(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  PLEXUS_ASSIGN_OR_RETURN(const auto step, c.Ints(1));
  PLEXUS_ASSIGN_OR_RETURN(const auto length, c.Ints(3));
  if (!x || !step) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2, 3));
  int64_t frame = 0;
  if (c.Has(3)) {
    if (!length) return OkStatus();
    if (length->size() != 1) return c.Error("frame_length must be one number");
    frame = (*length)[0];
  } else if (const Shape* window = c.ShapeOf(2)) {
    if (window->size() != 1) return c.Error("the window must have rank 1");
    frame = (*window)[0];
  } else {
    return OkStatus();
  }
  if (step->size() != 1 || (*step)[0] < 1 || frame < 1) return c.Error("bad frame step or length");
  const int64_t frames = (*x)[1] < frame ? 0 : ((*x)[1] - frame) / (*step)[0] + 1;
  const int64_t bins = c.node().IntAttr("onesided", 1) != 0 ? frame / 2 + 1 : frame;
  c.SetShape(0, {(*x)[0], frames, bins, 2});
  return OkStatus();
}

Status Window(RuleContext& c) {
  c.Type(0, static_cast<DType>(c.node().IntAttr("output_datatype", 1)));
  PLEXUS_ASSIGN_OR_RETURN(const auto size, c.Ints(0));
  if (!size) return OkStatus();
  if (size->size() != 1) return c.Error("size must be one number");
  c.SetShape(0, {(*size)[0]});
  return OkStatus();
}

Status MelWeightMatrix(RuleContext& c) {
  c.Type(0, static_cast<DType>(c.node().IntAttr("output_datatype", 1)));
  PLEXUS_ASSIGN_OR_RETURN(const auto bins, c.Ints(0));
  PLEXUS_ASSIGN_OR_RETURN(const auto length, c.Ints(1));
  if (!bins || !length) return OkStatus();
  if (bins->size() != 1 || length->size() != 1) return c.Error("sizes must be single numbers");
  c.SetShape(0, {(*length)[0] / 2 + 1, (*bins)[0]});
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"LSTM", Recurrent},
    {"GRU", Recurrent},
    {"RNN", Recurrent},
    {"Attention", AttentionRule},
    {"RotaryEmbedding", RotaryEmbedding},
    {"DFT", Dft},
    {"STFT", Stft},
    {"BlackmanWindow", Window},
    {"HammingWindow", Window},
    {"HannWindow", Window},
    {"MelWeightMatrix", MelWeightMatrix},
};

}  // namespace

// q, k, v: [B,H,S,D], or [B,S,H*D] with head counts as attributes; y like q with v's head size;
// present_key, present_value: [B,Hkv,past+T,D]; qk: [B,H,S,past+T].
Status AttentionRule(RuleContext& c) {
  for (size_t i = 0; i < 4; ++i) c.Type(i, c.TypeOf(i == 2 ? 2 : 0));
  c.Type(1, c.TypeOf(1));
  const Shape *q = c.ShapeOf(0), *k = c.ShapeOf(1), *v = c.ShapeOf(2);
  if (!q || !k || !v) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 3, 4));
  if (k->size() != q->size() || v->size() != q->size() || (*k)[0] != (*q)[0] ||
      (*v)[0] != (*q)[0]) {
    return c.Error("q, k and v do not match");
  }
  const int64_t q_heads = q->size() == 4 ? (*q)[1] : c.node().IntAttr("q_num_heads", 0);
  const int64_t kv_heads = q->size() == 4 ? (*k)[1] : c.node().IntAttr("kv_num_heads", 0);
  if (q_heads < 1 || kv_heads < 1) return c.Error("the number of heads is not positive");
  const auto split = [](const Shape& s, int64_t heads) {
    return s.size() == 4 ? s : Shape{s[0], heads, s[1], s[2] / heads};
  };
  const Shape q4 = split(*q, q_heads), k4 = split(*k, kv_heads), v4 = split(*v, kv_heads);
  if (q->size() == 3) {
    c.SetShape(0, {q4[0], q4[2], q4[1] * v4[3]});
  } else {
    c.SetShape(0, {q4[0], q4[1], q4[2], v4[3]});
  }
  int64_t total = k4[2];
  if (c.Has(4)) {
    if (!c.ShapeOf(4)) return OkStatus();
    PLEXUS_RETURN_IF_ERROR(c.WantRank(4, 4, 4));
    total += (*c.ShapeOf(4))[2];
  }
  c.SetShape(1, {k4[0], k4[1], total, k4[3]});
  c.SetShape(2, {v4[0], v4[1], total, v4[3]});
  c.SetShape(3, {q4[0], q4[1], q4[2], total});
  return OkStatus();
}

std::span<const RuleEntry> SequenceRules() { return kRules; }

}  // namespace plexus::shape_rules
