// mythos::expert_sum on CPU: what mythos::moe does last, over experts that were computed elsewhere. Added in the same
// order, by the same instructions, so that the result has moe's bits: experts ascending, the shared ones last.
#include <algorithm>
#include <numeric>

#include "cpu/ops.h"

namespace mythos {

void expert_sum(const Kernels& kernels, const Parallel& parallel, const ExpertSum& op) {
  parallel.each(op.n, op.n * (op.K + 1) * op.D, [&](size_t i) {
    const int64_t* const expert = op.expert_index + i * op.K;
    const Buffer<size_t> order(op.K);
    std::iota(order.get(), order.get() + op.K, size_t{0});
    std::sort(order.get(), order.get() + op.K, [&](size_t a, size_t b) {
      return expert[a] < expert[b] || (expert[a] == expert[b] && a < b);
    });
    float* const y = op.y + i * op.D;
    std::fill(y, y + op.D, 0.0f);
    for (size_t k = 0; k < op.K; ++k) {
      const size_t slot = i * op.K + order[k];
      kernels.axpy(op.expert_weight[slot], op.parts + slot * op.D, y, op.D);
    }
    if (op.shared) kernels.axpy(1.0f, op.shared + i * op.D, y, op.D);
  });
}

}  // namespace mythos
