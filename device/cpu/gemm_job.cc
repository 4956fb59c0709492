#include "device/cpu/gemm_job.h"

#include <algorithm>

#include "device/cpu/kernels/box_copy.h"
#include "device/cpu/packed_memory.h"

namespace plexus::cpu {

namespace {

constexpr int64_t kMinRows = 48;  // per block
constexpr float kHuge = 3.4028235e38f;

Status RunGemm(const GemmJob& job, uint32_t first, uint32_t count, const BlockArgs& args) {
  const GemmKernel& kernel = BestGemm();
  const GemmCut& cut = job.cut;
  const int64_t columns = job.base.last_column;
  const int64_t per_matrix = cut.row_chunks * cut.column_chunks;
  for (int64_t block = first; block < int64_t{first} + count; ++block) {
    const int64_t matrix = block / per_matrix, part = block % per_matrix;
    const int64_t row = part % cut.row_chunks * cut.rows_per_chunk;
    const int64_t column = part / cut.row_chunks * cut.columns_per_chunk;
    GemmArgs g = job.base;
    const int64_t at = matrix * job.base.rows + row;
    g.rows = std::min(cut.rows_per_chunk, job.base.rows - row);
    g.a = args.In<float>(0) + job.a_offsets[matrix];
    if (job.windowed) {
      g.windows = &job.windows;
      g.first_row = row;
    } else {
      g.a += row * g.lda;
    }
    g.c = args.Out<float>(0) + at * g.ldc;
    if (job.bias_operand >= 0) g.bias = args.In<float>(job.bias_operand);
    if (job.residual_operand >= 0) {
      g.residual = args.In<float>(job.residual_operand) + at * g.ld_residual;
    }
    g.first_column = column;
    g.last_column = std::min(columns, column + cut.columns_per_chunk);
    if (job.packed) {
      g.b = args.In<float>(1);
      kernel.run(g);
      continue;
    }
    // b is made at run time: pack one panel after the other into the scratch.
    const float* b = args.In<float>(1) + job.b_offsets[matrix];
    float* scratch = reinterpret_cast<float*>(args.scratch);
    const int64_t last = g.last_column;
    for (int64_t c = column; c < last; c += kernel.panel) {
      g.first_column = c;
      g.last_column = std::min(last, c + kernel.panel);
      PackGemm(b, job.b_row_stride, job.b_column_stride, g.depth, c, g.last_column, columns,
               scratch - c * g.depth);
      g.b = scratch - c * g.depth;
      kernel.run(g);
    }
  }
  return OkStatus();
}

// [columns, depth / taps, taps] ↔ [columns, taps, depth / taps].
std::vector<float> SwapTaps(const float* from, int64_t columns, int64_t outer, int64_t inner) {
  std::vector<float> to(static_cast<size_t>(columns * outer * inner));
  float* out = to.data();
  for (int64_t n = 0; n < columns; ++n, from += outer * inner, out += outer * inner) {
    TransposeFloats(from, inner, out, outer, inner, outer);
  }
  return to;
}

}  // namespace

GemmCut CutGemm(int64_t rows, int64_t columns, int64_t depth, double a_floats, int64_t wanted) {
  const int64_t panel = BestGemm().panel;
  const int64_t panels = (columns + panel - 1) / panel;
  GemmCut cut;
  const int64_t most_rows = std::max<int64_t>(1, rows / kMinRows);
  if (a_floats >= static_cast<double>(depth) * static_cast<double>(columns)) {
    cut.row_chunks = std::min(wanted, most_rows);
    cut.column_chunks = std::min(panels, (wanted + cut.row_chunks - 1) / cut.row_chunks);
  } else {
    cut.column_chunks = std::min(panels, wanted);
    cut.row_chunks = std::min(most_rows, (wanted + cut.column_chunks - 1) / cut.column_chunks);
  }
  const int64_t panels_per_chunk = (panels + cut.column_chunks - 1) / cut.column_chunks;
  cut.columns_per_chunk = panels_per_chunk * panel;
  cut.column_chunks = (panels + panels_per_chunk - 1) / panels_per_chunk;
  // Full register tiles: 12 rows suit every build.
  cut.rows_per_chunk = ((rows + cut.row_chunks - 1) / cut.row_chunks + 11) / 12 * 12;
  cut.row_chunks = (rows + cut.rows_per_chunk - 1) / cut.rows_per_chunk;
  return cut;
}

bool SetGemmActivation(const Activation& activation, GemmArgs& args) {
  struct Known {
    const char* name;
    GemmActivation code;
    float p0 = 0, p1 = 0, p2 = 0;
  };
  static constexpr Known kKnown[] = {
      {"", GemmActivation::kNone},
      {"Relu", GemmActivation::kRelu},
      {"LeakyRelu", GemmActivation::kLeakyRelu, 0.01f},
      {"LeakyReluClip", GemmActivation::kLeakyReluClip, 0.01f, -kHuge, kHuge},
      {"Sigmoid", GemmActivation::kSigmoid},
      {"Tanh", GemmActivation::kTanh},
      {"Gelu", GemmActivation::kGelu},
      {"GeluTanh", GemmActivation::kGeluTanh},
      {"Clip", GemmActivation::kClip, -kHuge, kHuge},
      {"HardSigmoid", GemmActivation::kHardSigmoid, 0.2f, 0.5f},
      {"HardSwish", GemmActivation::kHardSwish},
      {"HardSwishAffine", GemmActivation::kHardSwishAffine, 1, 0},
      {"Silu", GemmActivation::kSilu},
      {"Elu", GemmActivation::kElu, 1},
      {"Softplus", GemmActivation::kSoftplus},
  };
  for (const Known& known : kKnown) {
    if (activation.name != known.name) continue;
    args.activation = known.code;
    args.p0 = activation.Param(0, known.p0);
    args.p1 = activation.Param(1, known.p1);
    args.p2 = activation.Param(2, known.p2);
    return true;
  }
  return false;
}

Result<DerivedPtr> PackGemmConstant(const Constant& constant, int64_t depth, int64_t columns,
                                    bool transposed, int64_t taps) {
  const int64_t row_stride = transposed ? 1 : columns, column_stride = transposed ? depth : 1;
  std::string key = "gemm:" + std::to_string(BestGemm().panel) + ":" + std::to_string(depth) + "x" +
                    std::to_string(columns) + (transposed ? "t" : "n");
  if (taps > 1) key += std::to_string(taps);
  auto make = [&](const Tensor& plain) -> Result<DerivedConstant> {
    DerivedConstant derived;
    // The kernels prefetch beyond the end but never read there.
    PLEXUS_ASSIGN_OR_RETURN(derived.buffer,
                            Buffer::Allocate(PackedFloats(depth, columns) * sizeof(float)));
    const float* from = plain.data<float>().data();
    std::vector<float> swapped;
    if (taps > 1) {
      swapped = SwapTaps(from, columns, depth / taps, taps);
      from = swapped.data();
    }
    PackGemm(from, row_stride, column_stride, depth, 0, columns, columns,
             reinterpret_cast<float*>(derived.buffer->data()));
    NotePacked(plain.size_bytes());
    return derived;
  };
  PLEXUS_ASSIGN_OR_RETURN(DerivedPtr packed, constant.Derived(key, make));
  const Shape shape = constant.shape();
  constant.EvictPlain(packed, [=](const DerivedConstant& derived) -> Result<Tensor> {
    PLEXUS_ASSIGN_OR_RETURN(Tensor plain, Tensor::Allocate(DType::kFloat32, shape));
    float* to = plain.mutable_data<float>().data();
    UnpackGemm(reinterpret_cast<const float*>(derived.buffer->data()), depth, columns, to,
               row_stride, column_stride);
    if (taps > 1) {
      const std::vector<float> swapped = SwapTaps(to, columns, taps, depth / taps);
      std::copy(swapped.begin(), swapped.end(), to);
    }
    return plain;
  });
  return packed;
}

size_t GemmJob::ScratchBytes() const {
  return packed ? 0 : PackedFloats(base.depth, BestGemm().panel) * sizeof(float);
}

void SetGemmKernel(GemmJob job, KernelSpec& kernel) {
  if (job.base.ld_residual == 0) job.base.ld_residual = job.base.ldc;
  kernel.grid = job.Grid();
  kernel.scratch_bytes = job.ScratchBytes();
  auto shared = std::make_shared<GemmJob>(std::move(job));
  shared->windows.zeros = shared->zeros.data();
  kernel.run = [shared](uint32_t first, uint32_t count, const BlockArgs& args) {
    return RunGemm(*shared, first, count, args);
  };
}

}  // namespace plexus::cpu
