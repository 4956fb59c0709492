// Lowering: how nodes of a region become CPU kernels. Read this before writing a rule.
//
// A rule is a function `Status LowerX(LoweringContext&, const Node&)` in the table of rules.cc. It
// asks the context for its inputs in the layout it wants (Read), defines its outputs (Write or
// Alias) and adds kernels (AddKernel). It never sees addresses: memory is planned after every node
// has been lowered, and a kernel gets its pointers when a block runs. A rule that cannot handle a
// node returns kUnimplemented *before* its first Read/Write/Alias/AddKernel; the node then runs on
// its reference implementation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "base/status.h"
#include "graph/graph.h"
#include "program/compiler.h"

namespace plexus::cpu {

// Order of a value's elements in memory. Shapes are always the graph's (logical, N C spatial...).
enum class Layout : uint8_t {
  kRowMajor,
  kChannelsLast,  // [N, C, D1.. Dk] stored as [N, D1.. Dk, C]; rank 3 and up
};

using StorageId = Id<struct StorageTag>;

// One value's bytes in one form, as a kernel reads or writes them. Cheap to copy.
struct Operand {
  StorageId storage;
  size_t offset_bytes = 0;
  // Channels-last only: elements from one pixel to the next; the channel count when dense. Read and
  // Write always give dense operands; only ReadStrided may give a larger stride.
  int64_t pixel_stride = 0;
  // Writes to one storage with different non-zero parts do not overlap (a Concat's producers).
  uint32_t part = 0;
};

// What a block sees. Pointers lie in the order reads, then writes, of the KernelSpec.
struct BlockArgs {
  std::byte* const* operands = nullptr;
  uint32_t num_reads = 0;
  std::byte* scratch = nullptr;  // KernelSpec::scratch_bytes, 64-byte aligned, uninitialised
  uint32_t worker = 0;

  template <typename T>
  const T* In(uint32_t i) const {
    return reinterpret_cast<const T*>(operands[i]);
  }
  template <typename T>
  T* Out(uint32_t i) const {
    return reinterpret_cast<T*>(operands[num_reads + i]);
  }
};

// Runs blocks [first, first + count). Called from several workers at once with disjoint ranges, in
// any order; must not allocate, and may touch only its operands, its captures and its scratch.
// Captures whatever immutable state it needs (prepacked weights, sizes).
using BlockFunction = std::function<Status(uint32_t first, uint32_t count, const BlockArgs&)>;

struct KernelSpec {
  std::string name;   // "conv 3x3 64→64 (layer1.0.conv1)"; KernelName() makes one
  uint32_t grid = 1;  // see LoweringContext::GridFor
  double flops = 0;   // whole grid
  double bytes = 0;   // whole grid, read and written
  Duration time{0};   // whole grid on one core; 0: estimated from flops and bytes
  size_t scratch_bytes = 0;
  std::vector<Operand> reads;
  std::vector<Operand> writes;  // an in-place kernel lists the storage here and in reads
  BlockFunction run;
};

// Owns everything while one region is lowered. Not thread-safe. Errors are Status, never aborts.
class LoweringContext {
 public:
  LoweringContext(GraphPtr region, const CompileOptions& options, uint32_t workers,
                  Duration target_block_time);
  ~LoweringContext();

  // -- What is known ------------------------------------------------------------------------------
  const Graph& graph() const { return *graph_; }
  // The same graph, for kernels that need it at run time.
  const GraphPtr& shared_graph() const { return graph_; }
  const CompileOptions& options() const { return options_; }
  uint32_t workers() const { return workers_; }

  const Shape& shape(ValueId v) const;  // concrete
  DType dtype(ValueId v) const { return graph_->value(v).dtype; }
  int64_t num_elements(ValueId v) const { return NumElementsUnchecked(shape(v)); }
  bool IsConstant(ValueId v) const { return graph_->value(v).IsConstant(); }
  // Input/output i of a node; an invalid id where it is left out.
  static ValueId In(const Node& node, size_t i);
  static ValueId Out(const Node& node, size_t i);
  // The contents of a constant (axes, weights); kFailedPrecondition for any other value.
  Result<Tensor> Contents(ValueId v) const;

  // The layout a value is held in (its first form). Constants and inputs are row-major.
  Layout layout(ValueId v) const;
  // True when both layouts put v's elements at the same addresses (C or all of D1..Dk are 1).
  bool SameInBothLayouts(ValueId v) const;
  // kChannelsLast if some input of this node with its output's rank is held so: what a
  // layout-agnostic operator (elementwise, pool, concat, resize...) should ask for and produce.
  Layout PreferredLayout(const Node& node) const;
  // The extents of `shape` in memory order: [N,C,H,W] → [N,H,W,C] when channels-last.
  static Shape PhysicalShape(const Shape& shape, Layout layout);

