// plexus.Attention in one kernel: a block takes some query rows of one head, and its scores never
// leave the cache.
#include "device/cpu/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "device/cpu/gemm.h"
#include "device/cpu/kernels/box_copy.h"
#include "device/cpu/kernels/row_kernels.h"
#include "device/cpu/kernels/strided.h"

namespace plexus::cpu {

namespace {

constexpr int64_t kRowsPerUnit = 128;
// Scores of one unit; longer sequences go to the reference.
constexpr int64_t kMaxScores = int64_t{1} << 22;

int64_t Aligned(int64_t floats) { return (floats + 15) / 16 * 16; }

struct Job {
  int64_t heads = 0;  // of all images
  int64_t heads_per_image = 0;
  int64_t queries = 0, keys = 0, depth = 0, width = 0;
  int64_t units_per_head = 1, rows_per_unit = 0;
  float scale = 1;
  bool masked = false;
  int64_t mask_image = 0, mask_head = 0, mask_row = 0;  // strides

  int64_t units() const { return heads * units_per_head; }
  int64_t packed_keys() const { return Aligned(PackedFloats(depth, keys)); }
  int64_t packed_values() const { return Aligned(PackedFloats(keys, width)); }
  int64_t scratch_floats() const {
    return packed_keys() + packed_values() + Aligned(rows_per_unit * keys);
  }
};

// The panels of gemm.h of the transposed keys: row d of a panel holds element d of its keys.
void PackKeys(const Job& job, const float* k, float* packed) {
  const int64_t panel = BestGemm().panel, multiple = BestGemm().column_multiple;
  for (int64_t first = 0; first < job.keys; first += panel) {
    const int64_t count = std::min(panel, job.keys - first);
    const int64_t wide = count == panel ? panel : (count + multiple - 1) / multiple * multiple;
    float* to = packed + first * job.depth;
    TransposeFloats(k + first * job.depth, job.depth, to, wide, job.depth, count);
    for (int64_t d = 0; wide > count && d < job.depth; ++d) {
      std::fill(to + d * wide + count, to + (d + 1) * wide, 0.0f);
    }
  }
}

void PackValues(const Job& job, const float* v, float* packed) {
  const int64_t panel = BestGemm().panel, multiple = BestGemm().column_multiple;
  for (int64_t first = 0; first < job.width; first += panel) {
    const int64_t count = std::min(panel, job.width - first);
    const int64_t wide = count == panel ? panel : (count + multiple - 1) / multiple * multiple;
    float* to = packed + first * job.keys;
    for (int64_t t = 0; t < job.keys; ++t) {
      std::memcpy(to + t * wide, v + t * job.width + first, count * sizeof(float));
      std::fill(to + t * wide + count, to + (t + 1) * wide, 0.0f);
    }
  }
}

void RunUnits(const Job& job, int64_t begin, int64_t end, const BlockArgs& args) {
  float* keys = reinterpret_cast<float*>(args.scratch);
  float* values = keys + job.packed_keys();
  float* scores = values + job.packed_values();
  const GemmKernel& gemm = BestGemm();
  int64_t packed_head = -1;
  for (int64_t u = begin; u < end; ++u) {
    const int64_t head = u / job.units_per_head;
    const int64_t row = u % job.units_per_head * job.rows_per_unit;
    const int64_t rows = std::min(job.rows_per_unit, job.queries - row);
    if (rows <= 0) continue;
    if (head != packed_head) {
      PackKeys(job, args.In<float>(1) + head * job.keys * job.depth, keys);
      PackValues(job, args.In<float>(2) + head * job.keys * job.width, values);
      packed_head = head;
    }
    GemmArgs g;
    g.a = args.In<float>(0) + (head * job.queries + row) * job.depth;
    g.lda = job.depth;
    g.b = keys;
    g.c = scores;
    g.ldc = job.keys;
    g.rows = rows;
    g.depth = job.depth;
    g.last_column = job.keys;
    g.alpha = job.scale;
    if (job.masked) {
      const float* mask = args.In<float>(3) + head / job.heads_per_image * job.mask_image +
                          head % job.heads_per_image * job.mask_head + row * job.mask_row;
      (job.mask_row == 0 ? g.bias : g.residual) = mask;
    }
    gemm.run(g);
    BestRowKernels().softmax(scores, scores, rows, job.keys, false);
    GemmArgs o;
    o.a = scores;
    o.lda = job.keys;
    o.b = values;
    o.c = args.Out<float>(0) + (head * job.queries + row) * job.width;
    o.ldc = job.width;
    o.rows = rows;
    o.depth = job.keys;
    o.last_column = job.width;
    gemm.run(o);
  }
}

}  // namespace

Status LowerAttention(LoweringContext& context, const Node& node) {
  const ValueId q = context.In(node, 0), k = context.In(node, 1), v = context.In(node, 2);
  const ValueId mask = context.In(node, 3), y = context.Out(node, 0);
  for (ValueId in : node.inputs) {
    if (in.valid() && context.dtype(in) != DType::kFloat32)
      return UnimplementedError("not float32");
  }
  const Shape& qs = context.shape(q);
  const Shape& ks = context.shape(k);
  const Shape& vs = context.shape(v);
  if (qs.size() != 4 || ks.size() != 4 || vs.size() != 4) return UnimplementedError("rank");
  for (int i = 0; i < 2; ++i) {
    if (ks[i] != qs[i] || vs[i] != qs[i]) return UnimplementedError("heads broadcast");
  }
  if (ks[3] != qs[3] || vs[2] != ks[2]) return InvalidArgumentError("q, k and v do not fit");
  Job job;
  job.heads = qs[0] * qs[1];
  job.heads_per_image = qs[1];
  job.queries = qs[2];
  job.keys = ks[2];
  job.depth = qs[3];
  job.width = vs[3];
  job.scale = node.FloatAttr("scale", 1.0f / std::sqrt(static_cast<float>(job.depth)));
  job.units_per_head = (job.queries + kRowsPerUnit - 1) / kRowsPerUnit;
  // Whole register tiles.
  job.rows_per_unit = ((job.queries + job.units_per_head - 1) / job.units_per_head + 5) / 6 * 6;
  if (job.rows_per_unit * job.keys > kMaxScores) return UnimplementedError("too many keys");
  if (mask.valid()) {
    const Shape all = {qs[0], qs[1], qs[2], ks[2]};
    const Shape& ms = context.shape(mask);
    if (ms.size() > 4 || ms.empty()) return UnimplementedError("mask's rank");
    const std::vector<int64_t> strides =
        BroadcastStrides(ms, Layout::kRowMajor, all, Layout::kRowMajor);
    if (job.keys > 1 && strides[3] != 1) return UnimplementedError("mask repeats along the keys");
    job.masked = true;
    job.mask_image = strides[0];
    job.mask_head = strides[1];
    job.mask_row = strides[2];
    if (job.keys == 1 && job.queries > 1) return UnimplementedError("one key");
  }
  const double scores = static_cast<double>(job.heads * job.queries) * job.keys;
  KernelSpec kernel;
  kernel.name = context.KernelName("attention " + std::to_string(job.queries) + "x" +
                                       std::to_string(job.keys) + "x" + std::to_string(job.depth),
                                   node);
  kernel.flops = scores * (2.0 * job.depth + 2.0 * job.width + 10);
  kernel.bytes = 4.0 * (context.num_elements(q) + context.num_elements(k) +
                        context.num_elements(v) + context.num_elements(y));
  kernel.grid = context.GridFor(kernel.flops * 1.5, kernel.bytes, job.units());
  kernel.scratch_bytes = static_cast<size_t>(job.scratch_floats()) * sizeof(float);
  for (ValueId in : node.inputs) {
    if (!in.valid()) continue;
    PLEXUS_ASSIGN_OR_RETURN(Operand operand, context.Read(in, Layout::kRowMajor));
    kernel.reads.push_back(operand);
  }
  PLEXUS_ASSIGN_OR_RETURN(Operand out, context.Write(y, Layout::kRowMajor));
  kernel.writes = {out};
  kernel.run = [job, grid = int64_t{kernel.grid}](uint32_t first, uint32_t count,
                                                  const BlockArgs& args) {
    RunUnits(job, job.units() * first / grid, job.units() * (int64_t{first} + count) / grid, args);
    return OkStatus();
  };
  context.AddKernel(std::move(kernel));
  return OkStatus();
}

}  // namespace plexus::cpu
