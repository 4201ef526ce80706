// Random cases of the attentions and of halting.
#include "cpu/kernels_test.h"

namespace mythos::test {

namespace {

// A cache with uneven lengths, padding, and NaN wherever nothing may be read.
struct RandomCache {
  size_t B = pick(1, 3), T, S, L = pick(1, 3), C;
  std::vector<int64_t> positions, lengths;
  int64_t layer = int64_t(pick(0, L - 1));
  Stored past, chunk;

  RandomCache(const Kernels& k, Format f, size_t width)
      : T(pick(0, 2) ? pick(1, 30) : pick(0, 130)),
        S(pick(0, 2) ? pick(0, 30) : pick(0, 300)),
        C(width),
        past(k, make_past(), f),
        chunk(k, make_chunk(), f) {}

  std::vector<float> make_past() {
    std::vector<float> v(L * B * S * C, kNan);
    for (size_t b = 0; b < B; ++b) {
      lengths.push_back(int64_t(pick(0, S)));
      const auto rows = normal(size_t(lengths[b]) * C);
      std::copy(rows.begin(), rows.end(), v.begin() + ptrdiff_t((size_t(layer) * B + b) * S * C));
    }
    return v;
  }
  std::vector<float> make_chunk() {
    auto v = normal(B * T * C);
    for (size_t b = 0; b < B; ++b) {
      int64_t next = lengths[b];
      const bool ragged = pick(0, 1);
      for (size_t t = 0; t < T; ++t) {
        const bool padding = ragged && pick(0, 4) == 0;
        positions.push_back(padding ? -1 : next++);
        if (padding) std::fill_n(v.begin() + ptrdiff_t((b * T + t) * C), C, kNan);
      }
    }
    return v;
  }
  Cache view() const { return {B, T, L, S, C, past.rows(C), layer, chunk.rows(C), positions.data(), lengths.data()}; }
  // The rows that token t of batch row b may attend to.
  std::vector<const float*> visible(size_t b, size_t t) const {
    std::vector<const float*> rows;
    for (size_t j = 0; j < size_t(lengths[b]); ++j) rows.push_back(&past.wide[((size_t(layer) * B + b) * S + j) * C]);
    for (size_t j = 0; j < T; ++j) {
      const int64_t p = positions[b * T + j];
      if (p >= 0 && p <= positions[b * T + t]) rows.push_back(&chunk.wide[(b * T + j) * C]);
    }
    return rows;
  }
  std::string name() const { return " B-T-L-S-C " + shape({B, T, L, S, C}); }
};

std::vector<double> softmax(std::vector<double> s) {
  const double top = *std::max_element(s.begin(), s.end());
  double sum = 0;
  for (double& x : s) sum += x = std::exp(x - top);
  for (double& x : s) x /= sum;
  return s;
}

}  // namespace

void test_mla(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t H = pick(1, 5), nope = pick(1, 20), rope = pick(0, 3) * 2, v = pick(1, 20), R = pick(1, 40);
  const float scale = 0.3f;
  const RandomCache cache(k, f, R + rope);
  const size_t n = cache.B * cache.T;
  const auto q_nope = normal(n * H * nope), q_rope = normal(n * H * rope);
  const Stored kv_up(k, normal(H * (nope + v) * R, 0.3f), f);
  std::vector<double> expected(n * H * v);
  for (size_t i = 0; i < n * H; ++i) {
    const size_t token = i / H, h = i % H;
    if (cache.positions[token] < 0) continue;
    const auto rows = cache.visible(token / cache.T, token % cache.T);
    const float* const w = &kv_up.wide[h * (nope + v) * R];
    std::vector<double> scores;
    for (const float* row : rows) {
      double score = 0;
      for (size_t d = 0; d < nope; ++d) {
        for (size_t r = 0; r < R; ++r) score += double(q_nope[i * nope + d]) * w[d * R + r] * row[r];
      }
      for (size_t d = 0; d < rope; ++d) score += double(q_rope[i * rope + d]) * row[R + d];
      scores.push_back(score * scale);
    }
    const auto p = softmax(scores);
    std::vector<double> latent(R);
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t r = 0; r < R; ++r) latent[r] += p[j] * rows[j][r];
    }
    for (size_t d = 0; d < v; ++d) {
      for (size_t r = 0; r < R; ++r) expected[i * v + d] += latent[r] * w[(nope + d) * R + r];
    }
  }
  for (MlaForm form : {MlaForm::cheaper, MlaForm::absorbed, MlaForm::expanded}) {
    std::vector<float> y(n * H * v, kNan);
    mla_attention(
        k, parallel,
        {cache.view(), H, nope, rope, v, R, scale, q_nope.data(), q_rope.data(), kv_up.rows(R), y.data(), form});
    expect_close("mla " + std::to_string(int(form)) + " " + k.isa + cache.name() + " H-nope-rope-v-R " +
                     shape({H, nope, rope, v, R}),
                 y, expected);
  }
}

