// mythos::moe on CPU: the chosen experts only, each expert's weights read once, in two parallel phases.
//
// Phase 1 cuts every expert in use (the shared ones are one more) into pieces of its hidden units: gate and up rows,
// SiLU, product. Phase 2 cuts the output into ranges of columns, of the routed experts' sum and of the shared ones'
// outputs: no two tasks write the same place, so nothing is atomic, and the order of the sum is fixed (experts ascending,
// shared last). A token's result is the same, bit for bit, whatever tokens are beside it and however many threads run.
//
// In both phases the tasks of the routed experts come first and those of the shared ones last. ONNX Runtime's threads
// begin at different places of the tasks, so that with many tokens some wait for the memory of experts that few of them
// chose, while others multiply.
//
// Hidden rows live from the first phase to the second: of many tokens they would be most of a model's memory, so that
// experts go through both phases in passes, in their order, as many in each as `Moe::most_hidden` has room for.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/ops.h"
#include "cpu/rounded.h"
#include "cpu/rows_apart.h"
#include "cpu/tasks.h"

namespace mythos {
namespace {

// One SwiGLU network and the tokens that go through it.
struct Expert {
  Weights gate, up;  // [width, D]
  Weights down;      // [D, width]
  size_t width = 0;
  size_t first = 0, count = 0;  // its places in the Plan
};

// What every place, a token at an expert, is computed from; experts ascending, the shared ones last.
struct Plan {
  std::vector<Expert> routed;
  Expert shared;                // of no tokens where there is none
  std::vector<size_t> token;    // which token it is
  std::vector<float> weight;    // what it counts in the sum
  std::vector<const float*> x;  // its row of the input
  std::vector<RoundedRow> rounded_x;  // the same where activations are rounded
  // Its hidden row, while its pass is computed.
  std::vector<const float*> row;
  std::vector<RoundedRow> rounded_row;
};

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
    plan.routed.push_back({gate_up, gate_up.row(op.F), op.routed_down.row(e * down_rows), op.F, start[e], count});
  }
  std::vector<size_t> next(start.begin(), start.end() - 1);
  for (const size_t token : tokens)
    for (size_t i = token * op.K; i < (token + 1) * op.K; ++i) {
      const size_t at = next[op.expert_index[i]]++;
      plan.token[at] = token;
      plan.weight[at] = op.expert_weight[i];
    }
  if (op.Fs) {
    std::copy(tokens.begin(), tokens.end(), plan.token.begin() + routed);
    plan.shared = {op.shared_gate_up, op.shared_gate_up.row(op.Fs), op.shared_down, op.Fs, routed, tokens.size()};
  }
  return plan;
}

// A cache line more than the row: rows a power of two apart would share their places in the first-level cache.
size_t hidden_stride(size_t width) { return round_up(width, 16) + 16; }

// Experts that go through both phases together, and the shared ones with some of the tokens.
struct Pass {
  std::vector<Expert> routed;
  Expert shared;

  template <class F>
  void each(F&& f) const {
    for (const Expert& e : routed) f(e);
    if (shared.count) f(shared);
  }
};

// Hidden rows of a pass are at most `most` floats of routed experts, and of the shared ones. An expert that is too large
// alone is several, of fewer tokens each: its weights are read again.
std::vector<Pass> passes_of(const Moe& op, const Plan& plan) {
  const auto rows_of = [&](size_t width) { return std::max(op.most_hidden / hidden_stride(width), size_t{1}); };
  const auto passes_for = [&](size_t rows, size_t width) { return std::max(ceil_div(rows, rows_of(width)), size_t{1}); };
  size_t places = 0;
  for (const Expert& e : plan.routed) places += e.count;
  const size_t wanted = std::max(passes_for(places, op.F), passes_for(plan.shared.count, op.Fs));
  const size_t most = std::min(ceil_div(places, wanted), rows_of(op.F));  // where the shared ones need more, as many
  std::vector<Pass> passes(1);
  size_t rows = 0;
  for (const Expert& e : plan.routed) {
    const size_t parts = ceil_div(e.count, rows_of(op.F));
    for (size_t part = 0, t = 0; part < parts; ++part) {
      Expert some = e;
      some.first += t;
      some.count = e.count / parts + (part < e.count % parts);
      t += some.count;
      if (rows && rows + some.count > most) {
        passes.emplace_back();
        rows = 0;
      }
      rows += some.count;
      passes.back().routed.push_back(some);
    }
  }
  if (passes.size() < wanted) passes.resize(wanted);
  for (size_t p = 0; p < passes.size(); ++p) {
    const size_t first = plan.shared.count * p / passes.size(), end = plan.shared.count * (p + 1) / passes.size();
    passes[p].shared = plan.shared;
    passes[p].shared.first += first;
    passes[p].shared.count = end - first;
  }
  return passes;
}

