// Attention and RotaryEmbedding of opset 23 on.
#include <algorithm>
#include <cmath>
#include <limits>

#include "program/reference/element_io.h"
#include "program/reference/gemm.h"

namespace plexus::reference {
namespace {

// Where the rows of Q, K or V lie: 4-D [batch, heads, length, size] or 3-D
// [batch, length, heads·size].
struct Layout {
  int64_t batch = 0, heads = 0, length = 0, size = 0;
  bool packed = false;  // 3-D
  int64_t RowStride() const { return packed ? heads * size : size; }
  int64_t HeadAt(int64_t b, int64_t h) const {
    return packed ? b * length * heads * size + h * size : (b * heads + h) * length * size;
  }
};

Result<Layout> ReadLayout(std::string_view what, const Tensor& t, int64_t heads) {
  Layout l;
  const Shape& s = t.shape();
  if (s.size() == 4) {
    l = {s[0], s[1], s[2], s[3], false};
  } else if (s.size() == 3) {
    if (heads < 1 || s[2] % heads != 0) {
      return InvalidArgumentError(std::string(what) + " " + ShapeToString(s) +
                                  " does not split into " + std::to_string(heads) + " heads");
    }
    l = {s[0], heads, s[1], s[2] / heads, true};
  } else {
    return InvalidArgumentError(std::string(what) + " " + ShapeToString(s) +
                                " must have rank 3 or 4");
  }
  return l;
}

struct AttentionPlan {
  Layout q, k, v;
  int64_t past = 0, total = 0;
  double scale = 1, softcap = 0;
  bool causal = false;
  int64_t qk_mode = 0;
  std::vector<int64_t> valid;  // nonpad_kv_seqlen per batch; empty: all
};

Result<AttentionPlan> ReadPlan(const OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Node& node = ctx.node;
  AttentionPlan p;
  const int64_t q_heads = node.IntAttr("q_num_heads", 0);
  const int64_t kv_heads = node.IntAttr("kv_num_heads", 0);
  PLEXUS_ASSIGN_OR_RETURN(p.q, ReadLayout("Q", ctx.Input(0), q_heads));
  PLEXUS_ASSIGN_OR_RETURN(p.k, ReadLayout("K", ctx.Input(1), kv_heads));
  PLEXUS_ASSIGN_OR_RETURN(p.v, ReadLayout("V", ctx.Input(2), kv_heads));
  const bool agree = p.k.batch == p.q.batch && p.v.batch == p.q.batch && p.k.size == p.q.size &&
                     p.v.length == p.k.length && p.v.heads == p.k.heads && p.k.heads > 0 &&
                     p.q.heads % p.k.heads == 0 && p.q.packed == p.k.packed &&
                     p.q.packed == p.v.packed;
  if (!agree) {
    return InvalidArgumentError("Q " + ShapeToString(ctx.Input(0).shape()) + ", K " +
                                ShapeToString(ctx.Input(1).shape()) + " and V " +
                                ShapeToString(ctx.Input(2).shape()) + " contradict each other");
  }
  if (ctx.HasInput(4) != ctx.HasInput(5)) {
    return InvalidArgumentError("past_key and past_value come together");
  }
  if (ctx.HasInput(4)) {
    PLEXUS_RETURN_IF_ERROR(CheckRank("past_key", ctx.Input(4), 4));
    p.past = ctx.Input(4).shape()[2];
    PLEXUS_RETURN_IF_ERROR(
        CheckShape("past_key", ctx.Input(4), {p.q.batch, p.k.heads, p.past, p.k.size}));
    PLEXUS_RETURN_IF_ERROR(
        CheckShape("past_value", ctx.Input(5), {p.q.batch, p.k.heads, p.past, p.v.size}));
  }
  p.total = p.past + p.k.length;
  if (ctx.HasInput(6)) {
    PLEXUS_RETURN_IF_ERROR(CheckShape("nonpad_kv_seqlen", ctx.Input(6), {p.q.batch}));
    PLEXUS_ASSIGN_OR_RETURN(p.valid, IntsInput(ctx, 6));
    for (int64_t n : p.valid) {
      PLEXUS_RETURN_IF_ERROR(CheckRange("nonpad_kv_seqlen", n, 0, p.total));
    }
  }
  p.scale = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(1, p.q.size)));
  if (node.HasAttr("scale")) p.scale = node.FloatAttr("scale", 1);
  p.softcap = node.FloatAttr("softcap", 0);
  p.causal = node.IntAttr("is_causal", 0) != 0;
  p.qk_mode = node.IntAttr("qk_matmul_output_mode", 0);
  PLEXUS_RETURN_IF_ERROR(CheckRange("qk_matmul_output_mode", p.qk_mode, 0, 3));
  return p;
}

