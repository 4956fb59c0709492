// Einsum: any number of operands, repeated labels, an ellipsis, implicit and explicit output.
#include <algorithm>
#include <map>

#include "program/reference/element_io.h"
#include "program/reference/gemm.h"

namespace plexus::reference {
namespace {

// Ellipsis dimensions get labels below 0: -1 is the last one.
struct Equation {
  std::vector<std::vector<int>> operands;  // per operand: a label per axis
  std::vector<int> output;
  std::map<int, int64_t> sizes;
};

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// One term such as "b...ij" for an operand of `rank` axes; rank -1: of the output, whose ellipsis
// stands for `ellipsis` axes.
Result<std::vector<int>> ParseTerm(std::string_view term, int64_t rank, int64_t ellipsis) {
  std::vector<int> labels;
  const int64_t letters = std::count_if(term.begin(), term.end(), IsLetter);
  bool seen = false;
  for (size_t i = 0; i < term.size(); ++i) {
    if (IsLetter(term[i])) {
      labels.push_back(term[i]);
    } else if (!seen && term.substr(i, 3) == "...") {
      seen = true;
      i += 2;
      const int64_t count = rank < 0 ? ellipsis : rank - letters;
      for (int64_t j = count; j > 0; --j) labels.push_back(static_cast<int>(-j));
    } else {
      return InvalidArgumentError("cannot read the term \"" + std::string(term) + "\"");
    }
  }
  if (rank >= 0 && static_cast<int64_t>(labels.size()) != rank) {
    return InvalidArgumentError("the term \"" + std::string(term) + "\" does not fit rank " +
                                std::to_string(rank));
  }
  return labels;
}

Status AddSizes(const std::vector<int>& labels, const Shape& shape, std::map<int, int64_t>* sizes) {
  for (size_t i = 0; i < labels.size(); ++i) {
    auto [it, added] = sizes->emplace(labels[i], shape[i]);
    if (added || it->second == shape[i] || shape[i] == 1) continue;
    if (it->second != 1) {
      return InvalidArgumentError("sizes " + std::to_string(it->second) + " and " +
                                  std::to_string(shape[i]) + " stand under one label");
    }
    it->second = shape[i];
  }
  return OkStatus();
}

Result<Equation> Parse(std::string text, std::span<const Tensor> inputs) {
  std::erase(text, ' ');
  const size_t arrow = text.find("->");
  std::string_view left = std::string_view(text).substr(0, arrow);
  Equation e;
  int64_t ellipsis = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const size_t comma = left.find(',');
    if ((comma == std::string_view::npos) != (i + 1 == inputs.size())) {
      return InvalidArgumentError("the equation \"" + text + "\" does not have " +
                                  std::to_string(inputs.size()) + " terms");
    }
    PLEXUS_ASSIGN_OR_RETURN(auto labels, ParseTerm(left.substr(0, comma), inputs[i].rank(), 0));
    PLEXUS_RETURN_IF_ERROR(AddSizes(labels, inputs[i].shape(), &e.sizes));
    for (int label : labels) ellipsis = std::max<int64_t>(ellipsis, -label);
    e.operands.push_back(std::move(labels));
    if (comma != std::string_view::npos) left.remove_prefix(comma + 1);
  }
  if (arrow != std::string::npos) {
    PLEXUS_ASSIGN_OR_RETURN(e.output,
                            ParseTerm(std::string_view(text).substr(arrow + 2), -1, ellipsis));
    std::vector<int> sorted = e.output;
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
      return InvalidArgumentError("the output of \"" + text + "\" repeats a label");
    }
  } else {
    // Implicit: the ellipsis, then labels that occur once, in alphabetical order.
    for (int64_t j = ellipsis; j > 0; --j) e.output.push_back(static_cast<int>(-j));
    for (const auto& [label, size] : e.sizes) {
      int64_t count = 0;
      for (const auto& labels : e.operands) {
        count += std::count(labels.begin(), labels.end(), label);
      }
      if (label > 0 && count == 1) e.output.push_back(label);
    }
  }
  for (int label : e.output) {
    if (e.sizes.count(label) == 0) {
      return InvalidArgumentError("the output of \"" + text + "\" names an unknown label");
    }
  }
  return e;
}

Shape SizesOf(const Equation& e, const std::vector<int>& labels) {
  Shape shape;
  for (int label : labels) shape.push_back(e.sizes.at(label));
  return shape;
}

// Element strides of an operand over `labels`: 0 where it lacks one or broadcasts, the sum where
// it repeats one (the diagonal).
std::vector<int64_t> StridesOver(const std::vector<int>& own, const Shape& shape,
                                 const std::vector<int>& labels) {
  const std::vector<int64_t> strides = RowMajorStrides(shape);
  std::vector<int64_t> result(labels.size(), 0);
  for (size_t i = 0; i < own.size(); ++i) {
    const auto at = std::find(labels.begin(), labels.end(), own[i]);
    if (at != labels.end() && shape[i] != 1) result[at - labels.begin()] += strides[i];
  }
  return result;
}

bool Has(const std::vector<int>& labels, int label) {
  return std::find(labels.begin(), labels.end(), label) != labels.end();
}

