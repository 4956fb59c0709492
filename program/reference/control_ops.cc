// Operators that run subgraphs: If, Loop, Scan, plexus.MapRows.
#include <algorithm>
#include <utility>

#include "program/reference/kernels_util.h"
#include "program/reference/rows.h"

namespace plexus::reference {
namespace {

// An end for loops whose condition never turns false.
constexpr int64_t kMaxTrips = 10'000'000;

Result<const Graph*> Subgraph(const OpContext& ctx, const std::string& name) {
  const Graph* graph = ctx.node.GraphAttr(name);
  if (graph == nullptr) return InvalidArgumentError("attribute '" + name + "' is missing");
  return graph;
}

Result<bool> AsCondition(const Tensor& t) {
  if (t.dtype() != DType::kBool || t.num_elements() != 1) {
    return InvalidArgumentError("the condition is not one bool");
  }
  return t.data<uint8_t>()[0] != 0;
}

Tensor BoolScalar(bool value) { return Tensor::Of<uint8_t>(DType::kBool, {}, {value}); }

// No result of `value` at all, stacked or concatenated along a leading axis: [0, dims...], as far
// as the body's declared shape tells; unknown dimensions are 0.
Result<Tensor> NoRows(const Value& value, bool replace_first) {
  Shape shape = {0};
  for (size_t i = replace_first ? 1 : 0; value.shape.has_rank && i < value.shape.dims.size(); ++i) {
    shape.push_back(value.shape.dims[i].value.value_or(0));
  }
  return NewTensor(value.dtype == DType::kUndefined ? DType::kFloat32 : value.dtype, shape);
}

Status IfOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  PLEXUS_ASSIGN_OR_RETURN(const bool condition, AsCondition(ctx.Input(0)));
  PLEXUS_ASSIGN_OR_RETURN(const Graph* branch,
                          Subgraph(ctx, condition ? "then_branch" : "else_branch"));
  PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> results, RunGraph(*branch, {}, ctx.captures));
  if (results.size() < ctx.num_outputs()) {
    return InvalidArgumentError("the branch has fewer outputs than the node");
  }
  results.resize(ctx.num_outputs());
  ctx.outputs = std::move(results);
  return OkStatus();
}

Status LoopOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Graph* body, Subgraph(ctx, "body"));
  int64_t trips = kMaxTrips + 1;
  if (ctx.HasInput(0)) {
    PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> limit, IntsInput(ctx, 0));
    if (limit.size() != 1) return InvalidArgumentError("the trip count is not one number");
    trips = std::min(trips, limit[0]);
  }
  bool go_on = true;
  if (ctx.HasInput(1)) {
    PLEXUS_ASSIGN_OR_RETURN(go_on, AsCondition(ctx.Input(1)));
  }
  const size_t carried = ctx.num_inputs() < 2 ? 0 : ctx.num_inputs() - 2;
  if (body->inputs().size() != carried + 2 || body->outputs().size() < carried + 1 ||
      body->outputs().size() < ctx.num_outputs() + 1) {
    return InvalidArgumentError("the body does not match the loop's inputs and outputs");
  }
  // The node may leave off trailing outputs of the body.
  const size_t wanted = ctx.num_outputs();
  const size_t collected = wanted > carried ? wanted - carried : 0;
  std::vector<Tensor> state;
  for (size_t i = 0; i < carried; ++i) state.push_back(ctx.Input(i + 2));
  std::vector<std::vector<Tensor>> rows(collected);
  for (int64_t trip = 0; trip < trips && go_on; ++trip) {
    if (trip == kMaxTrips) {
      return ResourceExhaustedError("more than " + std::to_string(kMaxTrips) + " iterations");
    }
    std::vector<Tensor> arguments = {Tensor::ScalarInt64(trip), BoolScalar(true)};
    for (Tensor& value : state) arguments.push_back(std::move(value));
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> results, RunGraph(*body, arguments, ctx.captures));
    PLEXUS_ASSIGN_OR_RETURN(go_on, AsCondition(results[0]));
    for (size_t i = 0; i < carried; ++i) state[i] = std::move(results[1 + i]);
    for (size_t i = 0; i < collected; ++i) rows[i].push_back(std::move(results[1 + carried + i]));
  }
  if (go_on) PLEXUS_RETURN_IF_ERROR(CheckLoopEnd(ctx.node, trips));
  for (size_t i = 0; i < std::min(carried, wanted); ++i) ctx.outputs[i] = std::move(state[i]);
  for (size_t i = 0; i < collected; ++i) {
    const Value& declared = body->value(body->outputs()[1 + carried + i]);
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[carried + i],
                            rows[i].empty() ? NoRows(declared, false) : StackTensors(rows[i], 0));
  }
  return OkStatus();
}

