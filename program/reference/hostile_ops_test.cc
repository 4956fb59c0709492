// Every operator on inputs that make no sense: it must answer with a Status, and the sanitizer
// builds must stay silent. Seeded; a failure prints the operator and the seed.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "program/reference/kernels_util.h"
#include "program/reference/reference.h"

namespace plexus {
namespace {

constexpr uint32_t kSeed = 20240607;
constexpr int kTriesPerOperator = 150;

using Rng = std::mt19937;

int64_t Pick(Rng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng() % static_cast<uint64_t>(high - low + 1));
}

// Mostly small numbers, as axes, sizes and indices are; at times an extreme one.
int64_t AnyInt(Rng& rng) {
  if (Pick(rng, 0, 19) == 0) {
    return Pick(rng, 0, 1) != 0 ? std::numeric_limits<int64_t>::max()
                                : std::numeric_limits<int64_t>::min();
  }
  return Pick(rng, -3, 6);
}

float AnyFloat(Rng& rng) {
  const int64_t kind = Pick(rng, 0, 19);
  if (kind == 0) return std::numeric_limits<float>::quiet_NaN();
  if (kind == 1) return std::numeric_limits<float>::infinity();
  if (kind == 2) return -3e38f;
  return static_cast<float>(Pick(rng, -40, 40)) / 8;
}

Tensor AnyTensor(Rng& rng) {
  constexpr DType kTypes[] = {DType::kFloat32, DType::kFloat32, DType::kFloat32, DType::kInt64,
                              DType::kInt64,   DType::kInt64,   DType::kInt32,   DType::kBool,
                              DType::kUint8,   DType::kInt8,    DType::kFloat16, DType::kFloat64,
                              DType::kString,  DType::kUint64,  DType::kInt4,    DType::kBFloat16};
  Shape shape(Pick(rng, 0, 4));
  for (int64_t& d : shape) d = Pick(rng, 0, 11) == 0 ? 0 : Pick(rng, 1, 4);
  const DType dtype = kTypes[rng() % std::size(kTypes)];
  const int64_t count = NumElementsUnchecked(shape);
  if (dtype == DType::kString)
    return Tensor::FromStrings(shape, std::vector<std::string>(count, "a1"));
  if (IsFloatingPoint(dtype)) {
    Tensor t = Tensor::Allocate(DType::kFloat32, shape).value();
    for (float& v : t.mutable_data<float>()) v = AnyFloat(rng);
    return reference::ConvertTensor(t, dtype).value();
  }
  Tensor t = Tensor::Allocate(DType::kInt64, shape).value();
  // A long list taken for a shape would ask for gigabytes, which is legal but slow.
  for (int64_t& v : t.mutable_data<int64_t>()) v = count > 8 ? Pick(rng, -3, 1) : AnyInt(rng);
  return reference::ConvertTensor(t, dtype).value();
}

Attribute AnyAttribute(Rng& rng) {
  switch (Pick(rng, 0, 5)) {
    case 0:
      return AnyFloat(rng);
    case 1:
      return std::string("reflect");
    case 2: {
      std::vector<int64_t> values(Pick(rng, 0, 4));
      for (int64_t& v : values) v = AnyInt(rng);
      return values;
    }
    case 3:
      return AnyTensor(rng);
    default:
      return AnyInt(rng);
  }
}

// Attribute names that many operators read.
constexpr const char* kAttributes[] = {"axis",
                                       "axes",
                                       "perm",
                                       "pads",
                                       "strides",
                                       "dilations",
                                       "kernel_shape",
                                       "group",
                                       "blocksize",
                                       "k",
                                       "to",
                                       "keepdims",
                                       "block_size",
                                       "num_heads",
                                       "hidden_size",
                                       "q_num_heads",
                                       "kv_num_heads",
                                       "output_shape",
                                       "size",
                                       "step",
                                       "batch_dims",
                                       "num_outputs",
                                       "exclusive",
                                       "reverse",
                                       "dtype",
                                       "shape",
                                       "ceil_mode",
                                       "largest",
                                       "sorted",
                                       "select_last_index",
                                       "alpha",
                                       "beta",
                                       "epsilon",
                                       "num_groups",
                                       "p",
                                       "storage_order",
                                       "value",
                                       "allowzero",
                                       "start",
                                       "end",
                                       "stash_type",
                                       "offset_group",
                                       "output_padding",
                                       "num_scan_inputs",
                                       "batch_axis",
                                       "time_axis",
                                       "interleaved"};

TEST(HostileOpsTest, EveryOperatorAnswersWithAStatusWhateverItIsGiven) {
  int accepted = 0;
  for (const OpEntry& entry : AllOps()) {
    for (int attempt = 0; attempt < kTriesPerOperator; ++attempt) {
      const uint32_t seed = kSeed + attempt;
      SCOPED_TRACE(std::string(entry.op) + " seed " + std::to_string(seed));
      Rng rng(seed);
      Node node;
      node.op = entry.op;
      node.domain = entry.domain;
      node.version = std::min(entry.until - 1, std::max(entry.since, 27));
      node.name = "hostile";
      std::vector<Tensor> inputs;
      const int64_t count = Pick(rng, 0, 6);
      const Tensor first = AnyTensor(rng);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t kind = Pick(rng, 0, 9);
        // Equal inputs let more operators get past their first checks.
        inputs.push_back(kind == 0 ? Tensor() : kind < 4 ? first : AnyTensor(rng));
        node.inputs.push_back(ValueId(static_cast<uint32_t>(i)));
      }
      const int64_t outputs = Pick(rng, 1, 3);
      for (int64_t i = 0; i < outputs; ++i) node.outputs.push_back(ValueId(100 + i));
      for (int64_t i = Pick(rng, 0, 3); i > 0; --i) {
        node.attributes[kAttributes[rng() % std::size(kAttributes)]] = AnyAttribute(rng);
      }
      const auto result = ReferenceEvaluator::Get().Evaluate(Graph(), node, inputs, {});
      if (result.ok()) {
        ++accepted;
        EXPECT_EQ(result->size(), node.outputs.size());
      } else {
        EXPECT_NE(result.status().code(), StatusCode::kInternal) << result.status().ToString();
      }
    }
  }
  // The inputs are not so wild that nothing runs.
  EXPECT_GT(accepted, 500);
}

}  // namespace
}  // namespace plexus
