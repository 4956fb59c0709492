// Operators on sequences and optional values.
#include <algorithm>
#include <utility>

#include "program/reference/kernels_util.h"
#include "program/reference/sequence.h"

namespace plexus::reference {

Tensor MakeSequence(std::vector<Tensor> elements) {
  auto list = std::make_shared<std::vector<Tensor>>(std::move(elements));
  void* data = list.get();
  return Tensor::FromBuffer(DType::kUndefined, {}, Buffer::Wrap(data, 0, std::move(list)));
}

const std::vector<Tensor>* AsSequence(const Tensor& t) {
  if (t.defined() || t.buffer() == nullptr) return nullptr;
  return reinterpret_cast<const std::vector<Tensor>*>(t.raw());
}

namespace {

using Elements = std::vector<Tensor>;

Result<const Elements*> SequenceInput(const OpContext& ctx, size_t i) {
  const Elements* elements = AsSequence(ctx.Input(i));
  if (elements == nullptr) {
    return InvalidArgumentError("input " + std::to_string(i) + " is not a sequence");
  }
  return elements;
}

// Input i as a position in a sequence: -size <= position < limit; `fallback` when left out.
Result<int64_t> Position(const OpContext& ctx, size_t i, int64_t size, int64_t limit,
                         int64_t fallback) {
  if (!ctx.HasInput(i)) return fallback;
  PLEXUS_ASSIGN_OR_RETURN(const std::vector<int64_t> value, IntsInput(ctx, i));
  if (value.size() != 1 || value[0] < -size || value[0] >= limit) {
    return InvalidArgumentError("position is outside the sequence of " + std::to_string(size));
  }
  return value[0] < 0 ? value[0] + size : value[0];
}

Status SequenceConstructOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, ctx.num_inputs()));
  ctx.outputs[0] = MakeSequence({ctx.inputs.begin(), ctx.inputs.end()});
  return OkStatus();
}

Status SequenceEmptyOp(OpContext& ctx) {
  ctx.outputs[0] = MakeSequence({});
  return OkStatus();
}

Status SequenceAtOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Elements* elements, SequenceInput(ctx, 0));
  const int64_t size = elements->size();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t at, Position(ctx, 1, size, size, size));
  if (at >= size) return InvalidArgumentError("needs a position");
  ctx.outputs[0] = (*elements)[at];
  return OkStatus();
}

Status SequenceInsertOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Elements* elements, SequenceInput(ctx, 0));
  if (!ctx.HasInput(1)) return InvalidArgumentError("needs a tensor to insert");
  const int64_t size = elements->size();
  PLEXUS_ASSIGN_OR_RETURN(const int64_t at, Position(ctx, 2, size, size + 1, size));
  Elements longer = *elements;
  longer.insert(longer.begin() + at, ctx.Input(1));
  ctx.outputs[0] = MakeSequence(std::move(longer));
  return OkStatus();
}

Status SequenceEraseOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Elements* elements, SequenceInput(ctx, 0));
  const int64_t size = elements->size();
  if (size == 0) return InvalidArgumentError("the sequence is empty");
  PLEXUS_ASSIGN_OR_RETURN(const int64_t at, Position(ctx, 1, size, size, size - 1));
  Elements shorter = *elements;
  shorter.erase(shorter.begin() + at);
  ctx.outputs[0] = MakeSequence(std::move(shorter));
  return OkStatus();
}

Status SequenceLengthOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Elements* elements, SequenceInput(ctx, 0));
  ctx.outputs[0] = Tensor::ScalarInt64(elements->size());
  return OkStatus();
}

Status SplitToSequenceOp(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Tensor& x = ctx.Input(0);
  PLEXUS_ASSIGN_OR_RETURN(const int64_t axis, NormalizeAxis(ctx.node.IntAttr("axis", 0), x.rank()));
  const int64_t extent = x.shape()[axis];
  std::vector<int64_t> sizes;
  bool drop_axis = false;
  if (!ctx.HasInput(1)) {
    sizes.assign(extent, 1);
    drop_axis = ctx.node.IntAttr("keepdims", 1) == 0;
  } else {
    PLEXUS_ASSIGN_OR_RETURN(sizes, IntsInput(ctx, 1));
    if (ctx.Input(1).rank() == 0) {  // one size for all but perhaps the last
      const int64_t size = sizes[0];
      if (size <= 0) return InvalidArgumentError("the split size is not positive");
      sizes.assign(extent / size, size);
      if (extent % size != 0) sizes.push_back(extent % size);
    }
  }
  Elements parts;
  int64_t begin = 0;
  for (int64_t size : sizes) {
    if (size < 0 || size > extent - begin) return InvalidArgumentError("the sizes do not add up");
    PLEXUS_ASSIGN_OR_RETURN(
        Tensor part, drop_axis ? TakeSlice(x, axis, begin) : TakeRange(x, axis, begin, size));
    parts.push_back(std::move(part));
    begin += size;
  }
  if (begin != extent) return InvalidArgumentError("the sizes do not add up");
  ctx.outputs[0] = MakeSequence(std::move(parts));
  return OkStatus();
}