// [batch, heads, past + length, size]: the past rows, then the new ones.
template <typename T>
Result<Tensor> JoinPast(const Layout& l, const Tensor& past, const Tensor& now, int64_t past_rows) {
  const int64_t total = past_rows + l.length;
  PLEXUS_ASSIGN_OR_RETURN(Tensor joined,
                          NewTensor(DTypeOf<T>(), {l.batch, l.heads, total, l.size}));
  PLEXUS_ASSIGN_OR_RETURN(auto old, Elements<T>::Load(past));
  PLEXUS_ASSIGN_OR_RETURN(auto fresh, Elements<T>::Load(now));
  T* out = joined.mutable_data<T>().data();
  if (joined.num_elements() == 0) return joined;
  for (int64_t i = 0; i < l.batch * l.heads; ++i) {
    if (past_rows > 0) std::copy_n(old.data() + i * past_rows * l.size, past_rows * l.size, out);
    out += past_rows * l.size;
    const T* from = fresh.data() + l.HeadAt(i / l.heads, i % l.heads);
    for (int64_t r = 0; r < l.length; ++r, out += l.size) {
      std::copy_n(from + r * l.RowStride(), l.size, out);
    }
  }
  return joined;
}

// What attn_mask adds to the scores; its last dimension may be short.
template <typename T>
class Mask {
 public:
  static Result<Mask> Make(const Tensor& t, const AttentionPlan& p) {
    Mask m;
    if (!t.defined()) return m;
    Shape shape = t.shape();
    if (shape.empty() || shape.size() > 4) return InvalidArgumentError("attn_mask has a bad rank");
    m.width_ = shape.back();
    const Shape full = {p.q.batch, p.q.heads, p.q.length, m.width_};
    Result<Shape> joined = BroadcastShapes(shape, full);
    if ((m.width_ != 1 && m.width_ > p.total) || !joined.ok() || *joined != full) {
      return InvalidArgumentError("attn_mask " + ShapeToString(shape) + " does not broadcast to " +
                                  ShapeToString({p.q.batch, p.q.heads, p.q.length, p.total}));
    }
    m.strides_ = BroadcastStrides(shape, full);
    if (m.width_ == 1 && p.total > 1) m.width_ = p.total;  // one value for every key
    m.boolean_ = t.dtype() == DType::kBool;
    PLEXUS_ASSIGN_OR_RETURN(m.values_, Elements<T>::Load(t));
    return m;
  }

  T At(int64_t b, int64_t h, int64_t q, int64_t k) const {
    if (strides_.empty()) return 0;
    if (k >= width_) return -std::numeric_limits<T>::infinity();
    const T v = values_[b * strides_[0] + h * strides_[1] + q * strides_[2] + k * strides_[3]];
    if (!boolean_) return v;
    return v != 0 ? T{0} : -std::numeric_limits<T>::infinity();
  }

 private:
  std::vector<int64_t> strides_;
  int64_t width_ = 0;
  bool boolean_ = false;
  Elements<T> values_;
};

