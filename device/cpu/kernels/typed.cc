// Pointwise operators with integer or bool operands or results: mostly small tensors (shapes,
// masks, token ids), so one plain loop for each pair of types.
#include "device/cpu/kernels/typed.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <type_traits>

#include "device/cpu/kernels/elementwise.h"
#include "device/cpu/kernels/strided.h"

namespace plexus::cpu {

namespace {

// out[i · to] = f(...) over one row; in and strides as the nest has them.
struct Row {
  const std::byte* in[3];
  int64_t stride[3];  // elements
  std::byte* out;
  int64_t n;
};
using RowFunction = void (*)(const Row&);

// The rows of a broadcast operation of up to three inputs.
struct Job {
  LoopNest nest;  // inputs, then the output
  size_t element_bytes[4] = {0, 0, 0, 0};
  size_t inputs = 0;
  RowFunction function = nullptr;
  int64_t rows = 1;
};

void RunRows(const Job& job, int64_t begin, int64_t end, const BlockArgs& args) {
  NestCursor cursor(job.nest, 1, begin);
  for (int64_t r = begin; r < end; ++r, cursor.Next()) {
    Row row{};
    for (size_t i = 0; i < job.inputs; ++i) {
      row.in[i] = args.In<std::byte>(static_cast<uint32_t>(i)) +
                  cursor.offset(i) * static_cast<int64_t>(job.element_bytes[i]);
      row.stride[i] = job.nest.strides[i].back();
    }
    row.out = args.Out<std::byte>(0) +
              cursor.offset(job.inputs) * static_cast<int64_t>(job.element_bytes[3]);
    row.n = job.nest.extents.back();
    job.function(row);
  }
}

Status AddTyped(LoweringContext& context, const Node& node, RowFunction function,
                size_t num_inputs) {
  const ValueId y = context.Out(node, 0);
  const Shape& out = context.shape(y);
  if (out.size() > NestCursor::kMaxAxes) return UnimplementedError("rank");
  const Layout layout = context.PreferredLayout(node);
  auto job = std::make_shared<Job>();
  job->inputs = num_inputs;
  job->function = function;
  job->nest.extents = LoweringContext::PhysicalShape(out, layout);
  KernelSpec kernel;
  kernel.name = context.KernelName(node.op, node);
  std::vector<Layout> layouts;
  for (size_t i = 0; i < num_inputs; ++i) {
    const ValueId v = node.inputs[i];
    const Shape& shape = context.shape(v);
    if (shape.size() > out.size()) return InvalidArgumentError("an input has a higher rank");
    for (size_t a = 0; a < shape.size(); ++a) {
      if (shape[a] != 1 && shape[a] != out[a + out.size() - shape.size()]) {
        return InvalidArgumentError("input " + std::to_string(i) + " does not broadcast");
      }
    }
    const bool same_rank = shape.size() == out.size() && shape.size() >= 3;
    layouts.push_back(!same_rank ? Layout::kRowMajor : shape == out ? layout : context.layout(v));
  }
  for (size_t i = 0; i < num_inputs; ++i) {
    const ValueId v = node.inputs[i];
    PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Read(v, layouts[i]));
    kernel.reads.push_back(operand);
    job->nest.strides.push_back(BroadcastStrides(context.shape(v), layouts[i], out, layout));
    job->element_bytes[i] = DTypeSizeBytes(context.dtype(v));
    kernel.bytes += static_cast<double>(context.num_elements(v) * job->element_bytes[i]);
  }
  job->nest.strides.push_back(BroadcastStrides(out, layout, out, layout));
  job->element_bytes[3] = DTypeSizeBytes(context.dtype(y));
  job->nest = Joined(job->nest);
  // A single long row is cut so that it can be shared.
  constexpr int64_t kCut = 4096;
  if (job->nest.extents.size() == 1 && job->nest.extents[0] >= 2 * kCut &&
      job->nest.extents[0] % kCut == 0) {
    const int64_t parts = job->nest.extents[0] / kCut;
    job->nest.extents = {parts, kCut};
    for (auto& strides : job->nest.strides) strides = {strides[0] * kCut, strides[0]};
  }
  for (size_t i = 0; i + 1 < job->nest.extents.size(); ++i) job->rows *= job->nest.extents[i];
  kernel.bytes += static_cast<double>(context.num_elements(y) * job->element_bytes[3]);
  kernel.flops = static_cast<double>(context.num_elements(y));
  kernel.grid = context.GridFor(0, kernel.bytes * 2, job->rows);
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.Write(y, layout));
  kernel.writes = {target};
  kernel.run = [job, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                  const BlockArgs& args) {
    RunRows(*job, job->rows * first / grid, job->rows * (int64_t{first} + count) / grid, args);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

// -- The loops ------------------------------------------------------------------------------------

template <typename T, typename R, typename F>
void Binary(const Row& row) {
  const T* a = reinterpret_cast<const T*>(row.in[0]);
  const T* b = reinterpret_cast<const T*>(row.in[1]);
  R* out = reinterpret_cast<R*>(row.out);
  if (row.stride[0] == 1 && row.stride[1] == 1) {
    for (int64_t i = 0; i < row.n; ++i) out[i] = static_cast<R>(F::Of(a[i], b[i]));
    return;
  }
  for (int64_t i = 0; i < row.n; ++i) {
    out[i] = static_cast<R>(F::Of(a[i * row.stride[0]], b[i * row.stride[1]]));
  }
}

// Integers wrap around.
template <typename T>
using Wrapping = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                             std::type_identity<T>>::type;

struct AddOf {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
  }
};
struct SubOf {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
  }
};
struct MulOf {
  template <typename T>
  static T Of(T a, T b) {
    return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
  }
};
struct MinOf {
  template <typename T>
  static T Of(T a, T b) {
    return a < b ? a : b;
  }
};
struct MaxOf {
  template <typename T>
  static T Of(T a, T b) {
    return a > b ? a : b;
  }
};
struct EqualOf {
  template <typename T>
  static bool Of(T a, T b) {
    return a == b;
  }
};
struct LessOf {
  template <typename T>
  static bool Of(T a, T b) {
    return a < b;
  }
};
struct LessOrEqualOf {
  template <typename T>
  static bool Of(T a, T b) {
    return a <= b;
  }
};
struct GreaterOf {
  template <typename T>
  static bool Of(T a, T b) {
    return a > b;
  }
};
struct GreaterOrEqualOf {
  template <typename T>
  static bool Of(T a, T b) {
    return a >= b;
  }
};
struct AndOf {
  static bool Of(uint8_t a, uint8_t b) { return (a != 0) & (b != 0); }
};
struct OrOf {
  static bool Of(uint8_t a, uint8_t b) { return (a != 0) | (b != 0); }
};
struct XorOf {
  static bool Of(uint8_t a, uint8_t b) { return (a != 0) != (b != 0); }
};