Status ConcatFromSequenceOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Elements* elements, SequenceInput(ctx, 0));
  const int64_t axis = ctx.node.IntAttr("axis", 0);
  const bool stack = ctx.node.IntAttr("new_axis", 0) != 0;
  PLEXUS_ASSIGN_OR_RETURN(ctx.outputs[0],
                          stack ? StackTensors(*elements, axis) : ConcatTensors(*elements, axis));
  return OkStatus();
}

Status SequenceMapOp(OpContext& ctx) {
  PLEXUS_ASSIGN_OR_RETURN(const Elements* first, SequenceInput(ctx, 0));
  const Graph* body = ctx.node.GraphAttr("body");
  if (body == nullptr) return InvalidArgumentError("attribute 'body' is missing");
  std::vector<Elements> results(ctx.num_outputs());
  for (size_t i = 0; i < first->size(); ++i) {
    std::vector<Tensor> arguments;
    for (size_t k = 0; k < ctx.num_inputs(); ++k) {
      const Elements* elements = AsSequence(ctx.Input(k));
      if (elements != nullptr && elements->size() != first->size()) {
        return InvalidArgumentError("the sequences differ in length");
      }
      arguments.push_back(elements != nullptr ? (*elements)[i] : ctx.Input(k));
    }
    PLEXUS_ASSIGN_OR_RETURN(std::vector<Tensor> outputs, RunGraph(*body, arguments, ctx.captures));
    if (outputs.size() != results.size()) return InvalidArgumentError("body has other outputs");
    for (size_t k = 0; k < results.size(); ++k) results[k].push_back(std::move(outputs[k]));
  }
  for (size_t k = 0; k < results.size(); ++k) ctx.outputs[k] = MakeSequence(std::move(results[k]));
  return OkStatus();
}

bool HasValue(const Tensor& t) { return t.defined() || AsSequence(t) != nullptr; }

Status OptionalOp(OpContext& ctx) {
  ctx.outputs[0] = ctx.Input(0);
  return OkStatus();
}

Status OptionalHasElementOp(OpContext& ctx) {
  ctx.outputs[0] = Tensor::Of<uint8_t>(DType::kBool, {}, {HasValue(ctx.Input(0))});
  return OkStatus();
}

Status OptionalGetElementOp(OpContext& ctx) {
  if (!HasValue(ctx.Input(0))) return InvalidArgumentError("the optional value is empty");
  ctx.outputs[0] = ctx.Input(0);
  return OkStatus();
}

constexpr OpEntry kOps[] = {
    {"", "ConcatFromSequence", 11, kLatest, ConcatFromSequenceOp},
    {"", "Optional", 15, kLatest, OptionalOp},
    {"", "OptionalGetElement", 15, kLatest, OptionalGetElementOp},
    {"", "OptionalHasElement", 15, kLatest, OptionalHasElementOp},
    {"", "SequenceAt", 11, kLatest, SequenceAtOp},
    {"", "SequenceConstruct", 11, kLatest, SequenceConstructOp},
    {"", "SequenceEmpty", 11, kLatest, SequenceEmptyOp},
    {"", "SequenceErase", 11, kLatest, SequenceEraseOp},
    {"", "SequenceInsert", 11, kLatest, SequenceInsertOp},
    {"", "SequenceLength", 11, kLatest, SequenceLengthOp},
    {"", "SequenceMap", 17, kLatest, SequenceMapOp},
    {"", "SplitToSequence", 11, kLatest, SplitToSequenceOp},
};

}  // namespace

std::span<const OpEntry> SequenceOps() { return kOps; }

}  // namespace plexus::reference
