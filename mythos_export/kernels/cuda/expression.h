// Integer arithmetic over named sizes, as launch plans write it (launch_plan.py, `evaluate`): integers, names, + - * //,
// comparisons, cdiv, min and max.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mythos::cuda {

// A size, or a float that is only handed on to a kernel.
struct Value {
  std::int64_t integer = 0;
  double number = 0;
  bool real = false;

  static Value of(std::int64_t integer) { return {integer, static_cast<double>(integer), false}; }
  static Value of_float(double number) { return {0, number, true}; }
};

using Names = std::unordered_map<std::string, Value>;

// Parsed once, evaluated at every call. kernels.json is not trusted to be sane: what is nested deeper than launch plans
// ever are is refused, because parsing, evaluation and destruction recurse; and no arithmetic overflows unnoticed.
class Expression {
 public:
  static constexpr int kMostDeep = 64;  // parentheses, calls, and operators in a chain

  Expression() = default;
  // Throws std::invalid_argument for what is not of the grammar, or nested deeper than kMostDeep.
  explicit Expression(const std::string& text);

  // Throws std::invalid_argument for a name that is not there, a float that is computed with, a division by 0,
  // and what is larger than 64 bits hold.
  Value value(const Names& names) const;
  std::int64_t integer(const Names& names) const;

  enum class Kind { integer, name, add, sub, mul, div, cdiv, min, max, lt, le, gt, ge, eq };

  // The same over values of another kind, such as sizes that are not known yet: integer(n), name(text), and both(kind, a,
  // b) for every operator, of operands in their order.
  template <class Integer, class Name, class Both>
  auto over(const Integer& integer, const Name& name, const Both& both) const {
    return over(root_, integer, name, both);
  }

 private:
  friend class Parser;
  struct Node {
    Kind kind;
    std::int64_t integer = 0;
    std::string name;
    std::vector<Node> of;
    int depth = 0;  // of the tree below
  };
  Value value(const Node& node, const Names& names) const;

  template <class Integer, class Name, class Both>
  static decltype(std::declval<Integer>()(0)) over(const Node& node, const Integer& integer, const Name& name,
                                                   const Both& both) {
    if (node.kind == Kind::integer) return integer(node.integer);
    if (node.kind == Kind::name) return name(node.name);
    auto result = over(node.of.front(), integer, name, both);
    for (size_t i = 1; i < node.of.size(); ++i) result = both(node.kind, result, over(node.of[i], integer, name, both));
    return result;
  }

  std::string text_;
  Node root_{Kind::integer, 0, {}, {}, 0};
};

}  // namespace mythos::cuda
