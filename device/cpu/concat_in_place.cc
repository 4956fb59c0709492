// Concatenations along the channels whose producers write straight into the result, each with the
// result's pixel stride: LoweringContext's part of it.
#include <algorithm>

#include "device/cpu/layout_kernels.h"
#include "device/cpu/lowering.h"

namespace plexus::cpu {

namespace {

bool IsChannelConcat(const Node& node, size_t rank) {
  if (!node.domain.empty() || node.op != "Concat" || rank < 3) return false;
  const int64_t axis = node.IntAttr("axis", 0);
  return axis == 1 || axis == 1 - static_cast<int64_t>(rank);
}

// Operators whose rules call WriteStrided.
bool WritesStrided(const Node& node) {
  if (node.op == "Conv") return node.IntAttr("group", 1) == 1;
  return node.domain.empty() && (node.op == "MaxPool" || node.op == "AveragePool");
}

}  // namespace

void LoweringContext::PlanConcats() {
  placements_.assign(graph_->num_values(), Placement());
  concat_in_place_.assign(graph_->num_values(), false);
  concat_storage_.assign(graph_->num_values(), StorageId());
  if (options_.precision != Precision::kFloat32) return;
  std::vector<bool> placeable(graph_->num_values(), false);
  for (const Node& node : graph_->nodes()) {
    const ValueId out = Out(node, 0);
    if (!out.valid() || output_of_[out.value()] >= 0) continue;
    if (WritesStrided(node) || IsChannelConcat(node, shape(out).size())) {
      placeable[out.value()] = true;
    }
  }
  // The last first, so that a Concat of Concats is one buffer.
  for (size_t n = graph_->num_nodes(); n-- > 0;) {
    const Node& node = graph_->nodes()[n];
    const ValueId out = Out(node, 0);
    if (!out.valid() || !placeable[out.value()] || !IsChannelConcat(node, shape(out).size()) ||
        dtype(out) != DType::kFloat32 || num_elements(out) == 0) {
      continue;
    }
    const auto wins = [&](ValueId v) {
      return v.valid() && placeable[v.value()] && !placements_[v.value()].into.valid();
    };
    const bool sound = std::all_of(node.inputs.begin(), node.inputs.end(),
                                   [&](ValueId v) { return v.valid() && num_elements(v) > 0; });
    if (!sound || std::none_of(node.inputs.begin(), node.inputs.end(), wins)) continue;
    concat_in_place_[out.value()] = true;
    int64_t channel = 0;
    for (ValueId v : node.inputs) {
      if (wins(v)) {
        placements_[v.value()].into = out;
        placements_[v.value()].channel = channel;
      }
      channel += shape(v)[1];
    }
  }
}

Operand LoweringContext::PlacedOperand(ValueId v) {
  int64_t channel = 0;
  ValueId root = v;
  while (placements_[root.value()].into.valid()) {
    channel += placements_[root.value()].channel;
    root = placements_[root.value()].into;
  }
  StorageId& storage = concat_storage_[root.value()];
  if (!storage.valid()) storage = Temporary(FormBytes(root, DType::kFloat32)).storage;
  Operand operand;
  operand.storage = storage;
  operand.offset_bytes = static_cast<size_t>(channel) * sizeof(float);
  operand.pixel_stride = shape(root)[1];
  return operand;
}

Result<Operand> LoweringContext::WriteStrided(ValueId v) {
  Placement& placement = placements_[v.value()];
  if (!placement.into.valid() || !forms_[v.value()].empty()) {
    return Write(v, Layout::kChannelsLast);
  }
  placement.written = true;
  Operand target = PlacedOperand(v);
  target.part = next_part_++;
  PLEXUS_RETURN_IF_ERROR(DefineForm(v, Form{Layout::kChannelsLast, dtype(v), target}));
  return target;
}

Status LoweringContext::FinishConcat(const Node& node) {
  const ValueId out = node.outputs[0];
  const Operand whole = PlacedOperand(out);
  int64_t channel = 0;
  for (ValueId v : node.inputs) {
    const Placement& placement = placements_[v.value()];
    const bool there = placement.written && placement.into == out && placement.channel == channel;
    if (!there) {
      PLEXUS_ASSIGN_OR_RETURN(Operand from, ReadStrided(v));
      Operand to = whole;
      to.offset_bytes += static_cast<size_t>(channel) * sizeof(float);
      to.part = next_part_++;
      ConversionSpec spec;
      spec.shape = shape(v);
      spec.from_layout = spec.to_layout = Layout::kChannelsLast;
      spec.from_dtype = spec.to_dtype = DType::kFloat32;
      spec.from_pixel_stride = from.pixel_stride;
      spec.to_pixel_stride = to.pixel_stride;
      PLEXUS_RETURN_IF_ERROR(AddConversion(*this, spec, from, to, graph_->value(v).name));
    }
    channel += shape(v)[1];
  }
  if (placements_[out.value()].into.valid()) placements_[out.value()].written = true;
  return DefineForm(out, Form{Layout::kChannelsLast, DType::kFloat32, whole});
}

}  // namespace plexus::cpu