// The hidden rows of some places, of experts of one width.
class Hidden {
 public:
  Hidden(const Kernels& kernels, const Moe& op, size_t first, size_t count, size_t width)
      : first_(first),
        stride_(hidden_stride(width)),
        rounded_(kernels, op.routed_down.format, op.rounded ? count : 0, width),
        rows_(op.rounded ? 0 : count * stride_) {}

  float* row(size_t place) const { return rows_.get() + (place - first_) * stride_; }
  RoundedRow rounded(size_t place) const { return rounded_.row(place - first_); }
  void round(size_t place, size_t unit, const float* h, size_t count) const {
    rounded_.round(place - first_, unit, h, count);
  }

 private:
  size_t first_, stride_;
  RoundedRows rounded_;
  Buffer<float> rows_;
};

// A range of an expert's hidden units (phase 1).
struct Piece {
  const Expert* expert;
  const Hidden* hidden;
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
      const size_t place = e.first + t + i;
      float* const g = gate.get() + i * piece.count;
      float* const h = op.rounded ? g : piece.hidden->row(place) + piece.first;
      kernels.silu_mul(g, up + i * piece.count, h, piece.count);
      if (op.rounded) piece.hidden->round(place, piece.first, h, piece.count);
    }
  }
}

// Columns [first, first + count) of an expert's output, for m places from `place` on: c[m, count], rows `ldc` apart.
void output_columns(const Kernels& kernels, const Moe& op, const Plan& plan, const Expert& e, size_t place, size_t m,
                    size_t first, size_t count, float* c, size_t ldc) {
  const Weights w = e.down.row(first);
  if (op.rounded) {
    kernels.nt_rounded[w.format](&plan.rounded_row[place], m, w, count, e.width, c, ldc);
  } else {
    kernels.nt[w.format](&plan.row[place], m, w, count, e.width, c, ldc);
  }
}

// f(t, m): the tokens of an expert in blocks that stay in the second-level cache while its down projection passes.
template <class F>
void in_blocks(const Moe& op, const Expert& e, F&& f) {
  const size_t block = token_block(op.rounded ? e.width / sizeof(float) : e.width);
  for (size_t t = 0; t < e.count; t += block) f(t, e.count - t < block ? e.count - t : block);
}

// Adds the routed experts' outputs to columns of y.
void routed_columns(const Kernels& kernels, const Moe& op, const Plan& plan, const std::vector<Expert>& experts,
                    size_t first, size_t count) {
  size_t most = 0;
  for (const Expert& e : experts) most = std::max(most, std::min(e.count, token_block(op.rounded ? op.F / sizeof(float) : op.F)));
  Buffer<float> part(most * count);
  for (const Expert& e : experts) {
    in_blocks(op, e, [&](size_t t, size_t m) {
      output_columns(kernels, op, plan, e, e.first + t, m, first, count, part.get(), count);
      for (size_t i = 0; i < m; ++i) {
        const size_t place = e.first + t + i;
        kernels.axpy(plan.weight[place], part.get() + i * count, op.y + plan.token[place] * op.D + first, count);
      }
    });
  }
}

