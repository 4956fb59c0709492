// RNN, GRU and LSTM: every direction, layout, activation, sequence lengths, clip and peepholes.
#include <algorithm>
#include <cmath>

#include "program/reference/element_io.h"
#include "program/reference/gemm.h"

namespace plexus::reference {
namespace {

struct Activation {
  enum Kind {
    kRelu,
    kTanh,
    kSigmoid,
    kAffine,
    kLeakyRelu,
    kThresholdedRelu,
    kScaledTanh,
    kHardSigmoid,
    kElu,
    kSoftsign,
    kSoftplus,
  };
  Kind kind = kTanh;
  float alpha = 0, beta = 0;

  double operator()(double x) const {
    switch (kind) {
      case kRelu:
        return std::max(x, 0.0);
      case kTanh:
        return std::tanh(x);
      case kSigmoid:
        return 1 / (1 + std::exp(-x));
      case kAffine:
        return alpha * x + beta;
      case kLeakyRelu:
        return x >= 0 ? x : alpha * x;
      case kThresholdedRelu:
        return x >= alpha ? x : 0;
      case kScaledTanh:
        return alpha * std::tanh(beta * x);
      case kHardSigmoid:
        return std::clamp(alpha * x + beta, 0.0, 1.0);
      case kElu:
        return x >= 0 ? x : alpha * std::expm1(x);
      case kSoftsign:
        return x / (1 + std::abs(x));
      case kSoftplus:
        return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
    }
    return x;
  }
};

struct ActivationInfo {
  const char* name;
  Activation::Kind kind;
  bool has_alpha, has_beta;
  float alpha, beta;  // defaults
};
constexpr ActivationInfo kActivations[] = {
    {"relu", Activation::kRelu, false, false, 0, 0},
    {"tanh", Activation::kTanh, false, false, 0, 0},
    {"sigmoid", Activation::kSigmoid, false, false, 0, 0},
    {"affine", Activation::kAffine, true, true, 1, 0},
    {"leakyrelu", Activation::kLeakyRelu, true, false, 0.01f, 0},
    {"thresholdedrelu", Activation::kThresholdedRelu, true, false, 1, 0},
    {"scaledtanh", Activation::kScaledTanh, true, true, 1, 1},
    {"hardsigmoid", Activation::kHardSigmoid, true, true, 0.2f, 0.5f},
    {"elu", Activation::kElu, true, false, 1, 0},
    {"softsign", Activation::kSoftsign, false, false, 0, 0},
    {"softplus", Activation::kSoftplus, false, false, 0, 0},
};

// `per_direction` names for each direction; alphas and betas are consumed in order by the
// functions that have them.
Result<std::vector<Activation>> ReadActivations(const Node& node, size_t directions,
                                                std::vector<std::string> fallback) {
  std::vector<std::string> names;
  const auto it = node.attributes.find("activations");
  if (it != node.attributes.end()) {
    if (const auto* strings = std::get_if<std::vector<std::string>>(&it->second)) names = *strings;
  }
  const size_t per_direction = fallback.size();
  if (names.empty()) {
    for (size_t d = 0; d < directions; ++d) {
      names.insert(names.end(), fallback.begin(), fallback.end());
    }
  }
  if (names.size() < per_direction * directions) {
    return InvalidArgumentError("activations has " + std::to_string(names.size()) +
                                " names, expected " + std::to_string(per_direction * directions));
  }
  const std::vector<float> alphas = node.FloatsAttr("activation_alpha");
  const std::vector<float> betas = node.FloatsAttr("activation_beta");
  size_t alpha = 0, beta = 0;
  std::vector<Activation> result;
  for (std::string name : names) {
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const auto* info = std::find_if(std::begin(kActivations), std::end(kActivations),
                                    [&](const ActivationInfo& a) { return name == a.name; });
    if (info == std::end(kActivations)) {
      return InvalidArgumentError("activation \"" + name + "\" is unknown");
    }
    Activation a{info->kind, info->alpha, info->beta};
    if (info->has_alpha && alpha < alphas.size()) a.alpha = alphas[alpha++];
    if (info->has_beta && beta < betas.size()) a.beta = betas[beta++];
    result.push_back(a);
  }
  return result;
}

// What the three operators have in common. Rows of X and Y are found through RowOf: layout 0 is
// [time, batch, ...], layout 1 [batch, time, ...].
struct Recurrence {
  int64_t gates = 1;
  int64_t time = 0, batch = 0, input = 0, hidden = 0, directions = 1;
  bool batch_first = false, reverse_first = false;
  float clip = 0;  // 0: none
  std::vector<int64_t> lengths;
  std::vector<Activation> activations;