// --- Scan ----------------------------------------------------------------------------------------

struct ScanSpec {
  const Graph* body = nullptr;
  size_t states = 0;
  std::vector<int64_t> input_axes, output_axes;          // not yet normalised
  std::vector<int64_t> input_backward, output_backward;  // 1: from the end
};

// One scan: final states, then stacked outputs.
Result<std::vector<Tensor>> RunScan(const OpContext& ctx, const ScanSpec& spec,
                                    std::span<const Tensor> inputs, int64_t max_length) {
  std::vector<Tensor> state(inputs.begin(), inputs.begin() + spec.states);
  const std::span<const Tensor> scanned = inputs.subspan(spec.states);
  const size_t collected = spec.output_axes.size();
  std::vector<int64_t> axes;
  int64_t length = -1;
  for (size_t i = 0; i < scanned.size(); ++i) {
    if (!scanned[i].defined()) return InvalidArgumentError("a scan input is missing");
    PLEXUS_ASSIGN_OR_RETURN(const int64_t axis,
                            NormalizeAxis(spec.input_axes[i], scanned[i].rank()));
    axes.push_back(axis);
    const int64_t extent = scanned[i].shape()[axis];
    if (length >= 0 && extent != length)
      return InvalidArgumentError("scan inputs differ in length");
    length = extent;
  }
  if (max_length >= 0) length = std::min(length, max_length);
  std::vector<std::vector<Tensor>> rows(collected);
  for (int64_t step = 0; step < length; ++step) {
    std::vector<Tensor> arguments = std::move(state);
    for (size_t i = 0; i < scanned.size(); ++i) {
      const int64_t at = spec.input_backward[i] ? length - 1 - step : step;
      PLEXUS_ASSIGN_OR_RETURN(Tensor slice, TakeSlice(scanned[i], axes[i], at));
      arguments.push_back(std::move(slice));
    }
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> results,
                            RunGraph(*spec.body, arguments, ctx.captures));
    state.assign(std::make_move_iterator(results.begin()),
                 std::make_move_iterator(results.begin() + spec.states));
    for (size_t i = 0; i < collected; ++i) {
      rows[i].push_back(std::move(results[spec.states + i]));
    }
  }
  for (size_t i = 0; i < collected; ++i) {
    if (spec.output_backward[i]) std::reverse(rows[i].begin(), rows[i].end());
    const Value& declared = spec.body->value(spec.body->outputs()[spec.states + i]);
    PLEXUS_ASSIGN_OR_RETURN(Tensor stacked, rows[i].empty()
                                                ? NoRows(declared, false)
                                                : StackTensors(rows[i], spec.output_axes[i]));
    state.push_back(std::move(stacked));
  }
  return state;
}

// Attribute `name` with `count` entries, all `0` when absent.
Result<std::vector<int64_t>> PerScan(const Node& node, const std::string& name, size_t count) {
  std::vector<int64_t> values = node.IntsAttr(name);
  if (values.empty()) values.assign(count, 0);
  if (values.size() != count) {
    return InvalidArgumentError("attribute '" + name + "' needs " + std::to_string(count) +
                                " entries");
  }
  return values;
}

Result<ScanSpec> MakeScanSpec(const OpContext& ctx, size_t inputs) {
  ScanSpec spec;
  PLEXUS_ASSIGN_OR_RETURN(spec.body, Subgraph(ctx, "body"));
  const int64_t scanned = ctx.node.IntAttr("num_scan_inputs", 0);
  if (scanned < 1 || scanned > static_cast<int64_t>(inputs) ||
      spec.body->inputs().size() != inputs || spec.body->outputs().size() != ctx.num_outputs() ||
      ctx.num_outputs() < inputs - scanned) {
    return InvalidArgumentError("the body does not match the scan's inputs and outputs");
  }
  spec.states = inputs - scanned;
  spec.input_axes.assign(scanned, 0);
  spec.output_axes.assign(ctx.num_outputs() - spec.states, 0);
  spec.input_backward.assign(scanned, 0);
  spec.output_backward.assign(spec.output_axes.size(), 0);
  return spec;
}

Status ScanOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(ScanSpec spec, MakeScanSpec(ctx, ctx.num_inputs()));
  const size_t ins = spec.input_axes.size(), outs = spec.output_axes.size();
  PLEXUS_ASSIGN_OR_RETURN(spec.input_axes, PerScan(ctx.node, "scan_input_axes", ins));
  PLEXUS_ASSIGN_OR_RETURN(spec.output_axes, PerScan(ctx.node, "scan_output_axes", outs));
  PLEXUS_ASSIGN_OR_RETURN(spec.input_backward, PerScan(ctx.node, "scan_input_directions", ins));
  PLEXUS_ASSIGN_OR_RETURN(spec.output_backward, PerScan(ctx.node, "scan_output_directions", outs));
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs, RunScan(ctx, spec, ctx.inputs, -1));
  return OkStatus();
}

