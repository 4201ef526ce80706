// mythos::paged_mla_attention on CPU, in the absorbed form: q_lat = W_uk^T q_nope once per query, scores and weighted
// sums over the cached latents themselves, W_uv once per query at the end.
//
// Never in the expanded form of mla_attention, whatever the number of rows: it rounds otherwise, and a row's result
// would depend on the chunk that it came in.
#include <algorithm>

#include "cpu/paged.h"

namespace mythos {
namespace {

constexpr size_t kRowBlock = 64;  // rows that one task of the projections takes

}  // namespace

void paged_mla_attention(const Kernels& kernels, const Parallel& parallel, const PagedMla& op) {
  const size_t n = op.paged.rows, C = op.R + op.rope, blocks = ceil_div(n, kRowBlock);
  Buffer<float> query(n * op.H * C), latent(n * op.H * op.R);

  // One head and some rows a task: the head's part of kv_up is read once for all of them.
  const auto each_head = [&](size_t products, auto&& f) {
    parallel.each(op.H * blocks, products, [&](size_t i) {
      const size_t first = i / op.H * kRowBlock;
      f(i % op.H, first, std::min(n - first, kRowBlock));
    });
  };
  each_head(n * op.H * op.nope * op.R, [&](size_t head, size_t first, size_t count) {
    const size_t pitch = op.H * op.nope;
    const Weights w_uk = op.kv_up.row(head * (op.nope + op.v));
    float* const out = query.get() + (first * op.H + head) * C;
    kernels.nn[w_uk.format](op.q_nope + first * pitch + head * op.nope, pitch, count, w_uk, op.R, op.nope, out,
                            op.H * C, nullptr);
    for (size_t t = 0; t < count; ++t)
      std::copy_n(op.q_rope + ((first + t) * op.H + head) * op.rope, op.rope, out + t * op.H * C + op.R);
  });

  attend_paged(kernels, parallel, op.paged, {op.H, 1, C, op.R, 0, op.scale, query.get()}, latent.get());

  each_head(n * op.H * op.v * op.R, [&](size_t head, size_t first, size_t count) {
    Buffer<const float*> row(count);
    for (size_t t = 0; t < count; ++t) row[t] = latent.get() + ((first + t) * op.H + head) * op.R;
    const Weights w_uv = op.kv_up.row(head * (op.nope + op.v) + op.nope);
    kernels.nt[w_uv.format](row.get(), count, w_uv, op.v, op.R, op.y + (first * op.H + head) * op.v, op.H * op.v);
  });
}

}  // namespace mythos
