// CausalConvWithState and LinearAttention (opset 27): layers that carry a state between calls.
#include <algorithm>
#include <cmath>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

// x: [N, C, L], weight: [C, 1, k], bias: [C], past: [N, C, k-1] → y like x, present like past.
Status CausalConvWithState(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 2));
  const Tensor& x = ctx.Input(0);
  const Tensor& weight = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckRank("input", x, 3));
  PLEXUS_RETURN_IF_ERROR(CheckRank("weight", weight, 3));
  const int64_t batch = x.shape()[0], channels = x.shape()[1], length = x.shape()[2];
  const int64_t kernel = weight.shape()[2], carried = kernel - 1;
  PLEXUS_RETURN_IF_ERROR(CheckRange("kernel size", kernel, 1, int64_t{1} << 31));
  PLEXUS_RETURN_IF_ERROR(CheckShape("weight", weight, {channels, 1, kernel}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("bias", ctx.Input(2), {channels}));
  const Shape state_shape = {batch, channels, carried};
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("past_state", ctx.Input(3), state_shape));
  const std::string activation = ctx.node.StringAttr("activation", "none");
  const bool silu = activation == "silu" || activation == "swish";
  if (!silu && activation != "none") {
    return InvalidArgumentError("activation \"" + activation + "\" is unknown");
  }
  return VisitFloat(ComputeType(x.dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    PLEXUS_ASSIGN_OR_RETURN(auto xs, Elements<T>::Load(x));
    PLEXUS_ASSIGN_OR_RETURN(auto w, Elements<T>::Load(weight));
    PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<T>::Load(ctx.Input(2)));
    PLEXUS_ASSIGN_OR_RETURN(auto past, Elements<T>::Load(ctx.Input(3)));
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(x.dtype(), x.shape()));
    PLEXUS_ASSIGN_OR_RETURN(auto present, Output<T>::Make(x.dtype(), state_shape));
    std::vector<T> line(carried + length, T{0});  // the past, then the input
    for (int64_t i = 0; i < batch * channels; ++i) {
      const int64_t c = i % channels;
      if (!past.empty()) std::copy_n(past.data() + i * carried, carried, line.begin());
      std::copy_n(xs.data() + i * length, length, line.begin() + carried);
      for (int64_t t = 0; t < length; ++t) {
        T sum = bias.empty() ? T{0} : bias[c];
        for (int64_t k = 0; k < kernel; ++k) sum += line[t + k] * w[c * kernel + k];
        y[i * length + t] = silu ? sum / (1 + std::exp(-sum)) : sum;
      }
      std::copy_n(line.begin() + length, carried, present.data() + i * carried);
    }
    if (ctx.WantsOutput(1)) {
      PLEXUS_RETURN_IF_ERROR(std::move(present).FinishInto(&ctx.outputs[1]));
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

struct LinearPlan {
  int64_t batch = 0, time = 0, q_heads = 0, kv_heads = 0, k_size = 0, v_size = 0;
  bool gated = false, delta = false;
  int64_t decay_size = 1;  // per head: 1 or k_size
  int64_t beta_heads = 1;  // kv_heads or 1
  float scale = 1;
};

Result<LinearPlan> ReadLinearPlan(const OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Node& node = ctx.node;
  const Tensor& q = ctx.Input(0);
  const Tensor& v = ctx.Input(2);
  PLEXUS_RETURN_IF_ERROR(CheckRank("query", q, 3));
  PLEXUS_RETURN_IF_ERROR(CheckRank("value", v, 3));
  LinearPlan p;
  p.batch = q.shape()[0];
  p.time = q.shape()[1];
  p.q_heads = node.IntAttr("q_num_heads", 0);
  p.kv_heads = node.IntAttr("kv_num_heads", 0);
  PLEXUS_RETURN_IF_ERROR(CheckRange("kv_num_heads", p.kv_heads, 1, int64_t{1} << 31));
  PLEXUS_RETURN_IF_ERROR(CheckRange("q_num_heads", p.q_heads, 1, int64_t{1} << 31));
  if (p.q_heads % p.kv_heads != 0 || q.shape()[2] % p.q_heads != 0 ||
      v.shape()[2] % p.kv_heads != 0) {
    return InvalidArgumentError("query " + ShapeToString(q.shape()) + " and value " +
                                ShapeToString(v.shape()) + " do not split into the heads");
  }
  p.k_size = q.shape()[2] / p.q_heads;
  p.v_size = v.shape()[2] / p.kv_heads;
  PLEXUS_RETURN_IF_ERROR(CheckShape("key", ctx.Input(1), {p.batch, p.time, p.kv_heads * p.k_size}));
  PLEXUS_RETURN_IF_ERROR(CheckShape("value", v, {p.batch, p.time, p.kv_heads * p.v_size}));
  PLEXUS_RETURN_IF_ERROR(
      CheckShapeIfAny("past_state", ctx.Input(3), {p.batch, p.kv_heads, p.k_size, p.v_size}));
  const std::string rule = node.StringAttr("update_rule", "gated_delta");
  p.gated = rule == "gated" || rule == "gated_delta";
  p.delta = rule == "delta" || rule == "gated_delta";
  if (!p.gated && !p.delta && rule != "linear") {
    return InvalidArgumentError("update_rule \"" + rule + "\" is unknown");
  }
  if (p.gated != ctx.HasInput(4) || p.delta != ctx.HasInput(5)) {
    return InvalidArgumentError("update_rule \"" + rule +
                                "\" contradicts the inputs decay and beta");
  }
  if (p.gated) {
    PLEXUS_RETURN_IF_ERROR(CheckRank("decay", ctx.Input(4), 3));
    if (ctx.Input(4).shape()[2] != p.kv_heads) p.decay_size = p.k_size;
    PLEXUS_RETURN_IF_ERROR(
        CheckShape("decay", ctx.Input(4), {p.batch, p.time, p.kv_heads * p.decay_size}));
  }
  if (p.delta) {
    PLEXUS_RETURN_IF_ERROR(CheckRank("beta", ctx.Input(5), 3));
    if (ctx.Input(5).shape()[2] != 1) p.beta_heads = p.kv_heads;
    PLEXUS_RETURN_IF_ERROR(CheckShape("beta", ctx.Input(5), {p.batch, p.time, p.beta_heads}));
  }
  p.scale = node.FloatAttr("scale", 0);
  if (p.scale == 0) p.scale = 1 / std::sqrt(static_cast<float>(std::max<int64_t>(1, p.k_size)));
  return p;
}

// query [B, T, Hq·K], key [B, T, H·K], value [B, T, H·V], past_state [B, H, K, V], decay
// [B, T, H or H·K] in log space, beta [B, T, H or 1] → [B, T, Hq·V] and the new state. Float32.
Status LinearAttention(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const LinearPlan p, ReadLinearPlan(ctx));
  PLEXUS_ASSIGN_OR_RETURN(auto q, Elements<float>::Load(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(auto k, Elements<float>::Load(ctx.Input(1)));
  PLEXUS_ASSIGN_OR_RETURN(auto v, Elements<float>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto past, Elements<float>::Load(ctx.Input(3)));
  PLEXUS_ASSIGN_OR_RETURN(auto decay, Elements<float>::Load(ctx.Input(4)));
  PLEXUS_ASSIGN_OR_RETURN(auto beta, Elements<float>::Load(ctx.Input(5)));
  const DType dtype = ctx.Input(0).dtype();
  const DType state_type = ctx.HasInput(3) ? ctx.Input(3).dtype() : dtype;
  PLEXUS_ASSIGN_OR_RETURN(
      auto y, Output<float>::Make(dtype, {p.batch, p.time, p.q_heads * p.v_size}, true));
  PLEXUS_ASSIGN_OR_RETURN(
      auto present,
      Output<float>::Make(state_type, {p.batch, p.kv_heads, p.k_size, p.v_size}, true));
  std::copy(past.begin(), past.end(), present.begin());
  const int64_t group = p.q_heads / p.kv_heads;
  std::vector<float> write(p.v_size);
  for (int64_t i = 0; i < p.batch * p.kv_heads; ++i) {
    const int64_t b = i / p.kv_heads, h = i % p.kv_heads;
    float* state = present.data() + i * p.k_size * p.v_size;
    for (int64_t t = 0; t < p.time; ++t) {
      const int64_t row = (b * p.time + t) * p.kv_heads + h;
      const float* key = k.data() + row * p.k_size;
      std::copy_n(v.data() + row * p.v_size, p.v_size, write.begin());
      for (int64_t d = 0; d < p.k_size; ++d) {
        float* line = state + d * p.v_size;
        if (p.gated) {
          const float factor = std::exp(decay[row * p.decay_size + (p.decay_size == 1 ? 0 : d)]);
          for (int64_t m = 0; m < p.v_size; ++m) line[m] *= factor;
        }
        for (int64_t m = 0; p.delta && m < p.v_size; ++m) write[m] -= line[m] * key[d];
      }
      if (p.delta) {
        const float rate = beta[p.beta_heads == 1 ? b * p.time + t : row];
        for (float& w : write) w *= rate;
      }
      for (int64_t d = 0; d < p.k_size; ++d) {
        for (int64_t m = 0; m < p.v_size; ++m) state[d * p.v_size + m] += key[d] * write[m];
      }
      for (int64_t g = 0; g < group; ++g) {
        const int64_t q_row = (b * p.time + t) * p.q_heads + h * group + g;
        float* out = y.data() + q_row * p.v_size;
        for (int64_t d = 0; d < p.k_size; ++d) {
          const float w = p.scale * q[q_row * p.k_size + d];
          for (int64_t m = 0; m < p.v_size; ++m) out[m] += w * state[d * p.v_size + m];
        }
      }
    }
  }
  if (ctx.WantsOutput(1)) {
    PLEXUS_RETURN_IF_ERROR(std::move(present).FinishInto(&ctx.outputs[1]));
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

constexpr OpEntry kOps[] = {
    {"", "CausalConvWithState", 27, kLatest, CausalConvWithState},
    {"", "LinearAttention", 27, kLatest, LinearAttention},
};

}  // namespace

std::span<const OpEntry> StateOps() { return kOps; }

}  // namespace plexus::reference
