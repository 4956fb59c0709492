// plexus.Elementwise: a program runs step by step over strips that stay in the first-level cache.
#include "device/cpu/kernels/elementwise.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "device/cpu/kernels/elementwise_program.h"
#include "device/cpu/kernels/isa.h"
#include "device/cpu/kernels/strided.h"

namespace plexus::cpu {

PLEXUS_DEFINE_BEST(StepKernels, kSteps)

namespace {

constexpr int64_t kStrip = 1024;  // floats
constexpr int64_t kSplat = 16;    // floats of the widest vector
constexpr int kMaxInputs = static_cast<int>(NestCursor::kMaxOperands);
constexpr int kMaxSteps = 64;

// How an input's strip is found. With "row" we mean the innermost joined axis.
enum class Access : uint8_t {
  kDirect,    // lies as the output does
  kScalar,    // one element for all
  kRow,       // strips within a row: contiguous or one element
  kGather,    // strips within a row: any stride
  kPeriodic,  // several rows to a strip: every row reads the same
  kRows,      // several rows to a strip: copied row by row
};

struct Job {
  PointwiseProgram program;
  LoopNest nest;
  std::vector<Access> access;  // per input
  std::vector<int> buffer;     // per input: its scratch strip, or -1
  int num_buffers = 0;
  int64_t row = 0, rows = 0;   // elements of a row, number of rows
  int64_t rows_per_strip = 0;  // 0: several strips to a row
  int64_t strips_per_row = 1;
  int64_t strips = 0;
  bool walks = false;  // some input needs the offsets of rows
};

size_t ScratchBytes(const Job& job) {
  const size_t strips = static_cast<size_t>(job.num_buffers + job.program.num_slots);
  return (strips * kStrip + static_cast<size_t>(job.program.inputs) * kSplat) * sizeof(float);
}

void Fill(float* to, int64_t n, float value) {
  for (int64_t i = 0; i < n; ++i) to[i] = value;
}

void CopyRow(const float* from, int64_t stride, int64_t n, float* to) {
  if (stride == 1) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  } else if (stride == 0) {
    Fill(to, n, *from);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
  }
}

void PlanAccess(Job& job) {
  const LoopNest& nest = job.nest;
  job.row = nest.extents.back();
  job.rows = 1;
  for (size_t i = 0; i + 1 < nest.extents.size(); ++i) job.rows *= nest.extents[i];
  if (job.rows > 1 && job.row * 2 <= kStrip) {
    job.rows_per_strip = std::min(kStrip / job.row, job.rows);
    job.strips = (job.rows + job.rows_per_strip - 1) / job.rows_per_strip;
  } else {
    job.strips_per_row = (job.row + kStrip - 1) / kStrip;
    job.strips = job.rows * job.strips_per_row;
  }
  // The output is the last operand of the nest.
  const std::vector<int64_t>& out = nest.strides.back();
  for (int i = 0; i < job.program.inputs; ++i) {
    const std::vector<int64_t>& strides = nest.strides[i];
    const bool outer_zero =
        std::all_of(strides.begin(), strides.end() - 1, [](int64_t s) { return s == 0; });
    Access access = Access::kRows;
    if (strides == out) {
      access = Access::kDirect;
    } else if (outer_zero && strides.back() == 0) {
      access = Access::kScalar;
    } else if (job.rows_per_strip == 0) {
      access = strides.back() <= 1 ? Access::kRow : Access::kGather;
    } else if (outer_zero) {
      access = Access::kPeriodic;
    }
    const bool buffered =
        access == Access::kGather || access == Access::kPeriodic || access == Access::kRows;
    job.access.push_back(access);
    job.buffer.push_back(buffered ? job.num_buffers++ : -1);
    if (access == Access::kRow || access == Access::kGather || access == Access::kRows) {
      job.walks = true;
    }
  }
}

// The state of one call: where each input's strip lies now.
class Runner {
 public:
  Runner(const Job& job, const BlockArgs& args)
      : job_(job), args_(args), kernels_(BestStepKernels()) {
    auto* scratch = reinterpret_cast<float*>(args.scratch);
    buffers_ = scratch;
    slots_ = scratch + job.num_buffers * kStrip;
    splats_ = slots_ + job.program.num_slots * kStrip;
  }