// In place; a row that is masked throughout becomes zeros.
template <typename T>
void Softmax(T* row, int64_t n) {
  const T top = n == 0 ? T{0} : *std::max_element(row, row + n);
  if (std::isinf(top) && top < 0) {
    std::fill(row, row + n, T{0});
    return;
  }
  T sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += row[i] = std::exp(row[i] - top);
  for (int64_t i = 0; i < n; ++i) row[i] /= sum;
}

template <typename T>
Status RunAttention(OpContext& ctx, const AttentionPlan& p) {
  const DType dtype = ctx.Input(0).dtype();
  const int64_t rows = p.q.length, total = p.total, size = p.q.size, v_size = p.v.size;
  PLEXUS_ASSIGN_OR_RETURN(Tensor keys, JoinPast<T>(p.k, ctx.Input(4), ctx.Input(1), p.past));
  PLEXUS_ASSIGN_OR_RETURN(Tensor values, JoinPast<T>(p.v, ctx.Input(5), ctx.Input(2), p.past));
  PLEXUS_ASSIGN_OR_RETURN(auto q, Elements<T>::Load(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(const auto mask, Mask<T>::Make(ctx.Input(3), p));
  const bool want_scores = ctx.WantsOutput(3);
  PLEXUS_ASSIGN_OR_RETURN(
      auto qk, Output<T>::Make(dtype, {p.q.batch, p.q.heads, want_scores ? rows : 0, total}));
  const Shape shape = p.q.packed ? Shape{p.q.batch, rows, p.q.heads * v_size}
                                 : Shape{p.q.batch, p.q.heads, rows, v_size};
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(dtype, shape, true));
  Layout out = p.q;
  out.size = v_size;
  PLEXUS_RETURN_IF_ERROR(NumElements({rows, total}).status());
  std::vector<T> kt(size * total), scores(rows * total), queries(rows * size);
  const T* k_all = keys.data<T>().data();
  const T* v_all = values.data<T>().data();
  for (int64_t i = 0; i < p.q.batch * p.q.heads && rows * total > 0; ++i) {
    const int64_t b = i / p.q.heads, h = i % p.q.heads;
    const int64_t kv = b * p.k.heads + h / (p.q.heads / p.k.heads);
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = q.data() + p.q.HeadAt(b, h) + r * p.q.RowStride();
      for (int64_t d = 0; d < size; ++d) {
        queries[r * size + d] = static_cast<T>(from[d] * p.scale);
      }
    }
    TransposeInto(k_all + kv * total * size, total, size, kt.data());
    std::fill(scores.begin(), scores.end(), T{0});
    GemmAdd(rows, total, size, queries.data(), size, kt.data(), total, scores.data(), total);
    auto report = [&](int64_t mode) {
      if (want_scores && p.qk_mode == mode) {
        std::copy(scores.begin(), scores.end(), qk.data() + i * rows * total);
      }
    };
    report(0);
    if (p.softcap > 0) {
      for (T& s : scores) s = static_cast<T>(std::tanh(s / p.softcap) * p.softcap);
    }
    report(1);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < total; ++k) {
        T& s = scores[r * total + k];
        s += mask.At(b, h, r, k);
        const bool future = p.causal && k - p.past > r;
        const bool padding = !p.valid.empty() && k >= p.valid[b];
        if (future || padding) s = -std::numeric_limits<T>::infinity();
      }
    }
    report(2);
    for (int64_t r = 0; r < rows; ++r) Softmax(scores.data() + r * total, total);
    report(3);
    GemmAdd(rows, v_size, total, scores.data(), total, v_all + kv * total * v_size, v_size,
            y.data() + out.HeadAt(b, h), out.RowStride());
  }
  if (ctx.WantsOutput(1)) {
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[1], ConvertTensor(keys, ctx.Input(1).dtype()));
  }
  if (ctx.WantsOutput(2)) {
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[2], ConvertTensor(values, ctx.Input(2).dtype()));
  }
  if (want_scores) PLEXUS_RETURN_IF_ERROR(std::move(qk).FinishInto(&ctx.outputs[3]));
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

