// mythos::gqa_attention on CPU: the query heads that share a kv head are attended together, reading its keys and values
// once.
#include <vector>

#include "cpu/attention.h"
#include "cpu/ops.h"

namespace mythos {
namespace {

// Calls f(row of the block, token, query head) for all queries of a block.
template <class F>
void each_query(const Gqa& op, const Block& block, F&& f) {
  const size_t shared = op.H / op.G;
  for (size_t t = 0; t < block.tokens; ++t) {
    const size_t token = block.batch * op.cache.T + block.first_token + t;
    for (size_t h = 0; h < shared; ++h) f(t * shared + h, token, block.group * shared + h);
  }
}

}  // namespace

void gqa_attention(const Kernels& kernels, const Parallel& parallel, const Gqa& op) {
  const Schedule plan = schedule(op.cache, op.G, op.H / op.G, 2 * op.head);
  const size_t rows = plan.rows;
  Buffer<float> sum(plan.spans.size() * rows * op.head), max(plan.spans.size() * rows), norm(plan.spans.size() * rows);

  parallel.each(plan.spans.size(), plan.products, [&](size_t s) {
    const Span& span = plan.spans[s];
    const Block& block = plan.blocks[span.block];
    const size_t count = block.tokens * plan.rows_per_token;
    Buffer<const float*> query(count);
    Buffer<int64_t> position(count);
    Buffer<float> scores(score_floats(count));
    each_query(op, block, [&](size_t row, size_t token, size_t head) {
      query[row] = op.q + (token * op.H + head) * op.head;
      position[row] = op.cache.positions[token];
    });
    const Queries queries{query.get(),    position.get(),  count,  op.head, &sum[s * rows * op.head],
                          &max[s * rows], &norm[s * rows], op.head};
    queries.clear();
    const Keys keys(op.cache, block.batch, block.group * op.head, (op.G + block.group) * op.head);
    keys.each_run(span.first_key, span.last_key,
                  [&](const Keys::Run& run) { attend(kernels, queries, run, op.scale, scores.get()); });
  });

  parallel.each(plan.blocks.size(), plan.spans.size() * rows * op.head, [&](size_t b) {
    const Block& block = plan.blocks[b];
    each_query(op, block, [&](size_t row, size_t token, size_t head) {
      float* const out = op.y + (token * op.H + head) * op.head;
      if (op.cache.positions[token] < 0) {
        for (size_t d = 0; d < op.head; ++d) out[d] = 0;
      } else {
        merge(kernels, plan, block, row, sum.get(), max.get(), norm.get(), op.head, out);
      }
    });
  });
}

}  // namespace mythos
