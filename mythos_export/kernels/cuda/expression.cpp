#include "cuda/expression.h"

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace mythos::cuda {

// Recursive descent: comparison, then sums, then products, then what stands alone.
class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Expression::Node whole() {
    Node node = comparison();
    if (at_ != text_.size()) fail();
    return node;
  }

 private:
  using Node = Expression::Node;
  using Kind = Expression::Kind;

  [[noreturn]] void fail() const {
    throw std::invalid_argument("'" + text_ + "' is no expression: expected integers, names, + - * //, comparisons, "
                                "cdiv, min and max, at character " + std::to_string(at_));
  }
  void held_to_depth(int depth) const {
    if (depth > Expression::kMostDeep)
      throw std::invalid_argument("'" + text_.substr(0, 80) + "' ... is nested deeper than " +
                                  std::to_string(Expression::kMostDeep));
  }
  bool take(const char* token) {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    const std::string wanted(token);
    if (text_.compare(at_, wanted.size(), wanted) != 0) return false;
    at_ += wanted.size();
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    return true;
  }
  Node over(Kind kind, std::vector<Node> of) const {
    int depth = 0;
    for (const Node& one : of) depth = std::max(depth, one.depth + 1);
    held_to_depth(depth);
    return {kind, 0, {}, std::move(of), depth};
  }
  Node both(Kind kind, Node a, Node b) const {
    std::vector<Node> of;
    of.push_back(std::move(a));
    of.push_back(std::move(b));
    return over(kind, std::move(of));
  }
  Node inside() {  // of parentheses
    held_to_depth(++nested_);
    Node node = comparison();
    --nested_;
    return node;
  }

  Node comparison() {
    Node left = sum();
    for (const auto& [token, kind] : {std::pair{"<=", Kind::le}, {">=", Kind::ge}, {"==", Kind::eq}, {"<", Kind::lt},
                                      {">", Kind::gt}})
      if (take(token)) return both(kind, std::move(left), sum());
    return left;
  }
  Node sum() {
    Node left = product();
    for (;;) {
      if (take("+")) left = both(Kind::add, std::move(left), product());
      else if (take("-")) left = both(Kind::sub, std::move(left), product());
      else return left;
    }
  }
  Node product() {
    Node left = atom();
    for (;;) {
      if (take("//")) left = both(Kind::div, std::move(left), atom());
      else if (take("*")) left = both(Kind::mul, std::move(left), atom());
      else return left;
    }
  }
  Node atom() {
    if (take("(")) {
      Node node = inside();
      if (!take(")")) fail();
      return node;
    }
    const size_t start = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) ++at_;
    const std::string word = text_.substr(start, at_ - start);
    if (word.empty()) fail();
    if (std::isdigit(static_cast<unsigned char>(word[0]))) {
      if (word.size() > 18 || word.find_first_not_of("0123456789") != std::string::npos) fail();
      return {Kind::integer, std::stoll(word), {}, {}, 0};
    }
    if (!take("(")) return {Kind::name, 0, word, {}, 0};
    const auto kind = word == "cdiv" ? Kind::cdiv : word == "min" ? Kind::min : word == "max" ? Kind::max : Kind::name;
    if (kind == Kind::name) fail();
    std::vector<Node> of;
    do of.push_back(inside());
    while (take(","));
    if (!take(")") || of.size() < 2 || (kind == Kind::cdiv && of.size() != 2)) fail();
    return over(kind, std::move(of));
  }

  const std::string& text_;
  size_t at_ = 0;
  int nested_ = 0;
};

namespace {

// Whether the quotient, rounded down or up, overflows, as __builtin_*_overflow say it. The processor would end the
// process over the smallest integer by -1, the one quotient that does not fit.
bool div_overflow(std::int64_t a, std::int64_t b, bool up, std::int64_t* quotient) {
  if (b == 0) throw std::invalid_argument("division by 0");
  if (b == -1) return __builtin_sub_overflow(std::int64_t{0}, a, quotient);
  const bool negative = (a < 0) != (b < 0);
  *quotient = a / b;  // towards 0
  if (a % b != 0 && negative != up) *quotient += up ? 1 : -1;
  return false;
}

}  // namespace

Expression::Expression(const std::string& text) : text_(text), root_(Parser(text).whole()) {}

Value Expression::value(const Names& names) const { return value(root_, names); }

std::int64_t Expression::integer(const Names& names) const {
  const Value found = value(names);
  if (found.real) throw std::invalid_argument("'" + text_ + "' is a float, expected an integer");
  return found.integer;
}

Value Expression::value(const Node& node, const Names& names) const {
  if (node.kind == Kind::integer) return Value::of(node.integer);
  if (node.kind == Kind::name) {
    const auto found = names.find(node.name);
    if (found == names.end()) throw std::invalid_argument("'" + text_ + "' needs " + node.name + ", which is not known");
    return found->second;
  }
  std::int64_t result = 0;
  for (size_t i = 0; i < node.of.size(); ++i) {
    const Value next = value(node.of[i], names);
    if (next.real) throw std::invalid_argument("'" + text_ + "' computes with a float");
    const std::int64_t b = next.integer;
    if (i == 0) {
      result = b;
      continue;
    }
    bool overflow = false;
    switch (node.kind) {
      case Kind::add: overflow = __builtin_add_overflow(result, b, &result); break;
      case Kind::sub: overflow = __builtin_sub_overflow(result, b, &result); break;
      case Kind::mul: overflow = __builtin_mul_overflow(result, b, &result); break;
      case Kind::div: overflow = div_overflow(result, b, false, &result); break;
      case Kind::cdiv: overflow = div_overflow(result, b, true, &result); break;
      case Kind::min: result = b < result ? b : result; break;
      case Kind::max: result = b > result ? b : result; break;
      case Kind::lt: result = result < b; break;
      case Kind::le: result = result <= b; break;
      case Kind::gt: result = result > b; break;
      case Kind::ge: result = result >= b; break;
      case Kind::eq: result = result == b; break;
      case Kind::integer:
      case Kind::name: break;
    }
    if (overflow) throw std::invalid_argument("'" + text_ + "' is larger than 64 bits hold");
  }
  return Value::of(result);
}

}  // namespace mythos::cuda