  // -- Operands -----------------------------------------------------------------------------------
  // v, dense, in `layout`; adds a conversion kernel (once per value) if it is not held so.
  // Constants are converted at compile time. `dtype` other than v's own: float32 ↔ bfloat16 only.
  Result<Operand> Read(ValueId v, Layout layout, DType dtype = DType::kUndefined);
  // v channels-last with whatever pixel stride it has.
  Result<Operand> ReadStrided(ValueId v);
  // Storage for an output, dense. If v is (a view that becomes) a program output in row-major order
  // it lies directly in that output. Each output of a node is written exactly once.
  Result<Operand> Write(ValueId v, Layout layout, DType dtype = DType::kUndefined);
  // As Write, in the storage of `over` if that dies with this node and has the same size, layout
  // and dtype; *in_place says whether. For kernels that read element i before they write it.
  Result<Operand> WriteOver(ValueId v, Layout layout, ValueId over, bool* in_place,
                            DType dtype = DType::kUndefined);
  // As Write(v, kChannelsLast), for kernels that can write with any pixel stride: where v only goes
  // into a Concat along the channels, it is written straight into the concatenation.
  Result<Operand> WriteStrided(ValueId v);
  // v is the same bytes as `of`: no kernel. With both row-major: any reshape. With other layouts
  // the caller knows that the order of elements in memory is right (e.g. a Transpose from
  // channels-last to row-major). kFailedPrecondition if `of` is not held in `of_layout`.
  Status Alias(ValueId v, Layout layout, ValueId of, Layout of_layout);
  // Bytes a kernel needs between its own kernels (a temporary that is no value).
  Operand Temporary(size_t size_bytes);
  // A constant made by the rule (a table, a packed weight); lives as long as the program.
  Operand ConstantOperand(Tensor tensor);
  Operand ConstantOperand(DerivedPtr derived);

  // -- Kernels ------------------------------------------------------------------------------------
  // How many blocks for that much work: 1 below about 100 µs in all, else blocks near the target
  // block time, at least two per worker, at most `max_blocks` (rows, panels ... there are to cut).
  uint32_t GridFor(double flops, double bytes, int64_t max_blocks) const;
  // Roofline of one core.
  static Duration EstimateTime(double flops, double bytes);
  std::string KernelName(std::string_view what, const Node& node) const;
  void AddKernel(KernelSpec spec);
  // Derived constants captured in a BlockFunction, for Program::constant_bytes.
  void CountConstantBytes(size_t bytes) { constant_bytes_ += bytes; }

  // -- Driver (cpu_compiler.cc) -------------------------------------------------------------------
  struct Storage {
    enum class Kind : uint8_t { kArena, kInput, kOutput, kConstant };
    Kind kind = Kind::kArena;
    size_t size_bytes = 0;
    uint32_t index = 0;                      // input or output number
    const std::byte* constant = nullptr;     // kConstant
    std::shared_ptr<const void> keep_alive;  // kConstant
  };
  Status LowerAll();
  const std::vector<Storage>& storages() const { return storages_; }
  std::vector<KernelSpec>& kernels() { return kernels_; }
  size_t constant_bytes() const { return constant_bytes_; }

 private:
  // A value in one form.
  struct Form {
    Layout layout = Layout::kRowMajor;
    DType dtype = DType::kUndefined;
    Operand operand;
  };
  // Where a value lies inside a concatenation that is built in place.
  struct Placement {
    ValueId into;         // the Concat's output; invalid: nowhere
    int64_t channel = 0;  // of `into`
    bool written = false;
  };
  StorageId AddStorage(Storage storage);
  size_t FormBytes(ValueId v, DType dtype) const;
  Status LowerNode(const Node& node);
  void PlanOutputs();
  Status FinishOutputs();
  void PlanConcats();
  Status FinishConcat(const Node& node);
  Operand PlacedOperand(ValueId v);
  Result<Operand> AddForm(ValueId v, Layout layout, DType dtype);
  Status DefineForm(ValueId v, Form form);
  const Form* FindForm(ValueId v, Layout layout, DType dtype) const;

  GraphPtr graph_;
  const CompileOptions& options_;
  uint32_t workers_;
  Duration target_block_time_;
  std::vector<Shape> shapes_;             // per value
  std::vector<std::vector<Form>> forms_;  // per value; the first is how it was produced
  std::vector<uint32_t> uses_left_;       // per storage: nodes not lowered yet that read it
  std::vector<uint32_t> value_uses_;      // per value: reading nodes, +1 if a program output
  std::vector<int32_t> output_of_;        // per value: the program output to write into, or -1
  std::vector<bool> output_taken_;        // per output: some value lies in it
  std::vector<StorageId> output_storage_;
  std::vector<Storage> storages_;
  std::vector<KernelSpec> kernels_;
  std::vector<Placement> placements_;      // per value
  std::vector<bool> concat_in_place_;      // per value: output of such a Concat
  std::vector<StorageId> concat_storage_;  // per value: of an outermost such Concat, once there
  uint32_t next_part_ = 1;
  size_t constant_bytes_ = 0;
};

using LoweringRule = Status (*)(LoweringContext&, const Node&);

// One line per operator: rules.cc lists the tables of all families.
struct LoweringEntry {
  std::string_view domain;
  std::string_view op;
  LoweringRule rule;
};
// nullptr: run by the reference.
LoweringRule FindLoweringRule(const Node& node);

// Families; each lives in the file named after it. To add one: its file, and its line in rules.cc.
std::span<const LoweringEntry> ViewRules();       // views.cc: Reshape, Flatten, Squeeze, Identity
std::span<const LoweringEntry> ConvRules();       // conv.cc
std::span<const LoweringEntry> MatMulRules();     // matmul.cc
std::span<const LoweringEntry> PoolRules();       // pool.cc
std::span<const LoweringEntry> QuantizedRules();  // quantized.cc
std::span<const LoweringEntry> KernelRules();     // kernels/kernels.cc: all that is memory-bound

// kernels/transpose.cc: a Transpose that is no view (views.cc decides); kUnimplemented declines.
Status LowerTransposeKernel(LoweringContext& context, const Node& node);

}  // namespace plexus::cpu
