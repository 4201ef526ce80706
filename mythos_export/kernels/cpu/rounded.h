// Rows of activations rounded to int8, as the operators hold them.
#pragma once
#include <vector>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace mythos {

class RoundedRows {
 public:
  // Room for n rows, for weights in `format`. Rounding nothing, n is 0.
  RoundedRows(const Kernels& kernels, Format format, size_t n, size_t depth)
      : round_(kernels.round[format]),
        blocks_(ceil_div(depth, kBlock)),
        q_(n * blocks_ * kBlock),
        scale_(n * blocks_),
        zero_(n * blocks_) {}

  RoundedRow row(size_t i) const {
    return {q_.get() + i * blocks_ * kBlock, scale_.get() + i * blocks_, zero_.get() + i * blocks_};
  }
  // The inputs from `first`, where a block begins, on.
  void round(size_t i, size_t first, const float* x, size_t count) const {
    const size_t at = i * blocks_ + first / kBlock;
    round_(x, count, q_.get() + at * kBlock, scale_.get() + at, zero_.get() + at);
  }

 private:
  void (*round_)(const float*, size_t, int8_t*, float*, int32_t*);
  size_t blocks_;
  Buffer<int8_t> q_;
  Buffer<float> scale_;
  Buffer<int32_t> zero_;
};

}  // namespace mythos
