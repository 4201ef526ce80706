// Rows of activations as the products read them.
#pragma once
#include <algorithm>
#include <vector>

#include "cpu/parallel.h"

namespace mythos {

// Rows of whole pages share their places in the first-level cache with one another and with rows of weights: 6 rows of 8 KB
// took 1.4 times as long as apart (12 ways, Zen 5). Such are copied to where a cache line lies between them.
class RowsApart {
 public:
  RowsApart(const Parallel& parallel, const float* x, size_t n, size_t depth)
      : copied_(n > 1 && depth * sizeof(float) % kPage == 0), copy_(copied_ ? n * (depth + kGap) : 0), rows_(n) {
    for (size_t i = 0; i < n; ++i) rows_[i] = copied_ ? copy_.get() + i * (depth + kGap) : x + i * depth;
    if (!copied_) return;
    parallel.each(n, n * depth, [&](size_t i) { std::copy_n(x + i * depth, depth, copy_.get() + i * (depth + kGap)); });
  }
  const float* const* get() const { return rows_.data(); }
  const float* operator[](size_t i) const { return rows_[i]; }

 private:
  static constexpr size_t kPage = 4096, kGap = 16;
  bool copied_;
  Buffer<float> copy_;
  std::vector<const float*> rows_;
};

}  // namespace mythos
