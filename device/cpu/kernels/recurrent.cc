// LSTM and GRU: one kernel, one block per direction; each step is a product of the weights with a
// vector, for each sequence of the batch.
#include "device/cpu/kernels/recurrent.h"

#include <algorithm>
#include <cstring>

#include "device/cpu/kernels/isa.h"
#include "device/cpu/kernels/recurrent_kernels.h"

namespace plexus::cpu {

PLEXUS_DEFINE_BEST(RecurrentKernels, kRecurrent)

namespace {

struct Job {
  bool lstm = true;
  int64_t steps = 0, batch = 0, inputs = 0, hidden = 0;
  int64_t gates = 4;
  bool only_backwards = false;
  int bias = -1, initial_h = -1, initial_c = -1;  // operands read
  int y = -1, y_h = -1, y_c = -1;                 // operands written
  int64_t directions = 1;
  size_t ScratchFloats() const { return static_cast<size_t>((gates + 4) * hidden + 64); }
};

// One sequence in one direction.
void RunSequence(const Job& job, int64_t d, int64_t b, const BlockArgs& args) {
  const RecurrentKernels& kernels = BestRecurrentKernels();
  const int64_t n = job.hidden, rows = job.gates * n;
  float* gates = reinterpret_cast<float*>(args.scratch);
  float* h = gates + rows;
  float* c = h + n;
  float* rh = c + n;  // GRU: the candidate's part from the state
  const int64_t state = (d * job.batch + b) * n;
  auto load = [&](int operand, float* to) {
    if (operand >= 0) {
      std::memcpy(to, args.In<float>(static_cast<uint32_t>(operand)) + state, n * sizeof(float));
    } else {
      std::fill(to, to + n, 0.0f);
    }
  };
  load(job.initial_h, h);
  load(job.initial_c, c);
  const float* w = args.In<float>(1) + d * rows * job.inputs;
  const float* r = args.In<float>(2) + d * rows * n;
  const float* bias =
      job.bias < 0 ? nullptr : args.In<float>(static_cast<uint32_t>(job.bias)) + d * 2 * rows;
  const bool backwards = job.only_backwards || d == 1;
  for (int64_t step = 0; step < job.steps; ++step) {
    const int64_t t = backwards ? job.steps - 1 - step : step;
    const float* x = args.In<float>(0) + (t * job.batch + b) * job.inputs;
    if (job.lstm) {
      for (int64_t i = 0; i < rows; ++i) gates[i] = bias ? bias[i] + bias[rows + i] : 0;
      kernels.multiply_add(w, x, gates, rows, job.inputs);
      kernels.multiply_add(r, h, gates, rows, n);
      kernels.lstm_cell(gates, c, h, n);
    } else {
      for (int64_t i = 0; i < rows; ++i) {
        gates[i] = bias ? bias[i] + (i < 2 * n ? bias[rows + i] : 0) : 0;
      }
      for (int64_t i = 0; i < n; ++i) rh[i] = bias ? bias[rows + 2 * n + i] : 0;
      kernels.multiply_add(w, x, gates, rows, job.inputs);
      kernels.multiply_add(r, h, gates, 2 * n, n);
      kernels.multiply_add(r + 2 * n * n, h, rh, n, n);
      kernels.gru_cell(gates, gates + n, gates + 2 * n, rh, h, n);
    }
    if (job.y >= 0) {
      float* y = args.Out<float>(static_cast<uint32_t>(job.y));
      std::memcpy(y + ((t * job.directions + d) * job.batch + b) * n, h, n * sizeof(float));
    }
  }
  if (job.y_h >= 0) {
    std::memcpy(args.Out<float>(static_cast<uint32_t>(job.y_h)) + state, h, n * sizeof(float));
  }
  if (job.y_c >= 0) {
    std::memcpy(args.Out<float>(static_cast<uint32_t>(job.y_c)) + state, c, n * sizeof(float));
  }
}

Status LowerRecurrent(LoweringContext& context, const Node& node, bool lstm) {
  const ValueId x = context.In(node, 0), w = context.In(node, 1), r = context.In(node, 2);
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (i == 4 || !node.inputs[i].valid()) continue;
    if (context.dtype(node.inputs[i]) != DType::kFloat32) return UnimplementedError("not float32");
  }
  if (context.In(node, 4).valid() || context.In(node, 7).valid()) {
    return UnimplementedError("lengths or peepholes");
  }
  for (const char* attribute : {"activations", "activation_alpha", "activation_beta", "clip"}) {
    if (node.HasAttr(attribute)) return UnimplementedError(attribute);
  }
  if (node.IntAttr("layout", 0) != 0 || node.IntAttr("input_forget", 0) != 0) {
    return UnimplementedError("layout or coupled gates");
  }
  Job job;
  job.lstm = lstm;
  job.gates = lstm ? 4 : 3;
  if (!lstm && node.IntAttr("linear_before_reset", 0) == 0) {
    return UnimplementedError("reset before the product");
  }
  const Shape& xs = context.shape(x);
  const Shape& ws = context.shape(w);
  const Shape& rs = context.shape(r);
  if (xs.size() != 3 || ws.size() != 3 || rs.size() != 3) return InvalidArgumentError("rank");
  job.steps = xs[0];
  job.batch = xs[1];
  job.inputs = xs[2];
  job.directions = ws[0];
  job.hidden = rs[2];
  const std::string direction = node.StringAttr("direction", "forward");
  job.only_backwards = direction == "reverse";
  if (job.directions != (direction == "bidirectional" ? 2 : 1) || rs[0] != job.directions ||
      ws[1] != job.gates * job.hidden || ws[2] != job.inputs || rs[1] != ws[1]) {
    return InvalidArgumentError("weights do not fit");
  }
  auto fits = [&](size_t i, int64_t elements) {
    const ValueId v = context.In(node, i);
    return !v.valid() || context.num_elements(v) == elements;
  };
  const int64_t states = job.directions * job.batch * job.hidden;
  if (!fits(3, job.directions * 2 * ws[1]) || !fits(5, states) || !fits(6, states)) {
    return InvalidArgumentError("bias or initial state do not fit");
  }
  KernelSpec kernel;
  kernel.name = context.KernelName(node.op, node);
  const double weights = static_cast<double>(context.num_elements(w) + context.num_elements(r));
  kernel.flops = 2.0 * weights * static_cast<double>(job.steps * job.batch);
  kernel.bytes = 4.0 * (weights + static_cast<double>(context.num_elements(x)));
  // The weights stream through for every vector.
  kernel.time = LoweringContext::EstimateTime(kernel.flops * 8, kernel.bytes);
  for (ValueId v : {x, w, r}) {
    PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Read(v, Layout::kRowMajor));
    kernel.reads.push_back(operand);
  }
  const std::pair<size_t, int*> optional[] = {
      {3, &job.bias}, {5, &job.initial_h}, {6, &job.initial_c}};
  for (const auto& [i, operand] : optional) {
    const ValueId v = context.In(node, i);
    if (!v.valid()) continue;
    PLEXUS_ASSIGN_OR_RETURN(Operand read, context.Read(v, Layout::kRowMajor));
    *operand = static_cast<int>(kernel.reads.size());
    kernel.reads.push_back(read);
  }
  int* outputs[] = {&job.y, &job.y_h, &job.y_c};
  for (size_t i = 0; i < 3; ++i) {
    const ValueId v = context.Out(node, i);
    if (!v.valid()) continue;
    PLEXUS_ASSIGN_OR_RETURN(Operand written, context.Write(v, Layout::kRowMajor));
    *outputs[i] = static_cast<int>(kernel.writes.size());
    kernel.writes.push_back(written);
  }
  const int64_t units = job.directions * job.batch;
  kernel.grid = context.GridFor(kernel.flops * 8, kernel.bytes, units);
  kernel.scratch_bytes = job.ScratchFloats() * sizeof(float);
  kernel.run = [job, units, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                         const BlockArgs& args) {
    for (int64_t u = units * first / grid; u < units * (int64_t{first} + count) / grid; ++u) {
      RunSequence(job, u / job.batch, u % job.batch, args);
    }
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace

Status LowerLstm(LoweringContext& context, const Node& node) {
  return LowerRecurrent(context, node, true);
}

Status LowerGru(LoweringContext& context, const Node& node) {
  return LowerRecurrent(context, node, false);
}

}  // namespace plexus::cpu
