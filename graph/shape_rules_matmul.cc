// Products: MatMul and its quantised forms, Gemm, Einsum, Det.
#include <algorithm>

#include "graph/shape_rules.h"

namespace plexus::shape_rules {
namespace {

Status MatMulOf(RuleContext& c, size_t a, size_t b, DType dtype) {
  c.Type(0, dtype);
  if (!c.ShapeOf(a) || !c.ShapeOf(b)) return OkStatus();
  PLEXUS_ASSIGN_OR_RETURN(Shape out, MatMulShape(*c.ShapeOf(a), *c.ShapeOf(b)));
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status MatMul(RuleContext& c) { return MatMulOf(c, 0, 1, c.TypeOf(0)); }
Status MatMulInteger(RuleContext& c) { return MatMulOf(c, 0, 1, DType::kInt32); }
Status QLinearMatMul(RuleContext& c) { return MatMulOf(c, 0, 3, c.TypeOf(7)); }

Status Gemm(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape *a = c.ShapeOf(0), *b = c.ShapeOf(1);
  if (!a || !b) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2, 2));
  PLEXUS_RETURN_IF_ERROR(c.WantRank(1, 2, 2));
  const bool ta = c.node().IntAttr("transA", 0) != 0, tb = c.node().IntAttr("transB", 0) != 0;
  if ((*a)[ta ? 0 : 1] != (*b)[tb ? 1 : 0]) return c.Error("the inner dimensions differ");
  Shape out = {(*a)[ta ? 1 : 0], (*b)[tb ? 0 : 1]};
  if (const Shape* bias = c.ShapeOf(2)) {
    PLEXUS_ASSIGN_OR_RETURN(const Shape with_bias, BroadcastShapes(out, *bias));
    if (with_bias != out) return c.Error("C does not broadcast to the product");
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

// One term's letters; "..." becomes as many upper-case stand-ins ('\x01'...) as it spans.
struct Term {
  std::string letters;
  bool has_ellipsis = false;
  size_t ellipsis_at = 0;
};

Result<Term> ParseTerm(std::string_view text) {
  Term term;
  for (size_t i = 0; i < text.size(); ++i) {
    const char ch = text[i];
    if (ch == ' ') continue;
    if (text.substr(i, 3) == "...") {
      if (term.has_ellipsis) return InvalidArgumentError("two ellipses in one term");
      term.has_ellipsis = true;
      term.ellipsis_at = term.letters.size();
      i += 2;
      continue;
    }
    const bool letter = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
    if (!letter) return InvalidArgumentError("bad character in the equation");
    term.letters += ch;
  }
  return term;
}

struct LetterSize {
  char letter;
  int64_t size;
};

Status Bind(std::vector<LetterSize>& sizes, char letter, int64_t size) {
  for (LetterSize& known : sizes) {
    if (known.letter != letter) continue;
    if (known.size == 1) known.size = size;
    if (size != 1 && known.size != size) {
      return InvalidArgumentError(std::string("index '") + letter + "' has two sizes");
    }
    return OkStatus();
  }
  sizes.push_back({letter, size});
  return OkStatus();
}

Status Einsum(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  std::string equation = c.node().StringAttr("equation", "");
  const size_t arrow = equation.find("->");
  const std::string lhs = equation.substr(0, arrow);
  std::vector<LetterSize> sizes;
  Shape ellipsis;
  std::string seen;  // for the implicit output
  size_t begin = 0, input = 0;
  for (;; ++input) {
    const size_t comma = lhs.find(',', begin);
    PLEXUS_ASSIGN_OR_RETURN(const Term term, ParseTerm(lhs.substr(begin, comma - begin)));
    if (!c.Has(input)) return c.Error("the equation has more terms than there are inputs");
    const Shape* shape = c.ShapeOf(input);
    if (!shape) return OkStatus();
    const size_t named = term.letters.size();
    if (shape->size() < named || (!term.has_ellipsis && shape->size() != named)) {
      return c.Error("term " + std::to_string(input) + " does not match its input's rank");
    }
    const size_t span = shape->size() - named;
    if (term.has_ellipsis) {
      const Shape part(shape->begin() + term.ellipsis_at, shape->begin() + term.ellipsis_at + span);
      PLEXUS_ASSIGN_OR_RETURN(ellipsis, BroadcastShapes(ellipsis, part));
    }
    for (size_t i = 0; i < named; ++i) {
      const size_t at = term.has_ellipsis && i >= term.ellipsis_at ? i + span : i;
      PLEXUS_RETURN_IF_ERROR(Bind(sizes, term.letters[i], (*shape)[at]));
    }
    seen += term.letters;
    if (comma == std::string::npos) break;
    begin = comma + 1;
  }
  if (input + 1 != c.num_inputs()) return c.Error("the equation has too few terms");
  Term out_term;
  if (arrow != std::string::npos) {
    PLEXUS_ASSIGN_OR_RETURN(out_term, ParseTerm(std::string_view(equation).substr(arrow + 2)));
  } else {
    std::sort(seen.begin(), seen.end());
    for (char letter : seen) {
      if (std::count(seen.begin(), seen.end(), letter) == 1) out_term.letters += letter;
    }
    out_term.has_ellipsis = !ellipsis.empty();
  }
  Shape out;
  for (size_t i = 0; i <= out_term.letters.size(); ++i) {
    if (out_term.has_ellipsis && i == out_term.ellipsis_at) {
      out.insert(out.end(), ellipsis.begin(), ellipsis.end());
    }
    if (i == out_term.letters.size()) break;
    const auto it = std::find_if(sizes.begin(), sizes.end(), [&](const LetterSize& s) {
      return s.letter == out_term.letters[i];
    });
    if (it == sizes.end()) return c.Error("the output names an index that no input has");
    out.push_back(it->size);
  }
  c.SetShape(0, std::move(out));
  return OkStatus();
}

Status Det(RuleContext& c) {
  c.Type(0, c.TypeOf(0));
  const Shape* x = c.ShapeOf(0);
  if (!x) return OkStatus();
  PLEXUS_RETURN_IF_ERROR(c.WantRank(0, 2));
  if ((*x)[x->size() - 1] != (*x)[x->size() - 2]) return c.Error("the matrices are not square");
  c.SetShape(0, Shape(x->begin(), x->end() - 2));
  return OkStatus();
}

constexpr RuleEntry kRules[] = {
    {"MatMul", MatMul},
    {"MatMulInteger", MatMulInteger},
    {"QLinearMatMul", QLinearMatMul},
    {"Gemm", Gemm},
    {"Einsum", Einsum},
    {"Det", Det},
};

}  // namespace

Result<Shape> MatMulShape(Shape a, Shape b) {
  if (a.empty() || b.empty()) return InvalidArgumentError("a scalar cannot be multiplied");
  const bool vector_a = a.size() == 1, vector_b = b.size() == 1;
  if (vector_a) a.insert(a.begin(), 1);
  if (vector_b) b.push_back(1);
  const int64_t m = a[a.size() - 2], n = b.back();
  if (a.back() != b[b.size() - 2]) {
    return InvalidArgumentError("the inner dimensions differ: " + ShapeToString(a) + " times " +
                                ShapeToString(b));
  }
  PLEXUS_ASSIGN_OR_RETURN(
      Shape out, BroadcastShapes(Shape(a.begin(), a.end() - 2), Shape(b.begin(), b.end() - 2)));
  if (!vector_a) out.push_back(m);
  if (!vector_b) out.push_back(n);
  return out;
}

std::span<const RuleEntry> MatMulRules() { return kRules; }

}  // namespace plexus::shape_rules
