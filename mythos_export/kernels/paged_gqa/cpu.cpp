// mythos::paged_gqa_attention on CPU: the query heads that share a kv head are attended together.
#include "cpu/paged.h"

namespace mythos {

void paged_gqa_attention(const Kernels& kernels, const Parallel& parallel, const PagedGqa& op) {
  attend_paged(kernels, parallel, op.paged, {op.H, op.G, op.head, op.head, op.G * op.head, op.scale, op.q}, op.y);
}

}  // namespace mythos