void test_gqa(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t G = pick(1, 3), shared = pick(1, 4), H = G * shared, head = pick(1, 40);
  const float scale = 0.3f;
  const RandomCache cache(k, f, 2 * G * head);
  const size_t n = cache.B * cache.T;
  const auto q = normal(n * H * head);
  std::vector<double> expected(n * H * head);
  for (size_t i = 0; i < n * H; ++i) {
    const size_t token = i / H, g = i % H / shared;
    if (cache.positions[token] < 0) continue;
    const auto rows = cache.visible(token / cache.T, token % cache.T);
    std::vector<double> scores;
    for (const float* row : rows) {
      double score = 0;
      for (size_t d = 0; d < head; ++d) score += double(q[i * head + d]) * row[g * head + d];
      scores.push_back(score * scale);
    }
    const auto p = softmax(scores);
    for (size_t j = 0; j < rows.size(); ++j) {
      for (size_t d = 0; d < head; ++d) expected[i * head + d] += p[j] * rows[j][(G + g) * head + d];
    }
  }
  std::vector<float> y(n * H * head, kNan);
  gqa_attention(k, parallel, {cache.view(), H, G, head, scale, q.data(), y.data()});
  expect_close(std::string("gqa ") + k.isa + cache.name() + " H-G-head " + shape({H, G, head}), y, expected);
}

void test_act_halting() {
  const size_t n = pick(1, 9), D = pick(1, 70);
  const bool own = pick(0, 1);
  std::vector<float> thresholds(own ? n : 1);
  for (float& t : thresholds) t = own ? 0.5f + 0.1f * float(pick(0, 9)) : 0.9f;
  const float bias = normal(1)[0];
  const auto threshold_of = [&](size_t i) { return thresholds[own ? i : 0]; };
  const auto h = normal(n * D), out = normal(n * D), weight = normal(D, 0.2f);
  std::vector<float> cumulative(n);
  for (float& sum : cumulative) sum = 0.01f * float(pick(0, 95));
  std::vector<uint8_t> halted(n), halted_next(n, 7);
  for (auto& flag : halted) flag = pick(0, 3) == 0;
  std::vector<int32_t> depth(n, 4), depth_next(n);
  std::vector<double> p(n), out_expected(out.begin(), out.end()), sums(cumulative.begin(), cumulative.end());
  for (size_t i = 0; i < n; ++i) {
    double logit = bias;
    for (size_t d = 0; d < D; ++d) logit += double(h[i * D + d]) * weight[d];
    p[i] = 1 / (1 + std::exp(-logit));
    if (std::abs(sums[i] + p[i] - threshold_of(i)) < 1e-5) return;  // a rounding may decide it
    if (halted[i]) continue;
    const double share = sums[i] + p[i] >= threshold_of(i) ? std::max(1 - sums[i], 0.0) : p[i];
    for (size_t d = 0; d < D; ++d) out_expected[i * D + d] += share * h[i * D + d];
    sums[i] += p[i];
  }
  std::vector<float> p_got(n, kNan), out_got(n * D, kNan), sums_got(n, kNan);
  bool running = false, expected_running = false;
  act_halting({n, D, h.data(), out.data(), cumulative.data(), reinterpret_cast<const bool*>(halted.data()),
               depth.data(), weight.data(), bias, thresholds.data(), own, p_got.data(), out_got.data(), sums_got.data(),
               reinterpret_cast<bool*>(halted_next.data()), depth_next.data(), &running});
  const std::string name = "act_halting n-D " + shape({n, D});
  expect_close(name + " p", p_got, p);
  expect_close(name + " out", out_got, out_expected);
  expect_close(name + " cumulative", sums_got, sums);
  for (size_t i = 0; i < n; ++i) {
    const bool done = halted[i] || sums[i] >= threshold_of(i);
    if (halted_next[i] != done) fail(name + ": halted");
    if (depth_next[i] != (halted[i] ? 4 : 5)) fail(name + ": depth");
    expected_running |= !done;
  }
  if (running != expected_running) fail(name + ": running");
}

}  // namespace mythos::test