template <typename T>
void Where(const Row& row) {
  const uint8_t* c = reinterpret_cast<const uint8_t*>(row.in[0]);
  const T* a = reinterpret_cast<const T*>(row.in[1]);
  const T* b = reinterpret_cast<const T*>(row.in[2]);
  T* out = reinterpret_cast<T*>(row.out);
  for (int64_t i = 0; i < row.n; ++i) {
    const T x = a[i * row.stride[1]], y = b[i * row.stride[2]];
    out[i] = c[i * row.stride[0]] ? x : y;
  }
}

void Not(const Row& row) {
  const uint8_t* a = reinterpret_cast<const uint8_t*>(row.in[0]);
  uint8_t* out = reinterpret_cast<uint8_t*>(row.out);
  for (int64_t i = 0; i < row.n; ++i) out[i] = a[i * row.stride[0]] == 0;
}

template <typename From, typename To>
void Cast(const Row& row) {
  const From* a = reinterpret_cast<const From*>(row.in[0]);
  To* out = reinterpret_cast<To*>(row.out);
  for (int64_t i = 0; i < row.n; ++i) {
    const From x = a[i * row.stride[0]];
    if constexpr (std::is_same_v<To, bool>) {
      out[i] = x != From{};
    } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
      // Through the widest integer, as a C cast of an in-range number does; NaN and what is out of
      // range give the smallest number.
      constexpr float kBound = 9.2233715e18f;
      const int64_t wide =
          x > -kBound && x < kBound ? static_cast<int64_t>(x) : std::numeric_limits<int64_t>::min();
      out[i] = static_cast<To>(wide);
    } else {
      out[i] = static_cast<To>(x);
    }
  }
}

template <typename To>
RowFunction CastTo(DType from) {
  switch (from) {
    case DType::kFloat32:
      return Cast<float, To>;
    case DType::kInt64:
      return Cast<int64_t, To>;
    case DType::kInt32:
      return Cast<int32_t, To>;
    case DType::kUint8:
      return Cast<uint8_t, To>;
    case DType::kBool:
      return Cast<bool, To>;
    default:
      return nullptr;
  }
}

RowFunction FindCast(DType from, DType to) {
  switch (to) {
    case DType::kFloat32:
      return CastTo<float>(from);
    case DType::kInt64:
      return CastTo<int64_t>(from);
    case DType::kInt32:
      return from == DType::kFloat32 ? nullptr : CastTo<int32_t>(from);
    case DType::kBool:
      return CastTo<bool>(from);
    default:
      return nullptr;
  }
}