// Opset 8: every input has a leading batch axis and there may be sequence lengths.
Status ScanOp8(OpContext& ctx) {
  if (ctx.num_inputs() < 2) return InvalidArgumentError("needs inputs");
  const std::span<const Tensor> inputs = ctx.inputs.subspan(1);
  PLEXUS_ASSIGN_OR_RETURN(ScanSpec spec, MakeScanSpec(ctx, inputs.size()));
  PLEXUS_ASSIGN_OR_RETURN(spec.input_backward,
                          PerScan(ctx.node, "directions", spec.input_axes.size()));
  int64_t batch = -1;
  for (const Tensor& input : inputs) {
    if (input.rank() < 1 || (batch >= 0 && input.shape()[0] != batch)) {
      return InvalidArgumentError("inputs differ in batch size");
    }
    batch = input.shape()[0];
  }
  std::vector<int64_t> lengths(batch, -1);
  if (ctx.HasInput(0)) {
    PLEXUS_ASSIGN_OR_RETURN(lengths, IntsInput(ctx, 0));
    if (static_cast<int64_t>(lengths.size()) != batch ||
        std::any_of(lengths.begin(), lengths.end(), [](int64_t n) { return n < 0; })) {
      return InvalidArgumentError("sequence_lens does not match the batch");
    }
  }
  std::vector<std::vector<Tensor>> rows(ctx.num_outputs());
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<Tensor> one;
    for (const Tensor& input : inputs) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor slice, TakeSlice(input, 0, b));
      one.push_back(std::move(slice));
    }
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> results, RunScan(ctx, spec, one, lengths[b]));
    for (size_t i = 0; i < results.size(); ++i) rows[i].push_back(std::move(results[i]));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[i], StackTensors(rows[i], 0));
  }
  return OkStatus();
}

// --- plexus.MapRows ------------------------------------------------------------------------------

Status MapRowsOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, std::max<size_t>(1, ctx.num_inputs())));
  PLEXUS_ASSIGN_OR_RETURN(const Graph* body, Subgraph(ctx, "body"));
  const std::vector<int64_t> sized = ctx.node.IntsAttr("sizes");
  const size_t joined = body->outputs().size();
  if (joined + sized.size() != ctx.num_outputs()) {
    return InvalidArgumentError("the body has another number of outputs");
  }
  PLEXUS_ASSIGN_OR_RETURN(const int64_t count, CheckFanOut(ctx.node, ctx.inputs));
  std::vector<std::vector<Tensor>> rows(joined);
  for (int64_t row = 0; row < count; ++row) {
    std::vector<Tensor> arguments;
    for (const Tensor& input : ctx.inputs) {
      PLEXUS_ASSIGN_OR_RETURN(Tensor slice, TakeRange(input, 0, row, 1));
      arguments.push_back(std::move(slice));
    }
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> results, RunGraph(*body, arguments, ctx.captures));
    for (size_t i = 0; i < results.size(); ++i) rows[i].push_back(std::move(results[i]));
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const Value& declared = body->value(body->outputs()[i]);
    const Tensor* pad = ctx.node.TensorAttr("pad_" + std::to_string(i));
    PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[i],
                            rows[i].empty() ? NoRows(declared, true) : JoinRows(rows[i], pad));
  }
  for (size_t i = 0; i < sized.size(); ++i) {
    if (sized[i] < 0 || sized[i] >= static_cast<int64_t>(joined)) {
      return InvalidArgumentError("attribute 'sizes' names no output of the body");
    }
    ctx.outputs[joined + i] = RowCounts(rows[sized[i]]);
  }
  return OkStatus();
}

Status FanOutOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, std::max<size_t>(1, ctx.num_outputs())));
  PLEXUS_RETURN_IF_ERROR(CheckFanOut(ctx.node, ctx.inputs.first(ctx.num_outputs())).status());
  std::copy_n(ctx.inputs.begin(), ctx.num_outputs(), ctx.outputs.begin());
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "If", 1, kLatest, IfOp},
    {"", "Loop", 1, kLatest, LoopOp},
    {"", "Scan", 8, 9, ScanOp8},
    {"", "Scan", 9, kLatest, ScanOp},
    {"plexus", "FanOut", 1, kLatest, FanOutOp},
    {"plexus", "MapRows", 1, kLatest, MapRowsOp},
};

}  // namespace

std::span<const OpEntry> ControlOps() { return kOps; }

}  // namespace plexus::reference
