// The tables of pipeline operators, one per file; AddGlue looks them up. Internal to this folder.
#pragma once

#include <span>

#include "pipeline/glue.h"

namespace plexus {

using GlueOutputs = Result<std::vector<GlueOutput>>;

struct GlueRow {
  std::string_view name;
  GlueOutputs (*add)(GlueContext&);
  size_t inputs = 1;      // at least
  size_t max_inputs = 0;  // 0: exactly `inputs`
};
inline constexpr size_t kAnyNumber = SIZE_MAX;

// Images and the text on them.
std::span<const GlueRow> ImageGlue();
// Constants, arithmetic, comparisons, and choosing elements.
std::span<const GlueRow> ValueGlue();

// A tensor whose elements all are `value` as written; at most 2^20 of them.
Result<Tensor> FilledTensor(DType dtype, const Shape& shape, const std::string& value);

// What operators share. A failed expectation makes AddGlue fail, whatever the operator returns.
inline GlueOutputs One(ValueId value) { return std::vector<GlueOutput>{{"", value}}; }
bool Expect(GlueContext& c, bool condition, const std::string& what);
bool ExpectType(GlueContext& c, DType dtype, size_t input = 0);

// The lines of the text file that option `labels` names: a file beside the pipeline, at most
// 16 MiB. Empty, with an expectation failed, if it is not there.
std::vector<std::string> ReadLabels(GlueContext& c);

}  // namespace plexus
