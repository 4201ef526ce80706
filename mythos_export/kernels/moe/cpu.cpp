// mythos::moe on CPU: the chosen experts only, each expert's weights read once, in two parallel phases.
//
// Phase 1 cuts every expert in use (the shared ones are one more) into pieces of its hidden units: gate and up rows,
// SiLU, product. Phase 2 cuts the output into ranges of columns, and one task sums all experts for its range: no two
// tasks write the same place, so nothing is atomic, and the order of the sum is fixed (experts ascending, shared last).
// A token's result is the same, bit for bit, whatever tokens are beside it and however many threads run.
//
// Hidden rows live from the first phase to the second: of many tokens they would be most of a model's memory, so that
// experts go through both phases in passes, in their order, as many in each as `Moe::most_hidden` has room for.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/ops.h"
#include "cpu/rounded.h"
#include "cpu/tasks.h"

namespace mythos {
namespace {

// One SwiGLU network and the tokens that go through it.
struct Expert {
  Weights gate, up;  // [width, D]
  Weights down;      // [D, width]
  size_t width;
  size_t first, count;  // its range of `Plan::token`, `Plan::weight`, `Plan::x`
  float* hidden;        // [count, stride]
  size_t stride;
};

struct Plan {
  std::vector<Expert> experts;
  std::vector<size_t> token;      // tokens in the order of the experts
  std::vector<float> weight;      // what each counts in the sum
  std::vector<const float*> x;    // its row of the input
  std::vector<const float*> row;  // its hidden row
  // The same where activations are rounded, and where the hidden ones of every place in that order lie.
  std::vector<RoundedRow> rounded_x, rounded_row;
  const RoundedRows* hidden = nullptr;
  size_t hidden_first = 0;  // the place whose row is their first
};

// A cache line more than the row: rows a power of two apart would share their places in the first-level cache.
size_t hidden_stride(size_t width) { return round_up(width, 16) + 16; }

void check_index(const Moe& op) {
  for (size_t i = 0; i < op.n * op.K; ++i) {
    const int64_t e = op.expert_index[i];
    if (e < 0 || e >= static_cast<int64_t>(op.E)) {
      throw std::invalid_argument("expert_index[" + std::to_string(i / op.K) + ", " + std::to_string(i % op.K) +
                                  "] is " + std::to_string(e) + "; there are experts 0 to " +
                                  std::to_string(static_cast<int64_t>(op.E) - 1));
    }
  }
}

Plan group_by_expert(const Moe& op) {
  check_index(op);
  std::vector<size_t> tokens;  // those that are computed
  for (size_t i = 0; i < op.n; ++i)
    if (!op.idle || !op.idle[i]) tokens.push_back(i);
  std::vector<size_t> start(op.E + 1, 0);  // counting sort, tokens in their order within an expert
  for (const size_t token : tokens)
    for (size_t i = token * op.K; i < (token + 1) * op.K; ++i) ++start[op.expert_index[i] + 1];
  for (size_t e = 0; e < op.E; ++e) start[e + 1] += start[e];

  const size_t routed = tokens.size() * op.K, all = routed + (op.Fs ? tokens.size() : 0);
  const size_t down_rows = round_up(op.D, format_of(op.routed_down.format).tile);
  Plan plan;
  plan.token.resize(all);
  plan.weight.resize(all, 1.0f);
  for (size_t e = 0; e < op.E; ++e) {
    const size_t count = start[e + 1] - start[e];
    if (count == 0) continue;
    const Weights gate_up = op.routed_gate_up.row(e * 2 * op.F);
    plan.experts.push_back({gate_up, gate_up.row(op.F), op.routed_down.row(e * down_rows), op.F, start[e], count,
                            nullptr, hidden_stride(op.F)});
  }
  std::vector<size_t> next(start.begin(), start.end() - 1);
  for (const size_t token : tokens)
    for (size_t i = token * op.K; i < (token + 1) * op.K; ++i) {
      const size_t at = next[op.expert_index[i]]++;
      plan.token[at] = token;
      plan.weight[at] = op.expert_weight[i];
    }
  if (op.Fs && !tokens.empty()) {
    std::copy(tokens.begin(), tokens.end(), plan.token.begin() + routed);
    plan.experts.push_back({op.shared_gate_up, op.shared_gate_up.row(op.Fs), op.shared_down, op.Fs, routed,
                            tokens.size(), nullptr, hidden_stride(op.Fs)});
  }
  plan.x.resize(all);
  for (size_t i = 0; i < all; ++i) plan.x[i] = op.x + plan.token[i] * op.D;
  return plan;
}

// The experts by pass. One that is too large alone is several, of fewer tokens each: its weights are read again. Rows of a
// pass are as wide as its widest expert's, so that narrow ones do not share one with a much wider one for long.
std::vector<std::vector<Expert>> passes_of(const Plan& plan, size_t most) {
  std::vector<std::vector<Expert>> passes;
  size_t rows = 0, widest = 0;
  for (const Expert& e : plan.experts) {
    const size_t parts = std::min(ceil_div(e.count * e.stride, most), e.count);
    for (size_t part = 0, t = 0; part < parts; ++part) {
      Expert some = e;
      some.first = e.first + t;
      some.count = e.count / parts + (part < e.count % parts);
      t += some.count;
      widest = std::max(widest, some.stride);
      rows += some.count;
      if (passes.empty() || rows * widest > most) {
        passes.emplace_back();
        rows = some.count;
        widest = some.stride;
      }
      passes.back().push_back(some);
    }
  }
  return passes;
}

// A range of an expert's hidden units (phase 1).
struct Piece {
  const Expert* expert;
  size_t first, count;
};

void hidden_units(const Kernels& kernels, const Moe& op, const Plan& plan, const Piece& piece) {
  const Expert& e = *piece.expert;
  const Format format = e.gate.format;
  const size_t block = token_block(op.rounded ? op.D / sizeof(float) : op.D), rows = e.count < block ? e.count : block;
  Buffer<float> gate(2 * rows * piece.count);
  float* const up = gate.get() + rows * piece.count;
  for (size_t t = 0; t < e.count; t += block) {
    const size_t m = e.count - t < block ? e.count - t : block;
    for (float* y : {gate.get(), up}) {
      const Weights w = (y == up ? e.up : e.gate).row(piece.first);
      if (op.rounded) {
        kernels.nt_rounded[format](&plan.rounded_x[e.first + t], m, w, piece.count, op.D, y, piece.count);
      } else {
        kernels.nt[format](&plan.x[e.first + t], m, w, piece.count, op.D, y, piece.count);
      }
    }
    for (size_t i = 0; i < m; ++i) {
      float* const g = gate.get() + i * piece.count;
      float* const h = op.rounded ? g : e.hidden + (t + i) * e.stride + piece.first;
      kernels.silu_mul(g, up + i * piece.count, h, piece.count);
      if (op.rounded) plan.hidden->round(e.first + t + i - plan.hidden_first, piece.first, h, piece.count);
    }
  }
}

void output_columns(const Kernels& kernels, const Moe& op, const Plan& plan, const std::vector<Expert>& experts,
                    size_t first, size_t count) {
  const auto block_of = [&](const Expert& e) { return token_block(op.rounded ? e.width / sizeof(float) : e.width); };
  size_t most = 0;
  for (const Expert& e : experts) most = std::max(most, std::min(e.count, block_of(e)));
  Buffer<float> part(most * count);
  for (const Expert& e : experts) {
    const size_t block = block_of(e);
    for (size_t t = 0; t < e.count; t += block) {
      const size_t m = e.count - t < block ? e.count - t : block;
      const Weights w = e.down.row(first);
      if (op.rounded) {
        kernels.nt_rounded[w.format](&plan.rounded_row[e.first + t], m, w, count, e.width, part.get(), count);
      } else {
        kernels.nt[w.format](&plan.row[e.first + t], m, w, count, e.width, part.get(), count);
      }
      for (size_t i = 0; i < m; ++i) {
        const size_t slot = e.first + t + i;
        kernels.axpy(plan.weight[slot], part.get() + i * count, op.y + plan.token[slot] * op.D + first, count);
      }
    }
  }
}

// Both phases of the experts of a pass; adds to y.
void run_pass(const Kernels& kernels, const Parallel& parallel, const Moe& op, Plan& plan, std::vector<Expert>& experts) {
  size_t floats = 0, rows = 0, products = 0, units = 0, down_bytes = 0, widest = 0;  // down_bytes: of one output column
  for (const Expert& e : experts) {
    floats += e.count * e.stride;
    rows += e.count;
    products += e.count * e.width * op.D;
    units += e.width;
    down_bytes += e.down.row_bytes;
    widest = std::max(widest, e.width);
  }
  const RoundedRows rounded(kernels, op.routed_down.format, op.rounded ? rows : 0, widest);
  Buffer<float> hidden(op.rounded ? 0 : floats);
  plan.hidden = &rounded;
  plan.hidden_first = experts.front().first;
  float* next = hidden.get();
  std::vector<Piece> pieces;
  for (Expert& e : experts) {
    e.hidden = next;
    if (!op.rounded) next += e.count * e.stride;
    for (size_t i = 0; i < e.count; ++i) {
      if (op.rounded) {
        plan.rounded_row[e.first + i] = rounded.row(e.first + i - plan.hidden_first);
      } else {
        plan.row[e.first + i] = e.hidden + i * e.stride;
      }
    }
    const size_t size = task_rows(e.gate.format, 2 * e.gate.row_bytes, 2 * e.count * op.D, units,
                                  op.rounded && e.count > 1 ? kBlock : e.count > 1 ? 24 : 0);
    for (size_t f = 0; f < e.width; f += size) pieces.push_back({&e, f, e.width - f < size ? e.width - f : size});
  }
  parallel.each(pieces.size(), 2 * products, [&](size_t i) { hidden_units(kernels, op, plan, pieces[i]); });

  // Columns per task: whole cache lines of the output where tokens are many, so that neighbours do not share them.
  const size_t size = task_rows(op.routed_down.format, down_bytes, products / (op.D + 1), op.D, op.n > 1 ? 48 : 0);
  parallel.each(ceil_div(op.D, size), products, [&](size_t i) {
    const size_t first = i * size;
    output_columns(kernels, op, plan, experts, first, op.D - first < size ? op.D - first : size);
  });
}

}  // namespace

void moe(const Kernels& kernels, const Parallel& parallel, const Moe& op) {
  Plan plan = group_by_expert(op);
  const size_t slots = plan.token.size();
  const RoundedRows x(kernels, op.routed_down.format, op.rounded ? op.n : 0, op.D);
  if (op.rounded) {
    parallel.each(op.n, op.n * op.D, [&](size_t i) {
      if (!op.idle || !op.idle[i]) x.round(i, 0, op.x + i * op.D, op.D);
    });
    for (size_t slot = 0; slot < slots; ++slot) plan.rounded_x.push_back(x.row(plan.token[slot]));
    plan.rounded_row.resize(slots);
  } else {
    plan.row.resize(slots);
  }
  std::fill_n(op.y, op.n * op.D, 0.0f);
  for (std::vector<Expert>& experts : passes_of(plan, op.most_hidden)) run_pass(kernels, parallel, op, plan, experts);
}

}  // namespace mythos