  void Run(int64_t begin, int64_t end) {
    Prepare();
    const int64_t first_row =
        job_.rows_per_strip ? begin * job_.rows_per_strip : begin / job_.strips_per_row;
    NestCursor cursor(job_.nest, 1, first_row);
    if (job_.rows_per_strip) {
      for (int64_t s = begin; s < end; ++s) {
        const int64_t row = s * job_.rows_per_strip;
        const int64_t rows = std::min(job_.rows_per_strip, job_.rows - row);
        FindRows(cursor, row, rows);
        Steps(row * job_.row, rows * job_.row);
      }
      return;
    }
    int64_t row = first_row, part = begin % job_.strips_per_row;
    for (int64_t s = begin; s < end; ++s) {
      const int64_t column = part * kStrip;
      const int64_t n = std::min(kStrip, job_.row - column);
      FindPart(cursor, row * job_.row + column, column, n);
      Steps(row * job_.row + column, n);
      if (++part == job_.strips_per_row) {
        part = 0;
        ++row;
        if (job_.walks) cursor.Next();
      }
    }
  }

 private:
  void Splat(int i, float value) {
    float* splat = splats_ + i * kSplat;
    Fill(splat, kSplat, value);
    at_[i] = splat;
    advance_[i] = 0;
  }

  // What is the same for all strips.
  void Prepare() {
    for (int i = 0; i < job_.program.inputs; ++i) {
      const float* in = args_.In<float>(i);
      advance_[i] = 1;
      if (job_.access[i] == Access::kScalar) {
        Splat(i, *in);
      } else if (job_.access[i] == Access::kPeriodic) {
        float* to = buffers_ + job_.buffer[i] * kStrip;
        at_[i] = to;
        for (int64_t r = 0; r < job_.rows_per_strip; ++r) {
          CopyRow(in, job_.nest.strides[i].back(), job_.row, to + r * job_.row);
        }
      }
    }
  }

  void FindRows(NestCursor& cursor, int64_t row, int64_t rows) {
    for (int i = 0; i < job_.program.inputs; ++i) {
      if (job_.access[i] == Access::kDirect) at_[i] = args_.In<float>(i) + row * job_.row;
    }
    if (!job_.walks) return;
    for (int64_t r = 0; r < rows; ++r, cursor.Next()) {
      for (int i = 0; i < job_.program.inputs; ++i) {
        if (job_.access[i] != Access::kRows) continue;
        float* to = buffers_ + job_.buffer[i] * kStrip;
        at_[i] = to;
        CopyRow(args_.In<float>(i) + cursor.offset(i), job_.nest.strides[i].back(), job_.row,
                to + r * job_.row);
      }
    }
  }

  void FindPart(const NestCursor& cursor, int64_t flat, int64_t column, int64_t n) {
    for (int i = 0; i < job_.program.inputs; ++i) {
      const float* in = args_.In<float>(i);
      if (job_.access[i] == Access::kDirect) {
        at_[i] = in + flat;
      } else if (job_.access[i] == Access::kRow) {
        if (job_.nest.strides[i].back() == 0) {
          Splat(i, in[cursor.offset(i)]);
        } else {
          at_[i] = in + cursor.offset(i) + column;
        }
      } else if (job_.access[i] == Access::kGather) {
        const int64_t stride = job_.nest.strides[i].back();
        float* to = buffers_ + job_.buffer[i] * kStrip;
        CopyRow(in + cursor.offset(i) + column * stride, stride, n, to);
        at_[i] = to;
      }
    }
  }

  void Steps(int64_t flat, int64_t n) {
    const PointwiseProgram& program = job_.program;
    const int inputs = program.inputs, count = static_cast<int>(program.steps.size());
    for (int i = 0; i < count; ++i) {
      const PointwiseStep& step = program.steps[i];
      StepArgs s;
      for (int k = 0; k < step.arity; ++k) {
        const int arg = step.args[k];
        s.in[k] = arg < inputs ? at_[arg] : slots_ + program.slots[arg - inputs] * kStrip;
        s.advance[k] = arg < inputs ? advance_[arg] : 1;
      }
      s.out = i + 1 == count ? args_.Out<float>(0) + flat : slots_ + program.slots[i] * kStrip;
      s.n = n;
      s.p0 = step.p0;
      s.p1 = step.p1;
      kernels_.run[static_cast<size_t>(step.op)](s);
    }
  }

