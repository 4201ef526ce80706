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

// Calls f(first, count) of every run of rows from `first` to `end` that are no padding.
template <class F>
void each_run(const int64_t* span, size_t first, size_t end, F&& f) {
  while (first < end) {
    if (span[first] < 0) {
      ++first;
      continue;
    }
    size_t behind = first + 1;
    while (behind < end && span[behind] >= 0) ++behind;
    f(first, behind - first);
    first = behind;
  }
}

}  // namespace

void paged_mla_attention(const Kernels& kernels, const Parallel& parallel, const PagedMla& op) {
  const size_t n = op.paged.rows, C = op.R + op.rope, blocks = ceil_div(n, kRowBlock);
  Buffer<float> query(n * op.H * C), latent(n * op.H * op.R);

  // One head and some rows a task: the head's part of kv_up is read once for all of them.
  const auto each_head = [&](size_t products, auto&& f) {
    parallel.each(op.H * blocks, products, [&](size_t i) {
      const size_t first = i / op.H * kRowBlock, end = std::min(n, first + kRowBlock);
      each_run(op.paged.span, first, end, [&](size_t from, size_t count) { f(i % op.H, from, count); });
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

  for (size_t i = 0; i < n; ++i)
    if (op.paged.span[i] < 0) std::fill_n(op.y + i * op.H * op.v, op.H * op.v, 0.0f);
  each_head(n * op.H * op.v * op.R, [&](size_t head, size_t first, size_t count) {
    Buffer<const float*> row(count);
    for (size_t t = 0; t < count; ++t) row[t] = latent.get() + ((first + t) * op.H + head) * op.R;
    const Weights w_uv = op.kv_up.row(head * (op.nope + op.v) + op.nope);
    kernels.nt[w_uv.format](row.get(), count, w_uv, op.v, op.R, op.y + (first * op.H + head) * op.v, op.H * op.v);
  });
}

}  // namespace mythos
