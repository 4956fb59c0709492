// StringConcat, StringSplit, StringNormalizer, TfIdfVectorizer.
#include <algorithm>
#include <map>
#include <set>

#include "program/reference/element_io.h"

namespace plexus::reference {
namespace {

Status RequireStrings(const OpContext& ctx, size_t count) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, count));
  for (size_t i = 0; i < count; ++i) {
    if (ctx.Input(i).dtype() != DType::kString) {
      return InvalidArgumentError("input " + std::to_string(i) + " must hold strings");
    }
  }
  return OkStatus();
}

std::vector<std::string> StringsAttr(const Node& node, const char* name) {
  const auto it = node.attributes.find(name);
  if (it == node.attributes.end()) return {};
  const auto* strings = std::get_if<std::vector<std::string>>(&it->second);
  return strings ? *strings : std::vector<std::string>();
}

Status StringConcat(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireStrings(ctx, 2));
  const Tensor& a = ctx.Input(0);
  const Tensor& b = ctx.Input(1);
  PLEXUS_ASSIGN_OR_RETURN(const Shape shape, BroadcastShapes(a.shape(), b.shape()));
  PLEXUS_ASSIGN_OR_RETURN(Tensor out, NewTensor(DType::kString, shape));
  int64_t i = 0;
  for (Odometer at(shape, {BroadcastStrides(a.shape(), shape), BroadcastStrides(b.shape(), shape)});
       !at.done(); at.Next(), ++i) {
    out.AssignString(i, a.strings()[at.offset(0)] + b.strings()[at.offset(1)]);
  }
  ctx.outputs[0] = std::move(out);
  return OkStatus();
}

constexpr std::string_view kSpace = " \t\n\r\f\v";

// At most `limit` cuts; an empty delimiter cuts at runs of white space.
std::vector<std::string> SplitText(std::string_view text, const std::string& delimiter,
                                   int64_t limit) {
  std::vector<std::string> parts;
  const bool space = delimiter.empty();
  for (;;) {
    if (space) {
      const size_t first = text.find_first_not_of(kSpace);
      if (first == std::string_view::npos) return parts;
      text.remove_prefix(first);
    }
    const size_t cut = static_cast<int64_t>(parts.size()) >= limit ? std::string_view::npos
                       : space                                     ? text.find_first_of(kSpace)
                                                                   : text.find(delimiter);
    parts.emplace_back(text.substr(0, cut));
    if (cut == std::string_view::npos) return parts;
    text.remove_prefix(cut + (space ? 1 : delimiter.size()));
  }
}

// Outputs: the parts [..., most parts], padded with empty strings, and their counts [...].
Status StringSplit(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireStrings(ctx, 1));
  const Tensor& x = ctx.Input(0);
  const std::string delimiter = ctx.node.StringAttr("delimiter", "");
  const int64_t limit = ctx.node.IntAttr("maxsplit", int64_t{1} << 62);
  if (limit < 0) return InvalidArgumentError("maxsplit must not be negative");
  std::vector<std::vector<std::string>> parts;
  size_t most = 0;
  for (const std::string& text : x.strings()) {
    parts.push_back(SplitText(text, delimiter, limit));
    most = std::max(most, parts.back().size());
  }
  Shape shape = x.shape();
  shape.push_back(static_cast<int64_t>(most));
  PLEXUS_ASSIGN_OR_RETURN(Tensor y, NewTensor(DType::kString, shape));
  PLEXUS_ASSIGN_OR_RETURN(Tensor counts, NewTensor(DType::kInt64, x.shape()));
  for (size_t i = 0; i < parts.size(); ++i) {
    counts.mutable_data<int64_t>()[i] = static_cast<int64_t>(parts[i].size());
    std::move(parts[i].begin(), parts[i].end(), y.mutable_strings().begin() + i * most);
  }
  ctx.outputs[0] = std::move(y);
  if (ctx.WantsOutput(1)) ctx.outputs[1] = std::move(counts);
  return OkStatus();
}

// ASCII letters only; other bytes of UTF-8 pass through.
std::string ChangeCase(std::string text, bool upper) {
  for (char& c : text) {
    if (upper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!upper && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// x: [C] or [1, C]; drops stop words, then changes case. Nothing left gives one empty string.
Status StringNormalizer(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireStrings(ctx, 1));
  const Tensor& x = ctx.Input(0);
  if (x.rank() != 1 && !(x.rank() == 2 && x.shape()[0] == 1)) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " must be [C] or [1,C]");
  }
  const bool sensitive = ctx.node.IntAttr("is_case_sensitive", 0) != 0;
  const std::string action = ctx.node.StringAttr("case_change_action", "NONE");
  if (action != "NONE" && action != "LOWER" && action != "UPPER") {
    return InvalidArgumentError("case_change_action \"" + action + "\" is unknown");
  }
  std::set<std::string> stop;
  for (const std::string& word : StringsAttr(ctx.node, "stopwords")) {
    stop.insert(sensitive ? word : ChangeCase(word, false));
  }
  std::vector<std::string> kept;
  for (const std::string& word : x.strings()) {
    if (stop.count(sensitive ? word : ChangeCase(word, false)) > 0) continue;
    kept.push_back(action == "NONE" ? word : ChangeCase(word, action == "UPPER"));
  }
  if (kept.empty()) kept.emplace_back();
  Shape shape(x.rank(), 1);
  shape.back() = static_cast<int64_t>(kept.size());
  ctx.outputs[0] = Tensor::FromStrings(shape, std::move(kept));
  return OkStatus();
}

using Gram = std::vector<std::string>;