  const Job& job_;
  const BlockArgs& args_;
  const StepKernels& kernels_;
  float* buffers_;
  float* slots_;
  float* splats_;
  const float* at_[kMaxInputs];
  int64_t advance_[kMaxInputs];
};

// The layout in which to read an input: its own where it only repeats, else the output's.
Layout LayoutToRead(const LoweringContext& context, ValueId v, const Shape& out, Layout layout) {
  const Shape& shape = context.shape(v);
  if (shape.size() != out.size() || shape.size() < 3) return Layout::kRowMajor;
  if (context.SameInBothLayouts(v) || shape == out) return layout;
  return context.layout(v);
}

bool BroadcastsTo(const Shape& shape, const Shape& out) {
  if (shape.size() > out.size()) return false;
  const size_t missing = out.size() - shape.size();
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != 1 && shape[i] != out[i + missing]) return false;
  }
  return true;
}

constexpr std::string_view kSingles[] = {"Abs",         "Neg",
                                         "Exp",         "Log",
                                         "Sqrt",        "Reciprocal",
                                         "Erf",         "Sigmoid",
                                         "Tanh",        "Sin",
                                         "Cos",         "Floor",
                                         "Ceil",        "Round",
                                         "Sign",        "Relu",
                                         "Softplus",    "Softsign",
                                         "HardSwish",   "Gelu",
                                         "Mish",        "LeakyRelu",
                                         "Elu",         "Celu",
                                         "Selu",        "ThresholdedRelu",
                                         "HardSigmoid", "Clip",
                                         "PRelu",       "Sum"};

}  // namespace

Status LowerElementwise(LoweringContext& context, const Node& node) {
  const ValueId y = context.Out(node, 0);
  const Shape& out = context.shape(y);
  if (node.inputs.empty() || node.inputs.size() > kMaxInputs - 1) {
    return UnimplementedError("number of inputs");
  }
  auto job = std::make_shared<Job>();
  PLEXUS_ASSIGN_OR_RETURN(job->program, ParsePointwise(context, node));
  const int inputs = job->program.inputs;
  if (job->program.steps.size() > kMaxSteps || out.size() > NestCursor::kMaxAxes) {
    return UnimplementedError("program or rank too long");
  }
  if (context.dtype(y) != DType::kFloat32) return UnimplementedError("not float32");
  for (int i = 0; i < inputs; ++i) {
    const ValueId v = node.inputs[i];
    if (!v.valid() || context.dtype(v) != DType::kFloat32) return UnimplementedError("not float32");
    if (!BroadcastsTo(context.shape(v), out)) {
      return InvalidArgumentError("input " + std::to_string(i) + " does not broadcast");
    }
  }

  const Layout layout = context.PreferredLayout(node);
  job->nest.extents = LoweringContext::PhysicalShape(out, layout);
  KernelSpec kernel;
  kernel.name = context.KernelName("elementwise", node);
  ValueId over;
  double bytes = 4.0 * context.num_elements(y);
  for (int i = 0; i < inputs; ++i) {
    const ValueId v = node.inputs[i];
    const Layout from = LayoutToRead(context, v, out, layout);
    PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Read(v, from));
    kernel.reads.push_back(operand);
    job->nest.strides.push_back(BroadcastStrides(context.shape(v), from, out, layout));
    bytes += 4.0 * context.num_elements(v);
    if (!over.valid() && context.shape(v) == out && !context.IsConstant(v)) over = v;
  }
  job->nest.strides.push_back(BroadcastStrides(out, layout, out, layout));
  job->nest = Joined(job->nest);
  PlanAccess(*job);
  bool in_place = false;
  PLEXUS_ASSIGN_OR_RETURN(Operand target, context.WriteOver(y, layout, over, &in_place));
  kernel.writes = {target};
  kernel.flops = static_cast<double>(context.num_elements(y)) * job->program.steps.size();
  kernel.bytes = bytes;
  const double work = static_cast<double>(context.num_elements(y)) * job->program.cost;
  kernel.time = LoweringContext::EstimateTime(work, bytes);
  kernel.grid = context.GridFor(work, bytes, job->strips);
  kernel.scratch_bytes = ScratchBytes(*job);
  kernel.run = [job, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                  const BlockArgs& args) {
    Runner(*job, args)
        .Run(job->strips * first / grid, job->strips * (int64_t{first} + count) / grid);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

std::span<const LoweringEntry> ElementwiseRules() {
  static const std::vector<LoweringEntry>& rules = *[] {
    auto* made = new std::vector<LoweringEntry>{{"plexus", "Elementwise", LowerElementwise}};
    for (std::string_view name : kSingles) made->push_back({"", name, LowerElementwise});
    return made;
  }();
  return rules;
}

}  // namespace plexus::cpu