// Q, K, V as Layout says; attn_mask, past_key, past_value, nonpad_kv_seqlen optional.
Status Attention(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const AttentionPlan p, ReadPlan(ctx));
  return VisitFloat(ComputeType(ctx.Input(0).dtype()),
                    [&](auto zero) { return RunAttention<decltype(zero)>(ctx, p); });
}

// x: [N, heads, S, D] or [N, S, heads·D]; caches [max, R/2] with position_ids [N, S], else
// [N, S, R/2]; the first R of each head's D values rotate.
Status RotaryEmbedding(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Tensor& x = ctx.Input(0);
  const Tensor& cosines = ctx.Input(1);
  PLEXUS_ASSIGN_OR_RETURN(const Layout l, ReadLayout("X", x, ctx.node.IntAttr("num_heads", 0)));
  int64_t rotary = ctx.node.IntAttr("rotary_embedding_dim", 0);
  if (rotary == 0) rotary = l.size;
  if (rotary < 0 || rotary > l.size || rotary % 2 != 0) {
    return InvalidArgumentError("rotary_embedding_dim " + std::to_string(rotary) +
                                " must be even and at most the head size " +
                                std::to_string(l.size));
  }
  const int64_t half = rotary / 2;
  PLEXUS_RETURN_IF_ERROR(CheckShape("sin_cache", ctx.Input(2), cosines.shape()));
  std::vector<int64_t> positions;
  if (ctx.HasInput(3)) {
    PLEXUS_RETURN_IF_ERROR(CheckRank("cos_cache", cosines, 2));
    PLEXUS_RETURN_IF_ERROR(CheckShape("cos_cache", cosines, {cosines.shape()[0], half}));
    PLEXUS_RETURN_IF_ERROR(CheckShape("position_ids", ctx.Input(3), {l.batch, l.length}));
    PLEXUS_ASSIGN_OR_RETURN(positions, IntsInput(ctx, 3));
    for (int64_t id : positions) {
      PLEXUS_RETURN_IF_ERROR(CheckRange("position id", id, 0, cosines.shape()[0] - 1));
    }
  } else {
    PLEXUS_RETURN_IF_ERROR(CheckShape("cos_cache", cosines, {l.batch, l.length, half}));
  }
  const bool interleaved = ctx.node.IntAttr("interleaved", 0) != 0;
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto cos_values, Elements<T>::Load(cosines));
    PLEXUS_ASSIGN_OR_RETURN(auto sin_values, Elements<T>::Load(ctx.Input(2)));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    std::copy(xs.begin(), xs.end(), y.data());
    for (int64_t i = 0; y.size() > 0 && i < l.batch * l.heads * l.length; ++i) {
      const int64_t s = i % l.length, h = i / l.length % l.heads, b = i / l.length / l.heads;
      const int64_t at = l.HeadAt(b, h) + s * l.RowStride();
      const int64_t token = b * l.length + s;
      const int64_t cache = (positions.empty() ? token : positions[token]) * half;
      for (int64_t j = 0; j < half; ++j) {
        const int64_t first = at + (interleaved ? 2 * j : j);
        const int64_t second = at + (interleaved ? 2 * j + 1 : half + j);
        const T c = cos_values[cache + j], sn = sin_values[cache + j];
        y[first] = c * xs[first] - sn * xs[second];
        y[second] = sn * xs[first] + c * xs[second];
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

constexpr OpEntry kOps[] = {
    {"", "Attention", 23, kLatest, Attention},
    {"", "RotaryEmbedding", 23, kLatest, RotaryEmbedding},
};

}  // namespace

std::span<const OpEntry> AttentionOps() { return kOps; }

}  // namespace plexus::reference
