// Integer arithmetic over named sizes, as launch plans write it (launch_plan.py, `evaluate`): integers, names, + - * //,
// comparisons, cdiv, min and max.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
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

 private:
  friend class Parser;
  struct Node {
    enum class Kind { integer, name, add, sub, mul, div, cdiv, min, max, lt, le, gt, ge, eq } kind;
    std::int64_t integer = 0;
    std::string name;
    std::vector<Node> of;
    int depth = 0;  // of the tree below
  };
  Value value(const Node& node, const Names& names) const;

  std::string text_;
  Node root_{Node::Kind::integer, 0, {}, {}, 0};
};

}  // namespace mythos::cuda
