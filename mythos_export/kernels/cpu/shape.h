// The dimensions of a tensor, as std::vector has them but without an allocation: an operator of a decoded token takes
// microseconds, and ONNX Runtime is asked for the shape of every input.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace mythos {

class Shape {
 public:
  static constexpr size_t kMost = 8;

  // `rank` dimensions of unknown size. Throws std::invalid_argument for more than kMost.
  explicit Shape(size_t rank) : rank_(rank) {
    if (rank > kMost)
      throw std::invalid_argument("a tensor has " + std::to_string(rank) +
                                  " dimensions; the mythos operators take at most " + std::to_string(kMost));
  }
  template <class Int>
  Shape(std::initializer_list<Int> dims) : Shape(dims.size()) {
    std::transform(dims.begin(), dims.end(), dims_, [](Int d) { return static_cast<int64_t>(d); });
  }
  Shape() : Shape(size_t{0}) {}

  size_t size() const { return rank_; }
  int64_t* data() { return dims_; }
  const int64_t* data() const { return dims_; }
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }
  int64_t operator[](size_t i) const { return dims_[i]; }
  int64_t& back() { return dims_[rank_ - 1]; }
  int64_t back() const { return dims_[rank_ - 1]; }
  void push_back(int64_t dim) {
    *this = Shape(*this, rank_ + 1);
    back() = dim;
  }
  bool operator==(const Shape& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }
  bool operator!=(const Shape& other) const { return !(*this == other); }

 private:
  Shape(const Shape& other, size_t rank) : Shape(rank) { std::copy(other.begin(), other.end(), dims_); }

  size_t rank_;
  int64_t dims_[kMost];
};

inline std::string text(const Shape& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

inline size_t elements(const Shape& shape) {
  size_t n = 1;
  for (int64_t d : shape) n *= static_cast<size_t>(d);
  return n;
}

}  // namespace mythos