  int64_t RowOf(int64_t t, int64_t b) const { return batch_first ? b * time + t : t * batch + b; }
  // Offset of row (direction, batch) in initial and final states.
  int64_t StateAt(int64_t d, int64_t b) const {
    return (batch_first ? b * directions + d : d * batch + b) * hidden;
  }
  // Offset of Y's row (time, direction, batch).
  int64_t OutputAt(int64_t t, int64_t d, int64_t b) const {
    return (batch_first ? (b * time + t) * directions + d : (t * directions + d) * batch + b) *
           hidden;
  }
  Shape StateShape() const {
    return batch_first ? Shape{batch, directions, hidden} : Shape{directions, batch, hidden};
  }
  Shape OutputShape() const {
    return batch_first ? Shape{batch, time, directions, hidden}
                       : Shape{time, directions, batch, hidden};
  }
  template <typename T>
  T Clip(T v) const {
    return clip > 0 ? std::clamp(v, static_cast<T>(-clip), static_cast<T>(clip)) : v;
  }
};

// Inputs X, W [D, gates·H, I], R [D, gates·H, H], B [D, 2·gates·H], sequence_lens [batch],
// initial_h.
Result<Recurrence> ReadRecurrence(const OpContext& ctx, int64_t gates,
                                  std::vector<std::string> activations) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 3));
  const Node& node = ctx.node;
  const Tensor& x = ctx.Input(0);
  const Tensor& w = ctx.Input(1);
  PLEXUS_RETURN_IF_ERROR(CheckRank("X", x, 3));
  PLEXUS_RETURN_IF_ERROR(CheckRank("W", w, 3));
  PLEXUS_RETURN_IF_ERROR(CheckRank("R", ctx.Input(2), 3));
  Recurrence r;
  r.gates = gates;
  r.batch_first = node.IntAttr("layout", 0) != 0;
  r.time = x.shape()[r.batch_first ? 1 : 0];
  r.batch = x.shape()[r.batch_first ? 0 : 1];
  r.input = x.shape()[2];
  const std::string direction = node.StringAttr("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional") {
    return InvalidArgumentError("direction \"" + direction + "\" is unknown");
  }
  r.directions = direction == "bidirectional" ? 2 : 1;
  r.reverse_first = direction == "reverse";
  r.hidden = ctx.Input(2).shape()[2];
  if (node.HasAttr("hidden_size") && node.IntAttr("hidden_size", 0) != r.hidden) {
    return InvalidArgumentError("hidden_size " + std::to_string(node.IntAttr("hidden_size", 0)) +
                                " contradicts R " + ShapeToString(ctx.Input(2).shape()));
  }
  PLEXUS_RETURN_IF_ERROR(CheckRange("hidden_size", r.hidden, 1, int64_t{1} << 31));
  const int64_t rows = gates * r.hidden;
  PLEXUS_RETURN_IF_ERROR(CheckShape("W", w, {r.directions, rows, r.input}));
  PLEXUS_RETURN_IF_ERROR(CheckShape("R", ctx.Input(2), {r.directions, rows, r.hidden}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("B", ctx.Input(3), {r.directions, 2 * rows}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("sequence_lens", ctx.Input(4), {r.batch}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("initial_h", ctx.Input(5), r.StateShape()));
  r.lengths.assign(r.batch, r.time);
  if (ctx.HasInput(4)) {
    PLEXUS_ASSIGN_OR_RETURN(r.lengths, IntsInput(ctx, 4));
    for (int64_t length : r.lengths) {
      PLEXUS_RETURN_IF_ERROR(CheckRange("sequence length", length, 0, r.time));
    }
  }
  r.clip = node.FloatAttr("clip", 0);
  PLEXUS_ASSIGN_OR_RETURN(r.activations,
                          ReadActivations(node, r.directions, std::move(activations)));
  return r;
}

// One direction's weights, ready to multiply.
template <typename T>
struct Weights {
  std::vector<T> x_part;  // [rows of X, gates·H]: X · Wᵀ + Wb
  std::vector<T> r;       // [H, gates·H]: Rᵀ
  std::vector<T> r_bias;  // [gates·H]
};

template <typename T>
Result<Weights<T>> Prepare(const OpContext& ctx, const Recurrence& r, int64_t d) {
  PLEXUS_ASSIGN_OR_RETURN(auto x, Elements<T>::Load(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(auto w, Elements<T>::Load(ctx.Input(1)));
  PLEXUS_ASSIGN_OR_RETURN(auto rec, Elements<T>::Load(ctx.Input(2)));
  PLEXUS_ASSIGN_OR_RETURN(auto bias, Elements<T>::Load(ctx.Input(3)));
  const int64_t rows = r.gates * r.hidden;
  PLEXUS_ASSIGN_OR_RETURN(const int64_t x_part, NumElements({r.time, r.batch, rows}));
  if (x_part > kMaxResultBytes / static_cast<int64_t>(sizeof(T))) {
    return ResourceExhaustedError("the sequence is too large");
  }
  Weights<T> out;
  std::vector<T> wt(rows * r.input);
  TransposeInto(w.data() + d * rows * r.input, rows, r.input, wt.data());
  out.x_part.assign(x_part, T{0});
  out.r.resize(rows * r.hidden);
  TransposeInto(rec.data() + d * rows * r.hidden, rows, r.hidden, out.r.data());
  out.r_bias.assign(rows, T{0});
  if (!bias.empty()) {
    const T* wb = bias.data() + d * 2 * rows;
    for (int64_t i = 0; i < x_part; ++i) out.x_part[i] = wb[i % rows];
    out.r_bias.assign(wb + rows, wb + 2 * rows);
  }
  GemmAdd(r.time * r.batch, rows, r.input, x.data(), r.input, wt.data(), rows, out.x_part.data(),
          rows);
  return out;
}

// Runs all directions. cell(d, b, x_gates, r_gates, h) computes one row's next hidden state in
// place, from X·Wᵀ + Wb, h·Rᵀ + Rb and the weights of its direction.
template <typename T, typename Cell>
Status Run(OpContext& ctx, const Recurrence& r, Cell&& cell) {
  const DType dtype = ctx.Input(0).dtype();
  const int64_t rows = r.gates * r.hidden;
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(dtype, r.OutputShape(), true));
  PLEXUS_ASSIGN_OR_RETURN(auto y_h, Output<T>::Make(dtype, r.StateShape(), true));
  PLEXUS_ASSIGN_OR_RETURN(auto h0, Elements<T>::Load(ctx.Input(5)));
  if (!h0.empty()) std::copy(h0.begin(), h0.end(), y_h.begin());
  for (int64_t d = 0; d < r.directions; ++d) {
    PLEXUS_ASSIGN_OR_RETURN(const Weights<T> w, Prepare<T>(ctx, r, d));
    const bool reverse = r.reverse_first || d == 1;
    std::vector<T> h(r.batch * r.hidden), gates(r.batch * rows);
    for (int64_t step = 0; step < r.time; ++step) {
      for (int64_t b = 0; b < r.batch; ++b) {
        std::copy_n(y_h.data() + r.StateAt(d, b), r.hidden, h.data() + b * r.hidden);
        std::copy(w.r_bias.begin(), w.r_bias.end(), gates.begin() + b * rows);
      }
      GemmAdd(r.batch, rows, r.hidden, h.data(), r.hidden, w.r.data(), rows, gates.data(), rows);
      for (int64_t b = 0; b < r.batch; ++b) {
        if (step >= r.lengths[b]) continue;
        const int64_t t = reverse ? r.lengths[b] - 1 - step : step;
        T* state = y_h.data() + r.StateAt(d, b);
        cell(w, d, b, w.x_part.data() + r.RowOf(t, b) * rows, gates.data() + b * rows, state);
        std::copy_n(state, r.hidden, y.data() + r.OutputAt(t, d, b));
      }
    }
  }
  if (ctx.WantsOutput(0)) PLEXUS_RETURN_IF_ERROR(std::move(y).FinishInto(&ctx.outputs[0]));
  if (ctx.WantsOutput(1)) PLEXUS_RETURN_IF_ERROR(std::move(y_h).FinishInto(&ctx.outputs[1]));
  return OkStatus();
}

Status Rnn(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Recurrence r, ReadRecurrence(ctx, 1, {"Tanh"}));
  return VisitFloat(ComputeType(ctx.Input(0).dtype()), [&](auto zero) {
    using T = decltype(zero);
    return Run<T>(ctx, r, [&](const Weights<T>&, int64_t d, int64_t, const T* x, const T* g, T* h) {
      const Activation& f = r.activations[d];
      for (int64_t i = 0; i < r.hidden; ++i) {
        h[i] = static_cast<T>(f(r.Clip(x[i] + g[i])));
      }
    });
  });
}

// Gates in order update (z), reset (r), hidden (h).
Status Gru(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Recurrence r, ReadRecurrence(ctx, 3, {"Sigmoid", "Tanh"}));
  const bool linear_before_reset = ctx.node.IntAttr("linear_before_reset", 0) != 0;
  return VisitFloat(ComputeType(ctx.Input(0).dtype()), [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = r.hidden;
    std::vector<T> z(n), reset(n), mixed(n);
    return Run<T>(ctx, r,
                  [&](const Weights<T>& w, int64_t d, int64_t, const T* x, const T* g, T* h) {
                    const Activation& f = r.activations[2 * d];
                    const Activation& act = r.activations[2 * d + 1];
                    for (int64_t i = 0; i < n; ++i) {
                      z[i] = static_cast<T>(f(r.Clip(x[i] + g[i])));
                      reset[i] = static_cast<T>(f(r.Clip(x[n + i] + g[n + i])));
                    }
                    if (linear_before_reset) {
                      for (int64_t i = 0; i < n; ++i) mixed[i] = reset[i] * g[2 * n + i];
                    } else {
                      for (int64_t i = 0; i < n; ++i) {
                        mixed[i] = w.r_bias[2 * n + i];
                        reset[i] *= h[i];
                      }
                      GemmAdd(1, n, n, reset.data(), n, w.r.data() + 2 * n, 3 * n, mixed.data(), n);
                    }
                    for (int64_t i = 0; i < n; ++i) {
                      const T candidate = static_cast<T>(act(r.Clip(x[2 * n + i] + mixed[i])));
                      h[i] = (1 - z[i]) * candidate + z[i] * h[i];
                    }
                  });
  });
}

// Gates in order input, output, forget, cell; peepholes P [D, 3·H] in order input, output, forget.
Status Lstm(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Recurrence r, ReadRecurrence(ctx, 4, {"Sigmoid", "Tanh", "Tanh"}));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("initial_c", ctx.Input(6), r.StateShape()));
  PLEXUS_RETURN_IF_ERROR(CheckShapeIfAny("P", ctx.Input(7), {r.directions, 3 * r.hidden}));
  const bool input_forget = ctx.node.IntAttr("input_forget", 0) != 0;
  return VisitFloat(ComputeType(ctx.Input(0).dtype()), [&](auto zero) -> Status {
    using T = decltype(zero);
    const int64_t n = r.hidden;
    PLEXUS_ASSIGN_OR_RETURN(auto c0, Elements<T>::Load(ctx.Input(6)));
    PLEXUS_ASSIGN_OR_RETURN(auto p, Elements<T>::Load(ctx.Input(7)));
    PLEXUS_ASSIGN_OR_RETURN(auto y_c, Output<T>::Make(ctx.Input(0).dtype(), r.StateShape(), true));
    if (!c0.empty()) std::copy(c0.begin(), c0.end(), y_c.begin());
    PLEXUS_RETURN_IF_ERROR(
        Run<T>(ctx, r, [&](const Weights<T>&, int64_t d, int64_t b, const T* x, const T* g, T* h) {
          const Activation* f = &r.activations[3 * d];
          const T* peep = p.empty() ? nullptr : p.data() + 3 * n * d;
          T* c = y_c.data() + r.StateAt(d, b);
          for (int64_t i = 0; i < n; ++i) {
            const T c_before = c[i];
            auto gate = [&](int64_t k, T extra) {
              return r.Clip(x[k * n + i] + g[k * n + i] + extra);
            };
            auto look = [&](int64_t k, T cell) { return peep ? peep[k * n + i] * cell : T{0}; };
            const double in = f[0](gate(0, look(0, c_before)));
            const double forget = input_forget ? 1 - in : f[0](gate(2, look(2, c_before)));
            c[i] = static_cast<T>(forget * c_before + in * f[1](gate(3, 0)));
            const double out = f[0](gate(1, look(1, c[i])));
            h[i] = static_cast<T>(out * f[2](c[i]));
          }
        }));
    if (ctx.WantsOutput(2)) return std::move(y_c).FinishInto(&ctx.outputs[2]);
    return OkStatus();
  });
}

constexpr OpEntry kOps[] = {
    {"", "GRU", 1, kLatest, Gru},
    {"", "LSTM", 1, kLatest, Lstm},
    {"", "RNN", 1, kLatest, Rnn},
};

}  // namespace

std::span<const OpEntry> RnnOps() { return kOps; }

}  // namespace plexus::reference