template <typename F>
RowFunction ArithmeticFor(DType dtype) {
  switch (dtype) {
    case DType::kInt64:
      return Binary<int64_t, int64_t, F>;
    case DType::kInt32:
      return Binary<int32_t, int32_t, F>;
    default:
      return nullptr;
  }
}

template <typename F>
RowFunction ComparisonFor(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return Binary<float, bool, F>;
    case DType::kInt64:
      return Binary<int64_t, bool, F>;
    case DType::kInt32:
      return Binary<int32_t, bool, F>;
    case DType::kBool:
      return Binary<uint8_t, bool, F>;
    default:
      return nullptr;
  }
}

RowFunction FindBinary(std::string_view op, DType dtype) {
  if (op == "Add") return ArithmeticFor<AddOf>(dtype);
  if (op == "Sub") return ArithmeticFor<SubOf>(dtype);
  if (op == "Mul") return ArithmeticFor<MulOf>(dtype);
  if (op == "Min") return ArithmeticFor<MinOf>(dtype);
  if (op == "Max") return ArithmeticFor<MaxOf>(dtype);
  if (op == "Equal") return ComparisonFor<EqualOf>(dtype);
  if (op == "Less") return ComparisonFor<LessOf>(dtype);
  if (op == "LessOrEqual") return ComparisonFor<LessOrEqualOf>(dtype);
  if (op == "Greater") return ComparisonFor<GreaterOf>(dtype);
  if (op == "GreaterOrEqual") return ComparisonFor<GreaterOrEqualOf>(dtype);
  if (dtype != DType::kBool) return nullptr;
  if (op == "And") return Binary<uint8_t, bool, AndOf>;
  if (op == "Or") return Binary<uint8_t, bool, OrOf>;
  if (op == "Xor") return Binary<uint8_t, bool, XorOf>;
  return nullptr;
}

// -- The rules ------------------------------------------------------------------------------------

Status LowerBinary(LoweringContext& context, const Node& node) {
  if (node.inputs.empty() || !node.inputs[0].valid()) return InvalidArgumentError("no input");
  const DType dtype = context.dtype(node.inputs[0]);
  if (dtype == DType::kFloat32 && context.dtype(node.outputs[0]) == DType::kFloat32) {
    return LowerElementwise(context, node);
  }
  if (node.inputs.size() != 2 || context.dtype(node.inputs[1]) != dtype) {
    return UnimplementedError("not two operands of one type");
  }
  const RowFunction function = FindBinary(node.op, dtype);
  if (!function) return UnimplementedError("element type");
  return AddTyped(context, node, function, 2);
}

Status LowerWhere(LoweringContext& context, const Node& node) {
  if (node.inputs.size() != 3) return InvalidArgumentError("three inputs");
  RowFunction function = nullptr;
  switch (DTypeSizeBytes(context.dtype(node.inputs[1]))) {
    case 1:
      function = Where<uint8_t>;
      break;
    case 4:
      function = Where<uint32_t>;
      break;
    case 8:
      function = Where<uint64_t>;
      break;
    default:
      return UnimplementedError("element type");
  }
  return AddTyped(context, node, function, 3);
}

Status LowerNot(LoweringContext& context, const Node& node) {
  return AddTyped(context, node, Not, 1);
}

Status LowerCast(LoweringContext& context, const Node& node) {
  const ValueId x = context.In(node, 0), y = context.Out(node, 0);
  if (context.dtype(x) == context.dtype(y)) {
    return context.Alias(y, context.layout(x), x, context.layout(x));
  }
  const RowFunction function = FindCast(context.dtype(x), context.dtype(y));
  if (!function) return UnimplementedError("types");
  return AddTyped(context, node, function, 1);
}

constexpr std::array kRules = {
    LoweringEntry{"", "Add", LowerBinary},     LoweringEntry{"", "Sub", LowerBinary},
    LoweringEntry{"", "Mul", LowerBinary},     LoweringEntry{"", "Div", LowerBinary},
    LoweringEntry{"", "Pow", LowerBinary},     LoweringEntry{"", "Min", LowerBinary},
    LoweringEntry{"", "Max", LowerBinary},     LoweringEntry{"", "Equal", LowerBinary},
    LoweringEntry{"", "Less", LowerBinary},    LoweringEntry{"", "LessOrEqual", LowerBinary},
    LoweringEntry{"", "Greater", LowerBinary}, LoweringEntry{"", "GreaterOrEqual", LowerBinary},
    LoweringEntry{"", "And", LowerBinary},     LoweringEntry{"", "Or", LowerBinary},
    LoweringEntry{"", "Xor", LowerBinary},     LoweringEntry{"", "Not", LowerNot},
    LoweringEntry{"", "Where", LowerWhere},    LoweringEntry{"", "Cast", LowerCast},
};

}  // namespace

std::span<const LoweringEntry> TypedRules() { return kRules; }

}  // namespace plexus::cpu
