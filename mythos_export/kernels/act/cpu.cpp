// mythos::act_halting on CPU: one pass over the positions, in the order of `mythos_model.ops.act_halting`.
#include <algorithm>
#include <cmath>

#include "cpu/ops.h"

namespace mythos {
namespace {

// Partial sums in a fixed number of lanes: the compiler may compute them together, and their order depends on D alone.
float dot(const float* a, const float* b, size_t n) {
  constexpr size_t kLanes = 16;
  float lane[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (size_t l = 0; l < kLanes; ++l) lane[l] += a[i + l] * b[i + l];
  for (size_t l = 0; i < n; ++i, ++l) lane[l] += a[i] * b[i];
  for (size_t width = kLanes / 2; width > 0; width /= 2)
    for (size_t l = 0; l < width; ++l) lane[l] += lane[l + width];
  return lane[0];
}

}  // namespace

void act_halting(const ActHalting& op) {
  bool running = false;
  for (size_t i = 0; i < op.n; ++i) {
    const float* const h = op.h + i * op.D;
    const float before = op.cumulative[i], threshold = op.threshold[op.own_threshold ? i : 0];
    const float run = op.halted[i] ? 0.0f : 1.0f;
    // std::exp, not an approximation: what it errs in the tail would be summed.
    const float p = 1.0f / (1.0f + std::exp(-(dot(h, op.weight, op.D) + op.bias)));
    // The last contribution takes what is left of 1. A position that never gets there takes no remainder.
    const float share = run * (before + p >= threshold ? std::max(1.0f - before, 0.0f) : p);
    for (size_t d = 0; d < op.D; ++d) op.out_next[i * op.D + d] = op.out[i * op.D + d] + share * h[d];
    const float cumulative = before + p * run;
    op.p[i] = p;
    op.cumulative_next[i] = cumulative;
    op.halted_next[i] = op.halted[i] || cumulative >= threshold;
    op.depth_next[i] = op.depth[i] + (op.halted[i] ? 0 : 1);
    running |= !op.halted_next[i];
  }
  *op.running = running;
}

}  // namespace mythos