// Both phases of a pass: adds the routed experts' outputs to y, and writes those of the shared ones, [tokens, D].
void run_pass(const Kernels& kernels, const Parallel& parallel, const Moe& op, Plan& plan, const Pass& pass,
              float* shared) {
  size_t places = 0, products = 0, units = 0, routed_products = 0, routed_bytes = 0;  // bytes: of one output column
  for (const Expert& e : pass.routed) {
    places += e.count;
    routed_products += e.count * e.width;
    routed_bytes += e.down.row_bytes;
  }
  pass.each([&](const Expert& e) {
    products += e.count * e.width * op.D;
    units += e.width;
  });
  const Hidden of_routed(kernels, op, pass.routed.empty() ? 0 : pass.routed.front().first, places, op.F);
  const Hidden of_shared(kernels, op, pass.shared.first, pass.shared.count, op.Fs);
  std::vector<Piece> pieces;
  pass.each([&](const Expert& e) {
    const Hidden& hidden = &e == &pass.shared ? of_shared : of_routed;
    for (size_t place = e.first; place < e.first + e.count; ++place) {
      if (op.rounded) {
        plan.rounded_row[place] = hidden.rounded(place);
      } else {
        plan.row[place] = hidden.row(place);
      }
    }
    const size_t size = task_rows(e.gate.format, 2 * e.gate.row_bytes, 2 * e.count * op.D, units,
                                  op.rounded && e.count > 1 ? kBlock : e.count > 1 ? 24 : 0);
    for (size_t f = 0; f < e.width; f += size) pieces.push_back({&e, &hidden, f, std::min(size, e.width - f)});
  });
  parallel.each(pieces.size(), 2 * products, [&](size_t i) { hidden_units(kernels, op, plan, pieces[i]); });

  // Columns per task: whole cache lines of the output where tokens are many, so that neighbours do not share them.
  const size_t tile = op.n > 1 ? 48 : 0;
  const Format format = op.routed_down.format;
  const size_t of_sum = task_rows(format, routed_bytes, routed_products, op.D, tile);
  const size_t of_rows = task_rows(format, pass.shared.down.row_bytes, pass.shared.count * op.Fs, op.D, tile);
  const size_t sums = pass.routed.empty() ? 0 : ceil_div(op.D, of_sum);
  parallel.each(sums + (pass.shared.count ? ceil_div(op.D, of_rows) : 0), products, [&](size_t i) {
    if (i < sums) {
      const size_t first = i * of_sum;
      routed_columns(kernels, op, plan, pass.routed, first, std::min(of_sum, op.D - first));
    } else {
      const Expert& e = pass.shared;
      const size_t first = (i - sums) * of_rows, count = std::min(of_rows, op.D - first);
      float* const y = shared + (e.first - plan.shared.first) * op.D + first;
      in_blocks(op, e, [&](size_t t, size_t m) {
        output_columns(kernels, op, plan, e, e.first + t, m, first, count, y + t * op.D, op.D);
      });
    }
  });
}

}  // namespace

void moe(const Kernels& kernels, const Parallel& parallel, const Moe& op) {
  Plan plan = group_by_expert(op);
  const size_t places = plan.token.size();
  const RoundedRows rounded_x(kernels, op.routed_down.format, op.rounded ? op.n : 0, op.D);
  const RowsApart x(parallel, op.x, op.rounded ? 0 : op.n, op.D);
  if (op.rounded) {
    parallel.each(op.n, op.n * op.D, [&](size_t i) {
      if (!op.idle || !op.idle[i]) rounded_x.round(i, 0, op.x + i * op.D, op.D);
    });
    for (const size_t token : plan.token) plan.rounded_x.push_back(rounded_x.row(token));
    plan.rounded_row.resize(places);
  } else {
    for (const size_t token : plan.token) plan.x.push_back(x[token]);
    plan.row.resize(places);
  }
  std::fill_n(op.y, op.n * op.D, 0.0f);
  const Buffer<float> shared(plan.shared.count * op.D);
  for (const Pass& pass : passes_of(op, plan)) run_pass(kernels, parallel, op, plan, pass, shared.get());
  parallel.each(plan.shared.count, plan.shared.count * op.D, [&](size_t i) {
    kernels.axpy(1.0f, shared.get() + i * op.D, op.y + plan.token[plan.shared.first + i] * op.D, op.D);
  });
}

}  // namespace mythos
