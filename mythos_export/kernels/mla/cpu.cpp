// mythos::mla_attention on CPU, in two forms that compute the same.
//
// Absorbed: q_lat = W_uk^T q_nope once per query, scores and weighted sums over the cached latents themselves, W_uv
// once per query at the end. The keys and values of a head never exist; all heads of a token read the cache together,
// where it is. Expanded: keys and values of one head at a time, made block by block from the latents, for many
// queries at once. It multiplies less where many new tokens meet few keys (prefill).
#include <vector>

#include "cpu/attention.h"
#include "cpu/ops.h"

namespace mythos {
namespace {

constexpr size_t kTokenBlock = 64;  // tokens that one task of the projections takes

// -- absorbed --------------------------------------------------------------------------------------------

// query [B*T, H, C] = (W_uk^T q_nope, q_rope), which is dotted with the cache's rows as they are.
void absorb_queries(const Kernels& kernels, const Mla& op, size_t head, size_t first, size_t count, float* query) {
  const size_t C = op.R + op.rope, pitch = op.H * op.nope;
  const Weights w_uk = op.kv_up.row(head * (op.nope + op.v));
  float* const out = query + (first * op.H + head) * C;
  kernels.nn[w_uk.format](op.q_nope + first * pitch + head * op.nope, pitch, count, w_uk, op.R, op.nope, out, op.H * C,
                          nullptr);
  for (size_t t = 0; t < count; ++t) {
    const float* const rope = op.q_rope + ((first + t) * op.H + head) * op.rope;
    for (size_t d = 0; d < op.rope; ++d) out[t * op.H * C + op.R + d] = rope[d];
  }
}

void absorbed(const Kernels& kernels, const Parallel& parallel, const Mla& op) {
  const size_t C = op.R + op.rope, tokens = op.cache.B * op.cache.T;
  const Schedule plan = schedule(op.cache, 1, op.H, op.R + C);
  const size_t rows = plan.rows, spans = plan.spans.size();
  const size_t token_blocks = ceil_div(tokens, kTokenBlock);
  Buffer<float> query(tokens * op.H * C), sum(spans * rows * op.R), max(spans * rows), norm(spans * rows);

  parallel.each(op.H * token_blocks, tokens * op.H * op.nope * op.R, [&](size_t i) {
    const size_t first = i / op.H * kTokenBlock;
    const size_t count = tokens - first < kTokenBlock ? tokens - first : kTokenBlock;
    absorb_queries(kernels, op, i % op.H, first, count, query.get());
  });

  parallel.each(spans, plan.products, [&](size_t s) {
    const Span& span = plan.spans[s];
    const Block& block = plan.blocks[span.block];
    const size_t count = block.tokens * op.H, first = block.batch * op.cache.T + block.first_token;
    Buffer<const float*> row(count);
    Buffer<int64_t> position(count);
    Buffer<float> scores(score_floats(count));
    for (size_t i = 0; i < count; ++i) {
      row[i] = query.get() + (first * op.H + i) * C;
      position[i] = op.cache.positions[first + i / op.H];
    }
    const Queries queries{row.get(),      position.get(),  count, C, &sum[s * rows * op.R],
                          &max[s * rows], &norm[s * rows], op.R};
    queries.clear();
    const Keys keys(op.cache, block.batch, 0, 0);  // the values are the latents again
    keys.each_run(span.first_key, span.last_key,
                  [&](const Keys::Run& run) { attend(kernels, queries, run, op.scale, scores.get()); });
  });

  // One head and some blocks a task: the head's W_uv is read once for all tokens of the task.
  std::vector<const Block*> real;
  for (const Block& block : plan.blocks) {
    if (block.spans) real.push_back(&block);
  }
  const size_t tokens_per_block = plan.rows / (op.H ? op.H : 1);
  const size_t blocks_per_task = ceil_div(kTokenBlock, tokens_per_block ? tokens_per_block : 1);
  const size_t tasks = ceil_div(real.size(), blocks_per_task);
  parallel.each(op.H * tasks, tokens * op.H * op.v * op.R + spans * rows * op.R, [&](size_t i) {
    const size_t head = i % op.H, first = i / op.H * blocks_per_task;
    const size_t last = real.size() - first < blocks_per_task ? real.size() : first + blocks_per_task;
    size_t count = 0;
    for (size_t b = first; b < last; ++b) count += real[b]->tokens;
    Buffer<float> latent(count * op.R), value(count * op.v);
    Buffer<const float*> row(count);
    Buffer<size_t> token(count);
    size_t at = 0;
    for (size_t b = first; b < last; ++b) {
      for (size_t t = 0; t < real[b]->tokens; ++t) {
        const size_t n = real[b]->batch * op.cache.T + real[b]->first_token + t;
        if (op.cache.positions[n] < 0) continue;
        row[at] = &latent[at * op.R];
        token[at] = n;
        merge(kernels, plan, *real[b], t * op.H + head, sum.get(), max.get(), norm.get(), op.R, &latent[at * op.R]);
        ++at;
      }
    }
    const Weights w_uv = op.kv_up.row(head * (op.nope + op.v) + op.nope);
    kernels.nt[w_uv.format](row.get(), at, w_uv, op.v, op.R, value.get(), op.v);
    for (size_t t = 0; t < at; ++t) {
      for (size_t d = 0; d < op.v; ++d) op.y[(token[t] * op.H + head) * op.v + d] = value[t * op.v + d];
    }
  });
}

// -- expanded --------------------------------------------------------------------------------------------

constexpr size_t kQueryBlock = 32;    // queries that attend together; the fewer, the closer to the causal half
constexpr size_t kExpandedFor = 512;  // tokens that share the keys of one expansion

// Reads rows of the cache as float32: where they are if they are, else through `room`.
const float* as_float(const Kernels& kernels, const Weights& row, size_t n, float* room) {
  if (row.format == f32) return static_cast<const float*>(row.data);
  kernels.widen(static_cast<const uint16_t*>(row.data), room, n);
  return room;
}

// One head of one batch row, for tokens first .. first + count - 1.
void expanded_head(const Kernels& kernels, const Mla& op, size_t batch, size_t head, size_t first, size_t count) {
  const size_t C = op.R + op.rope, depth = op.nope + op.rope;
  const Weights w_uk = op.kv_up.row(head * (op.nope + op.v)), w_uv = w_uk.row(op.nope);
  Buffer<float> query(count * depth), sum(count * op.v), max(count), norm(count);
  Buffer<const float*> row(count);
  Buffer<float> key(kKeyBlock * depth), value(kKeyBlock * op.v), latent(kKeyBlock * C),
      scores(score_floats(kQueryBlock));
  Buffer<const float*> latent_row(kKeyBlock);
  const size_t token = batch * op.cache.T + first;
  const int64_t* const positions = op.cache.positions + token;
  for (size_t t = 0; t < count; ++t) {
    float* const q = &query[t * depth];
    const float* const nope = op.q_nope + ((token + t) * op.H + head) * op.nope;
    const float* const rope = op.q_rope + ((token + t) * op.H + head) * op.rope;
    for (size_t d = 0; d < op.nope; ++d) q[d] = nope[d];
    for (size_t d = 0; d < op.rope; ++d) q[op.nope + d] = rope[d];
    row[t] = q;
  }
  Queries{row.get(), positions, count, depth, sum.get(), max.get(), norm.get(), op.v}.clear();

  int64_t newest = -1;
  for (size_t t = 0; t < count; ++t) newest = positions[t] > newest ? positions[t] : newest;
  const Keys keys(op.cache, batch, 0, 0);
  keys.each_run(0, newest < 0 ? 0 : keys.count(), [&](const Keys::Run& run) {
    bool seen = !run.positions;
    for (size_t j = 0; !seen && j < run.count; ++j) seen = run.positions[j] <= newest;
    if (!seen) return;
    for (size_t j = 0; j < run.count; ++j) {
      latent_row[j] = as_float(kernels, run.keys.row(j), C, &latent[j * C]);
      for (size_t d = 0; d < op.rope; ++d) key[j * depth + op.nope + d] = latent_row[j][op.R + d];
    }
    kernels.nt[w_uk.format](latent_row.get(), run.count, w_uk, op.nope, op.R, key.get(), depth);
    kernels.nt[w_uv.format](latent_row.get(), run.count, w_uv, op.v, op.R, value.get(), op.v);
    const Keys::Run made{rows_of(key.get(), depth), rows_of(value.get(), op.v), run.count, run.positions};
    for (size_t t = 0; t < count; t += kQueryBlock) {
      const size_t part = count - t < kQueryBlock ? count - t : kQueryBlock;
      attend(kernels, {row.get() + t, positions + t, part, depth, &sum[t * op.v], &max[t], &norm[t], op.v}, made,
             op.scale, scores.get());
    }
  });
  for (size_t t = 0; t < count; ++t) {
    if (positions[t] < 0) continue;
    kernels.scale(1.0f / norm[t], &sum[t * op.v], op.y + ((token + t) * op.H + head) * op.v, op.v);
  }
}

void expanded(const Kernels& kernels, const Parallel& parallel, const Mla& op, size_t products) {
  const size_t pieces = ceil_div(op.cache.T, kExpandedFor), size = pieces ? ceil_div(op.cache.T, pieces) : 0;
  parallel.each(op.cache.B * pieces * op.H, products, [&](size_t i) {
    const size_t first = i / op.H % pieces * size;
    if (first >= op.cache.T) return;
    expanded_head(kernels, op, i / op.H / pieces, i % op.H, first,
                  op.cache.T - first < size ? op.cache.T - first : size);
  });
}

}  // namespace

void mla_attention(const Kernels& kernels, const Parallel& parallel, const Mla& op) {
  check_cache(op.cache);
  const size_t T = op.cache.T;
  size_t absorbed_products = 0, expanded_products = 0;  // of one head
  for (size_t b = 0; b < op.cache.B; ++b) {
    const size_t keys = static_cast<size_t>(op.cache.past_lengths[b]) + T;
    absorbed_products += T * op.R * (op.nope + op.v) + T * keys * (2 * op.R + op.rope);
    expanded_products += keys * op.R * (op.nope + op.v) + T * keys * (op.nope + op.rope + op.v);
  }
  for (size_t i = 0; i < op.cache.B * T; ++i) {
    if (op.cache.positions[i] >= 0) continue;
    for (size_t d = 0; d < op.H * op.v; ++d) op.y[i * op.H * op.v + d] = 0;
  }
  // One token is never worth making keys for; `expanded` would win by a hair where there is no past.
  const bool absorb = op.form == MlaForm::absorbed ||
                      (op.form == MlaForm::cheaper && (T == 1 || absorbed_products <= expanded_products));
  if (absorb) {
    absorbed(kernels, parallel, op);
  } else {
    expanded(kernels, parallel, op, expanded_products * op.H);
  }
}

}  // namespace mythos
