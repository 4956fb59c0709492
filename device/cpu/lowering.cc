#include "device/cpu/lowering.h"

#include <algorithm>

#include "device/cpu/layout_kernels.h"

namespace plexus::cpu {

namespace {

constexpr double kFlopsPerSecond = 100e9;
constexpr double kBytesPerSecond = 15e9;
constexpr double kOneBlockSeconds = 100e-6;  // shorter kernels are one block

bool TrivialPermutation(const Shape& shape) {
  if (shape.size() < 3) return true;
  int64_t spatial = 1;
  for (size_t i = 2; i < shape.size(); ++i) spatial *= shape[i];
  return shape[1] == 1 || spatial == 1;
}

// Operators whose output is their first input under another shape.
bool IsView(const Node& node) {
  if (!node.domain.empty()) return false;
  return node.op == "Reshape" || node.op == "Flatten" || node.op == "Squeeze" ||
         node.op == "Unsqueeze" || node.op == "Identity";
}

}  // namespace

LoweringContext::LoweringContext(GraphPtr region, const CompileOptions& options, uint32_t workers,
                                 Duration target_block_time)
    : graph_(std::move(region)),
      options_(options),
      workers_(std::max<uint32_t>(workers, 1)),
      target_block_time_(target_block_time) {}

LoweringContext::~LoweringContext() = default;

ValueId LoweringContext::In(const Node& node, size_t i) {
  return i < node.inputs.size() ? node.inputs[i] : ValueId();
}

ValueId LoweringContext::Out(const Node& node, size_t i) {
  return i < node.outputs.size() ? node.outputs[i] : ValueId();
}

const Shape& LoweringContext::shape(ValueId v) const { return shapes_[v.value()]; }

Result<Tensor> LoweringContext::Contents(ValueId v) const {
  const Value& value = graph_->value(v);
  if (!value.IsConstant()) {
    return FailedPreconditionError("value '" + value.name + "' is not a constant");
  }
  return value.constant->Plain();
}

Layout LoweringContext::layout(ValueId v) const {
  const auto& forms = forms_[v.value()];
  return forms.empty() ? Layout::kRowMajor : forms.front().layout;
}

bool LoweringContext::SameInBothLayouts(ValueId v) const { return TrivialPermutation(shape(v)); }

Layout LoweringContext::PreferredLayout(const Node& node) const {
  const ValueId out = Out(node, 0);
  if (!out.valid() || shape(out).size() < 3) return Layout::kRowMajor;
  for (ValueId in : node.inputs) {
    if (in.valid() && shape(in).size() == shape(out).size() && layout(in) != Layout::kRowMajor) {
      return Layout::kChannelsLast;
    }
  }
  return Layout::kRowMajor;
}

Shape LoweringContext::PhysicalShape(const Shape& shape, Layout layout) {
  if (layout == Layout::kRowMajor || shape.size() < 3) return shape;
  Shape physical = {shape[0]};
  physical.insert(physical.end(), shape.begin() + 2, shape.end());
  physical.push_back(shape[1]);
  return physical;
}

StorageId LoweringContext::AddStorage(Storage storage) {
  storages_.push_back(std::move(storage));
  uses_left_.push_back(0);
  return StorageId(static_cast<uint32_t>(storages_.size() - 1));
}

size_t LoweringContext::FormBytes(ValueId v, DType dtype) const {
  return static_cast<size_t>(num_elements(v)) * DTypeSizeBytes(dtype);
}

const LoweringContext::Form* LoweringContext::FindForm(ValueId v, Layout layout,
                                                       DType dtype) const {
  const bool same = SameInBothLayouts(v);
  for (const Form& form : forms_[v.value()]) {
    if (form.dtype != dtype || !(form.layout == layout || same)) continue;
    const Shape& s = shape(v);
    if (form.layout == Layout::kChannelsLast && s.size() >= 2 &&
        form.operand.pixel_stride != s[1]) {
      continue;
    }
    return &form;
  }
  return nullptr;
}

Status LoweringContext::DefineForm(ValueId v, Form form) {
  if (shape(v).size() >= 2 && form.layout == Layout::kChannelsLast && !form.operand.pixel_stride) {
    form.operand.pixel_stride = shape(v)[1];
  }
  uses_left_[form.operand.storage.value()] += value_uses_[v.value()];
  forms_[v.value()].push_back(form);
  return OkStatus();
}

Result<Operand> LoweringContext::AddForm(ValueId v, Layout layout, DType dtype) {
  const Form from = forms_[v.value()].front();
  const Value& value = graph_->value(v);
  Operand target;
  if (value.IsConstant()) {
    PLEXUS_ASSIGN_OR_RETURN(Tensor plain, value.constant->Plain());
    PLEXUS_ASSIGN_OR_RETURN(Tensor converted, ConvertConstant(plain, layout, dtype));
    target = ConstantOperand(std::move(converted));
    CountConstantBytes(FormBytes(v, dtype));
  } else if (const int32_t output = output_of_[v.value()]; output >= 0 && !output_taken_[output] &&
                                                           dtype == value.dtype &&
                                                           layout == Layout::kRowMajor) {
    output_taken_[output] = true;
    target.storage = output_storage_[output];
  } else {
    target = Temporary(FormBytes(v, dtype));
  }
  target.pixel_stride = layout == Layout::kChannelsLast ? shape(v)[1] : 0;
  if (!value.IsConstant()) {
    ConversionSpec spec;
    spec.shape = shape(v);
    spec.from_layout = from.layout;
    spec.from_dtype = from.dtype;
    spec.from_pixel_stride = from.operand.pixel_stride;
    spec.to_layout = layout;
    spec.to_dtype = dtype;
    PLEXUS_RETURN_IF_ERROR(AddConversion(*this, spec, from.operand, target, value.name));
  }
  PLEXUS_RETURN_IF_ERROR(DefineForm(v, Form{layout, dtype, target}));
  return target;
}

Result<Operand> LoweringContext::Read(ValueId v, Layout layout, DType dtype) {
  const Value& value = graph_->value(v);
  if (dtype == DType::kUndefined) dtype = value.dtype;
  if (shape(v).size() < 3) layout = Layout::kRowMajor;
  auto& forms = forms_[v.value()];
  if (forms.empty()) {
    if (!value.IsConstant()) {
      return InternalError("value '" + value.name + "' is read before it is written");
    }
    const bool resident = value.constant->PlainIfResident().defined();
    PLEXUS_ASSIGN_OR_RETURN(Tensor plain, value.constant->Plain());
    if (!resident) CountConstantBytes(plain.size_bytes());  // a copy of its own
    PLEXUS_RETURN_IF_ERROR(
        DefineForm(v, Form{Layout::kRowMajor, value.dtype, ConstantOperand(std::move(plain))}));
  }
  if (const Form* form = FindForm(v, layout, dtype)) return form->operand;
  const DType held = forms.front().dtype;
  const bool convertible = held == dtype ||
                           (held == DType::kFloat32 && dtype == DType::kBFloat16) ||
                           (held == DType::kBFloat16 && dtype == DType::kFloat32);
  if (!convertible) {
    return InternalError("value '" + value.name + "' cannot be read as " +
                         std::string(DTypeName(dtype)));
  }
  return AddForm(v, layout, dtype);
}

Result<Operand> LoweringContext::ReadStrided(ValueId v) {
  const DType dtype = graph_->value(v).dtype;
  for (const Form& form : forms_[v.value()]) {
    if (form.layout == Layout::kChannelsLast && form.dtype == dtype) return form.operand;
  }
  return Read(v, Layout::kChannelsLast);
}

Result<Operand> LoweringContext::Write(ValueId v, Layout layout, DType dtype) {
  const Value& value = graph_->value(v);
  if (dtype == DType::kUndefined) dtype = value.dtype;
  if (shape(v).size() < 3) layout = Layout::kRowMajor;
  if (!forms_[v.value()].empty()) {
    return InternalError("value '" + value.name + "' is written twice");
  }
  Operand target;
  const int32_t output = output_of_[v.value()];
  if (output >= 0 && !output_taken_[output] && dtype == value.dtype &&
      (layout == Layout::kRowMajor || SameInBothLayouts(v))) {
    output_taken_[output] = true;
    target.storage = output_storage_[output];
  } else {
    target = Temporary(FormBytes(v, dtype));
  }
  if (layout == Layout::kChannelsLast) target.pixel_stride = shape(v)[1];
  PLEXUS_RETURN_IF_ERROR(DefineForm(v, Form{layout, dtype, target}));
  return target;
}

Result<Operand> LoweringContext::WriteOver(ValueId v, Layout layout, ValueId over, bool* in_place,
                                           DType dtype) {
  *in_place = false;
  if (dtype == DType::kUndefined) dtype = graph_->value(v).dtype;
  if (shape(v).size() < 3) layout = Layout::kRowMajor;
  const Form* form = over.valid() ? FindForm(over, layout, dtype) : nullptr;
  if (form && output_of_[v.value()] < 0 && FormBytes(v, dtype) == FormBytes(over, dtype)) {
    const StorageId storage = form->operand.storage;
    const bool whole = form->operand.offset_bytes == 0 &&
                       storages_[storage.value()].size_bytes == FormBytes(v, dtype);
    if (whole && storages_[storage.value()].kind == Storage::Kind::kArena &&
        uses_left_[storage.value()] == 1) {
      Operand target = form->operand;
      target.part = 0;
      target.pixel_stride = layout == Layout::kChannelsLast ? shape(v)[1] : 0;
      PLEXUS_RETURN_IF_ERROR(DefineForm(v, Form{layout, dtype, target}));
      *in_place = true;
      return target;
    }
  }
  return Write(v, layout, dtype);
}

Status LoweringContext::Alias(ValueId v, Layout layout, ValueId of, Layout of_layout) {
  const Value& value = graph_->value(v);
  if (shape(of).size() < 3) of_layout = Layout::kRowMajor;
  if (shape(v).size() < 3) layout = Layout::kRowMajor;
  PLEXUS_ASSIGN_OR_RETURN(Operand operand, Read(of, of_layout));
  if (FormBytes(v, value.dtype) != FormBytes(of, graph_->value(of).dtype)) {
    return InternalError("view '" + value.name + "' has another size than its source");
  }
  operand.pixel_stride = layout == Layout::kChannelsLast ? shape(v)[1] : 0;
  return DefineForm(v, Form{layout, value.dtype, operand});
}

Operand LoweringContext::Temporary(size_t size_bytes) {
  Storage storage;
  storage.size_bytes = size_bytes;
  Operand operand;
  operand.storage = AddStorage(std::move(storage));
  return operand;
}

Operand LoweringContext::ConstantOperand(Tensor tensor) {
  Storage storage;
  storage.kind = Storage::Kind::kConstant;
  storage.size_bytes = tensor.size_bytes();
  storage.constant = tensor.raw();
  storage.keep_alive = tensor.buffer();
  Operand operand;
  operand.storage = AddStorage(std::move(storage));
  return operand;
}

Operand LoweringContext::ConstantOperand(DerivedPtr derived) {
  Storage storage;
  storage.kind = Storage::Kind::kConstant;
  storage.size_bytes = derived->size_bytes();
  storage.constant = derived->buffer ? derived->buffer->data() : nullptr;
  CountConstantBytes(storage.size_bytes);
  storage.keep_alive = std::move(derived);
  Operand operand;
  operand.storage = AddStorage(std::move(storage));
  return operand;
}

Duration LoweringContext::EstimateTime(double flops, double bytes) {
  const double seconds = std::max(flops / kFlopsPerSecond, bytes / kBytesPerSecond);
  return std::max(Duration(200), Duration(static_cast<int64_t>(seconds * 1e9)));
}

uint32_t LoweringContext::GridFor(double flops, double bytes, int64_t max_blocks) const {
  const double seconds = std::max(flops / kFlopsPerSecond, bytes / kBytesPerSecond);
  if (seconds <= kOneBlockSeconds || max_blocks <= 1) return 1;
  const double target = std::chrono::duration<double>(target_block_time_).count();
  int64_t blocks = static_cast<int64_t>(seconds / target + 0.5);
  blocks = std::max<int64_t>(blocks, workers_ > 1 ? 2 * workers_ : 1);
  return static_cast<uint32_t>(
      std::clamp<int64_t>(blocks, 1, std::min<int64_t>(max_blocks, 1 << 16)));
}

std::string LoweringContext::KernelName(std::string_view what, const Node& node) const {
  return std::string(what) + " (" + node.name + ")";
}

void LoweringContext::AddKernel(KernelSpec spec) {
  spec.grid = std::max<uint32_t>(spec.grid, 1);
  if (spec.time <= Duration(0)) spec.time = EstimateTime(spec.flops, spec.bytes);
  kernels_.push_back(std::move(spec));
}

Status LoweringContext::LowerNode(const Node& node) {
  bool empty_output = !node.outputs.empty();
  for (ValueId out : node.outputs) {
    if (out.valid() && num_elements(out) > 0) empty_output = false;
  }
  if (empty_output) {
    for (ValueId out : node.outputs) {
      if (out.valid()) PLEXUS_RETURN_IF_ERROR(Write(out, Layout::kRowMajor).status());
    }
    return OkStatus();
  }
  if (const ValueId out = Out(node, 0); out.valid() && concat_in_place_[out.value()]) {
    return FinishConcat(node);
  }
  bool empty_input = false;
  for (ValueId in : node.inputs) {
    if (in.valid() && num_elements(in) == 0) empty_input = true;
  }
  if (LoweringRule rule = empty_input ? nullptr : FindLoweringRule(node)) {
    Status status = rule(*this, node);
    if (status.code() != StatusCode::kUnimplemented) return status;
  }
  return AddReferenceKernel(*this, node);
}

void LoweringContext::PlanOutputs() {
  output_of_.assign(graph_->num_values(), -1);
  output_taken_.assign(graph_->outputs().size(), false);
  for (size_t i = 0; i < graph_->outputs().size(); ++i) {
    const ValueId v = graph_->outputs()[i];
    Storage storage;
    storage.kind = Storage::Kind::kOutput;
    storage.index = static_cast<uint32_t>(i);
    storage.size_bytes = FormBytes(v, graph_->value(v).dtype);
    output_storage_.push_back(AddStorage(std::move(storage)));
    if (output_of_[v.value()] < 0) output_of_[v.value()] = static_cast<int32_t>(i);
  }
  // A value that only becomes an output through views is written there as well.
  for (size_t n = graph_->num_nodes(); n-- > 0;) {
    const Node& node = graph_->nodes()[n];
    if (!IsView(node) || node.inputs.empty() || !node.inputs[0].valid()) continue;
    const ValueId out = Out(node, 0), in = node.inputs[0];
    if (output_of_[out.value()] >= 0 && output_of_[in.value()] < 0) {
      output_of_[in.value()] = output_of_[out.value()];
    }
  }
}

Status LoweringContext::FinishOutputs() {
  for (size_t i = 0; i < graph_->outputs().size(); ++i) {
    const ValueId v = graph_->outputs()[i];
    PLEXUS_ASSIGN_OR_RETURN(Operand operand, Read(v, Layout::kRowMajor));
    if (operand.storage == output_storage_[i] || num_elements(v) == 0) continue;
    Operand target;
    target.storage = output_storage_[i];
    ConversionSpec spec;
    spec.shape = shape(v);
    spec.from_dtype = spec.to_dtype = graph_->value(v).dtype;
    PLEXUS_RETURN_IF_ERROR(AddConversion(*this, spec, operand, target, graph_->value(v).name));
  }
  return OkStatus();
}

Status LoweringContext::LowerAll() {
  shapes_.resize(graph_->num_values());
  forms_.resize(graph_->num_values());
  value_uses_.assign(graph_->num_values(), 0);
  for (size_t v = 0; v < graph_->num_values(); ++v) {
    const Value& value = graph_->values()[v];
    if (value.IsConstant()) {
      shapes_[v] = value.constant->shape();
    } else if (value.shape.IsConcrete()) {
      shapes_[v] = value.shape.ToConcrete();
    }
  }
  auto require = [&](ValueId v) -> Status {
    const Value& value = graph_->value(v);
    if (!value.IsConstant() && !value.shape.IsConcrete()) {
      return UnimplementedError("value '" + value.name + "' has no concrete shape " +
                                value.shape.ToString());
    }
    if (!value.IsConstant() && DTypeSizeBytes(value.dtype) == 0) {
      return UnimplementedError("value '" + value.name + "' of type " +
                                std::string(DTypeName(value.dtype)) + " cannot be in a program");
    }
    return NumElements(shape(v)).status();
  };
  for (ValueId v : graph_->inputs()) PLEXUS_RETURN_IF_ERROR(require(v));
  for (ValueId v : graph_->outputs()) {
    PLEXUS_RETURN_IF_ERROR(require(v));
    ++value_uses_[v.value()];
  }
  auto node_values = [](const Node& node) {
    std::vector<ValueId> reads;
    for (ValueId v : node.inputs) {
      if (v.valid()) reads.push_back(v);
    }
    for (ValueId v : node.implicit_inputs) {
      if (v.valid()) reads.push_back(v);
    }
    std::sort(reads.begin(), reads.end());
    reads.erase(std::unique(reads.begin(), reads.end()), reads.end());
    return reads;
  };
  for (const Node& node : graph_->nodes()) {
    for (ValueId v : node_values(node)) {
      PLEXUS_RETURN_IF_ERROR(require(v).WithContext("node '" + node.name + "'"));
      ++value_uses_[v.value()];
    }
    for (ValueId v : node.outputs) {
      if (v.valid()) PLEXUS_RETURN_IF_ERROR(require(v).WithContext("node '" + node.name + "'"));
    }
  }
  PlanOutputs();
  PlanConcats();
  for (size_t i = 0; i < graph_->inputs().size(); ++i) {
    const ValueId v = graph_->inputs()[i];
    Storage storage;
    storage.kind = Storage::Kind::kInput;
    storage.index = static_cast<uint32_t>(i);
    storage.size_bytes = FormBytes(v, graph_->value(v).dtype);
    Operand operand;
    operand.storage = AddStorage(std::move(storage));
    PLEXUS_RETURN_IF_ERROR(DefineForm(v, Form{Layout::kRowMajor, graph_->value(v).dtype, operand}));
  }
  for (const Node& node : graph_->nodes()) {
    PLEXUS_RETURN_IF_ERROR(
        LowerNode(node).WithContext("node '" + node.name + "' (" + node.op + ")"));
    for (ValueId v : node_values(node)) {
      --value_uses_[v.value()];
      for (const Form& form : forms_[v.value()]) --uses_left_[form.operand.storage.value()];
    }
  }
  return FinishOutputs();
}

}  // namespace plexus::cpu