// The pool of known n-grams: pool_strings or pool_int64s, cut by ngram_counts into 1-grams,
// 2-grams and so on; ngram_indexes gives each one's output column.
struct GramPool {
  std::map<Gram, size_t> grams;  // → position
  std::vector<int64_t> columns;
  int64_t width = 0;
};

Result<GramPool> ReadPool(const Node& node) {
  GramPool pool;
  std::vector<std::string> tokens = StringsAttr(node, "pool_strings");
  for (int64_t v : node.IntsAttr("pool_int64s")) tokens.push_back(std::to_string(v));
  const std::vector<int64_t> counts = node.IntsAttr("ngram_counts");
  pool.columns = node.IntsAttr("ngram_indexes");
  const int64_t size = static_cast<int64_t>(tokens.size());
  for (size_t n = 1; n <= counts.size(); ++n) {
    const int64_t begin = counts[n - 1];
    const int64_t end = n < counts.size() ? counts[n] : size;
    if (begin < 0 || begin > end || end > size || (end - begin) % static_cast<int64_t>(n) != 0) {
      return InvalidArgumentError("ngram_counts do not cut the pool into n-grams");
    }
    for (int64_t i = begin; i < end; i += static_cast<int64_t>(n)) {
      const Gram gram(tokens.begin() + i, tokens.begin() + i + static_cast<int64_t>(n));
      pool.grams.emplace(gram, pool.grams.size());
    }
  }
  if (pool.columns.size() != pool.grams.size()) {
    return InvalidArgumentError("ngram_indexes has " + std::to_string(pool.columns.size()) +
                                " values for " + std::to_string(pool.grams.size()) + " n-grams");
  }
  for (int64_t column : pool.columns) {
    PLEXUS_RETURN_IF_ERROR(CheckRange("ngram_indexes", column, 0, int64_t{1} << 31));
    pool.width = std::max(pool.width, column + 1);
  }
  return pool;
}

// x: [C] or [N, C] of strings or integers → f32 [width] or [N, width].
Status TfIdfVectorizer(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, 1));
  const Node& node = ctx.node;
  const Tensor& x = ctx.Input(0);
  if (x.rank() != 1 && x.rank() != 2) {
    return InvalidArgumentError("input " + ShapeToString(x.shape()) + " must have rank 1 or 2");
  }
  PLEXUS_ASSIGN_OR_RETURN(const GramPool pool, ReadPool(node));
  const int64_t longest = node.IntAttr("max_gram_length", 1);
  const int64_t shortest = node.IntAttr("min_gram_length", 1);
  const int64_t max_skip = node.IntAttr("max_skip_count", 0);
  PLEXUS_RETURN_IF_ERROR(CheckRange("max_gram_length", longest, 1, 1024));
  PLEXUS_RETURN_IF_ERROR(CheckRange("min_gram_length", shortest, 1, longest));
  PLEXUS_RETURN_IF_ERROR(CheckRange("max_skip_count", max_skip, 0, int64_t{1} << 31));
  const std::string mode = node.StringAttr("mode", "TF");
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF") {
    return InvalidArgumentError("mode \"" + mode + "\" is unknown");
  }
  const std::vector<float> weights = node.FloatsAttr("weights");
  if (!weights.empty() && weights.size() != pool.columns.size()) {
    return InvalidArgumentError("weights must have one value per n-gram");
  }
  PLEXUS_ASSIGN_OR_RETURN(const Tensor text, ConvertTensor(x, DType::kString));
  const int64_t rows = x.rank() == 2 ? x.shape()[0] : 1;
  const int64_t length = x.shape().back();
  const Shape shape = x.rank() == 2 ? Shape{rows, pool.width} : Shape{pool.width};
  PLEXUS_ASSIGN_OR_RETURN(auto y, Output<float>::Make(DType::kFloat32, shape, true));
  std::vector<int64_t> counts(pool.columns.size());
  Gram gram;
  for (int64_t row = 0; row < rows; ++row) {
    std::fill(counts.begin(), counts.end(), 0);
    const std::string* tokens = text.strings().data() + row * length;
    for (int64_t n = shortest; n <= longest; ++n) {
      // A single token has no gaps: it counts once, whatever the skip.
      const int64_t gaps = n == 1 ? 1 : std::min(max_skip + 1, length);
      for (int64_t gap = 1; gap <= gaps; ++gap) {
        for (int64_t i = 0; i + (n - 1) * gap < length; ++i) {
          gram.clear();
          for (int64_t k = 0; k < n; ++k) gram.push_back(tokens[i + k * gap]);
          const auto found = pool.grams.find(gram);
          if (found != pool.grams.end()) ++counts[found->second];
        }
      }
    }
    for (size_t g = 0; g < counts.size(); ++g) {
      const float weight = weights.empty() || mode == "TF" ? 1.0f : weights[g];
      const float count =
          mode == "IDF" ? (counts[g] > 0 ? 1.0f : 0.0f) : static_cast<float>(counts[g]);
      y[row * pool.width + pool.columns[g]] += count * weight;
    }
  }
  return std::move(y).FinishInto(&ctx.outputs[0]);
}

constexpr OpEntry kOps[] = {
    {"", "StringConcat", 20, kLatest, StringConcat},
    {"", "StringNormalizer", 10, kLatest, StringNormalizer},
    {"", "StringSplit", 20, kLatest, StringSplit},
    {"", "TfIdfVectorizer", 9, kLatest, TfIdfVectorizer},
};

}  // namespace

std::span<const OpEntry> StringOps() { return kOps; }

}  // namespace plexus::reference
