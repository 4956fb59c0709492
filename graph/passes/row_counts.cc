// Numbers computed from shapes: Shape and the integer arithmetic on it, for several numbers of rows
// at once.
#include <algorithm>

#include "graph/passes/row_rules.h"

namespace plexus::row_rules {
namespace {

constexpr size_t kMaxEntries = 64;
using List = std::vector<int64_t>;

// One number of rows: the node on plain lists. False when it cannot be followed.
struct Arguments {
  const Node& node;
  const std::vector<const RowValue*>& in;
  size_t at;  // index into kRowCounts
  const List* Get(size_t i) const {
    return i < in.size() && in[i] && in[i]->counts ? &(*in[i]->counts)[at] : nullptr;
  }
};

bool Binary(const Arguments& args, int64_t (*fn)(int64_t, int64_t), List& out) {
  const List *a = args.Get(0), *b = args.Get(1);
  if (!a || !b || args.in.size() != 2) return false;
  if (a->size() != b->size() && a->size() != 1 && b->size() != 1) return false;
  if (a->empty() || b->empty()) return true;
  for (size_t i = 0; i < std::max(a->size(), b->size()); ++i) {
    out.push_back(fn((*a)[a->size() == 1 ? 0 : i], (*b)[b->size() == 1 ? 0 : i]));
  }
  return true;
}

int64_t Add(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
int64_t Sub(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
int64_t Mul(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
// Division by zero never yields a usable number.
int64_t Div(int64_t a, int64_t b) { return b == 0 ? -1 : b == -1 ? Sub(0, a) : a / b; }
int64_t Equal(int64_t a, int64_t b) { return a == b; }

bool Gather(const Arguments& args, List& out) {
  const List *data = args.Get(0), *indices = args.Get(1);
  if (!data || !indices || args.in[0]->rank() != 1) return false;
  for (int64_t index : *indices) {
    if (index < 0) index += static_cast<int64_t>(data->size());
    if (index < 0 || index >= static_cast<int64_t>(data->size())) return false;
    out.push_back((*data)[index]);
  }
  return true;
}

bool Slice(const Arguments& args, List& out) {
  const List *data = args.Get(0), *start = args.Get(1), *end = args.Get(2), *step = args.Get(4);
  if (!data || !start || !end || args.in[0]->rank() != 1 || start->size() != 1) return false;
  if (args.in.size() > 4 && args.in[4] && (!step || step->size() != 1 || (*step)[0] != 1)) {
    return false;
  }
  const int64_t size = static_cast<int64_t>(data->size());
  int64_t from = (*start)[0] < 0 ? (*start)[0] + size : (*start)[0];
  int64_t to = (*end)[0] < 0 ? (*end)[0] + size : (*end)[0];
  from = std::clamp<int64_t>(from, 0, size);
  to = std::clamp<int64_t>(to, from, size);
  out.assign(data->begin() + from, data->begin() + to);
  return true;
}

bool Concat(const Arguments& args, List& out) {
  for (size_t i = 0; i < args.in.size(); ++i) {
    const List* part = args.Get(i);
    if (!part || args.in[i]->rank() != 1) return false;
    out.insert(out.end(), part->begin(), part->end());
  }
  return true;
}

bool Where(const Arguments& args, List& out) {
  const List *c = args.Get(0), *a = args.Get(1), *b = args.Get(2);
  if (!c || !a || !b || a->size() != b->size() || c->size() != a->size()) return false;
  for (size_t i = 0; i < c->size(); ++i) out.push_back((*c)[i] ? (*a)[i] : (*b)[i]);
  return true;
}

bool ConstantOfShape(const Arguments& args, List& out) {
  const List* shape = args.Get(0);
  const Tensor* value = args.node.TensorAttr("value");
  if (!shape || shape->size() != 1 || !value || !IsInteger(value->dtype())) return false;
  const Result<List> fill = ToInt64Vector(*value);
  const bool small = (*shape)[0] >= 0 && (*shape)[0] <= static_cast<int64_t>(kMaxEntries);
  if (!fill.ok() || fill->size() != 1 || !small) return false;
  out.assign(static_cast<size_t>((*shape)[0]), (*fill)[0]);
  return true;
}

bool Evaluate(const Arguments& args, List& out) {
  const std::string& op = args.node.op;
  if (op == "Gather") return Gather(args, out);
  if (op == "Slice") return Slice(args, out);
  if (op == "Concat") return Concat(args, out);
  if (op == "Add") return Binary(args, Add, out);
  if (op == "Sub") return Binary(args, Sub, out);
  if (op == "Mul") return Binary(args, Mul, out);
  if (op == "Div") return Binary(args, Div, out);
  if (op == "Equal") return Binary(args, Equal, out);
  if (op == "Where") return Where(args, out);
  if (op == "ConstantOfShape") return ConstantOfShape(args, out);
  const bool keeps =
      op == "Identity" || op == "Squeeze" || op == "Unsqueeze" || op == "Cast" || op == "Reshape";
  if (!keeps || !args.Get(0)) return false;
  out = *args.Get(0);
  return true;
}

bool FollowShape(const Node& node, const RowValue& x, RowValue& out) {
  if (!x.known.shape) return false;
  Counts counts;
  for (size_t n = 0; n < kRowCounts.size(); ++n) {
    Shape shape = x.shape();
    if (x.HasRows()) shape[x.axis] *= kRowCounts[n];
    const int64_t rank = x.rank();
    if (node.op == "Size") {
      counts[n] = {NumElementsUnchecked(shape)};
      continue;
    }
    int64_t start = node.IntAttr("start", 0), end = node.IntAttr("end", rank);
    if (start < 0) start += rank;
    if (end < 0) end += rank;
    start = std::clamp<int64_t>(start, 0, rank);
    end = std::clamp<int64_t>(end, start, rank);
    counts[n].assign(shape.begin() + start, shape.begin() + end);
  }
  out.counts = std::move(counts);
  return true;
}

Tensor ToTensor(const List& values, DType dtype, const Shape& shape) {
  if (dtype == DType::kInt32) {
    return Tensor::Of<int32_t>(dtype, shape, {values.begin(), values.end()});
  }
  if (dtype == DType::kBool) {
    return Tensor::Of<uint8_t>(dtype, shape, {values.begin(), values.end()});
  }
  return Tensor::Of<int64_t>(DType::kInt64, shape, values);
}

}  // namespace

bool FollowCounts(const Node& node, const std::vector<const RowValue*>& in,
                  std::vector<RowValue>& out) {
  if (!node.domain.empty() || out.size() != 1 || in.empty() || !in[0]) return false;
  RowValue& result = out[0];
  if (node.op == "Shape" || node.op == "Size") {
    if (!FollowShape(node, *in[0], result)) return false;
  } else {
    const DType dtype = result.known.dtype;
    if (dtype != DType::kInt64 && dtype != DType::kInt32 && dtype != DType::kBool) return false;
    const bool rows = std::any_of(in.begin(), in.end(),
                                  [](const RowValue* v) { return v != nullptr && v->HasRows(); });
    if (rows) return false;
    Counts counts;
    for (size_t n = 0; n < kRowCounts.size(); ++n) {
      if (!Evaluate({node, in, n}, counts[n]) || counts[n].size() > kMaxEntries) return false;
    }
    result.counts = std::move(counts);
  }
  const Counts& counts = *result.counts;
  // How many numbers there are must not depend on the rows, and must fit what the rules inferred.
  const auto size = static_cast<int64_t>(counts[0].size());
  const bool fits = counts[1].size() == counts[0].size() && counts[2].size() == counts[0].size() &&
                    result.known.shape && NumElementsUnchecked(*result.known.shape) == size;
  if (!fits) {
    result.counts.reset();
    return false;
  }
  result.varies = counts[0] != counts[1] || counts[0] != counts[2];
  result.known.contents = ToTensor(counts[0], result.known.dtype, *result.known.shape);
  return true;
}

}  // namespace plexus::row_rules