// Two operands as one batched matrix product: labels in both and the output are batch, those
// summed must be in both.
struct AsMatMul {
  std::vector<int> batch, rows, cols, inner;
};
bool MakeMatMul(const Equation& e, std::span<const Tensor> inputs, AsMatMul* m) {
  if (e.operands.size() != 2) return false;
  for (const auto& [label, size] : e.sizes) {
    bool in[2];
    for (int i = 0; i < 2; ++i) {
      const auto& own = e.operands[i];
      in[i] = Has(own, label);
      if (std::count(own.begin(), own.end(), label) > 1) return false;
      if (in[i] &&
          inputs[i].shape()[std::find(own.begin(), own.end(), label) - own.begin()] != size) {
        return false;
      }
    }
    const bool out = Has(e.output, label);
    if (!out && !(in[0] && in[1])) return false;
    (in[0] && in[1] ? (out ? m->batch : m->inner) : in[0] ? m->rows : m->cols).push_back(label);
  }
  return true;
}

std::vector<int> Join(const std::vector<int>& a, const std::vector<int>& b,
                      const std::vector<int>& c) {
  std::vector<int> all = a;
  all.insert(all.end(), b.begin(), b.end());
  all.insert(all.end(), c.begin(), c.end());
  return all;
}

template <typename T>
Status RunMatMul(const Equation& e, const AsMatMul& m, const std::vector<Elements<T>>& x,
                 std::span<const Tensor> inputs, Output<T>* y) {
  auto pack = [&](int i, const std::vector<int>& labels) {
    const Shape shape = SizesOf(e, labels);
    std::vector<T> packed(x[i].size());
    size_t n = 0;
    for (Odometer at(shape, {StridesOver(e.operands[i], inputs[i].shape(), labels)}); !at.done();
         at.Next()) {
      packed[n++] = x[i][at.offset(0)];
    }
    return packed;
  };
  const std::vector<T> a = pack(0, Join(m.batch, m.rows, m.inner));
  const std::vector<T> b = pack(1, Join(m.batch, m.inner, m.cols));
  const int64_t batch = Product(SizesOf(e, m.batch)), rows = Product(SizesOf(e, m.rows));
  const int64_t cols = Product(SizesOf(e, m.cols)), inner = Product(SizesOf(e, m.inner));
  std::vector<T> c(y->size(), T{0});
  for (int64_t i = 0; i < batch; ++i) {
    GemmAdd(rows, cols, inner, a.data() + i * rows * inner, inner, b.data() + i * inner * cols,
            cols, c.data() + i * rows * cols, cols);
  }
  const std::vector<int> labels = Join(m.batch, m.rows, m.cols);
  size_t n = 0;
  for (Odometer at(SizesOf(e, labels), {StridesOver(e.output, SizesOf(e, e.output), labels)});
       !at.done(); at.Next()) {
    (*y)[at.offset(0)] = c[n++];
  }
  return OkStatus();
}

template <typename T>
void RunPlain(const Equation& e, const std::vector<Elements<T>>& x, std::span<const Tensor> inputs,
              Output<T>* y) {
  std::vector<int> labels = e.output;
  for (const auto& [label, size] : e.sizes) {
    if (!Has(labels, label)) labels.push_back(label);
  }
  std::vector<std::vector<int64_t>> strides;
  for (size_t i = 0; i < x.size(); ++i) {
    strides.push_back(StridesOver(e.operands[i], inputs[i].shape(), labels));
  }
  strides.push_back(StridesOver(e.output, SizesOf(e, e.output), labels));
  for (Odometer at(SizesOf(e, labels), strides); !at.done(); at.Next()) {
    T product = x[0][at.offset(0)];
    for (size_t i = 1; i < x.size(); ++i) product *= x[i][at.offset(i)];
    (*y)[at.offset(x.size())] += product;
  }
}

Status Einsum(OpContext& ctx) {
  PLEXUS_RETURN_IF_ERROR(RequireInputs(ctx, std::max<size_t>(1, ctx.num_inputs())));
  const DType dtype = ctx.Input(0).dtype();
  for (const Tensor& t : ctx.inputs) {
    PLEXUS_RETURN_IF_ERROR(CheckSameDType("an operand", ctx.Input(0), t));
  }
  PLEXUS_ASSIGN_OR_RETURN(const Equation e, Parse(ctx.node.StringAttr("equation", ""), ctx.inputs));
  return VisitCompute(ComputeType(dtype), [&](auto zero) -> Status {
    using T = decltype(zero);
    std::vector<Elements<T>> x;
    bool empty = false;
    for (const Tensor& t : ctx.inputs) {
      PLEXUS_ASSIGN_OR_RETURN(auto elements, Elements<T>::Load(t));
      empty = empty || elements.empty();
      x.push_back(std::move(elements));
    }
    PLEXUS_ASSIGN_OR_RETURN(auto y, Output<T>::Make(dtype, SizesOf(e, e.output), true));
    AsMatMul m;
    if (!empty && y.size() > 0) {
      if (MakeMatMul(e, ctx.inputs, &m)) {
        PLEXUS_RETURN_IF_ERROR(RunMatMul(e, m, x, ctx.inputs, &y));
      } else {
        RunPlain(e, x, ctx.inputs, &y);
      }
    }
    return std::move(y).FinishInto(&ctx.outputs[0]);
  });
}

constexpr OpEntry kOps[] = {{"", "Einsum", 12, kLatest, Einsum}};

}  // namespace

std::span<const OpEntry> EinsumOps() { return kOps; }

}  // namespace plexus::reference
