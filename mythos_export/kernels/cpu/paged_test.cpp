// Random calls of attention over a paged cache, against sums in double over the entries themselves.
#include "cpu/kernels_test.h"
#include "cpu/paged.h"

namespace mythos::test {
namespace {

// Spans of random length in random pages; NaN in every entry that is no span's. With parts, pages of int8 lines, and
// entries that are what they are rounded to.
struct RandomPages {
  size_t spans = pick(1, 4), blocks = pick(1, 11), pages = spans * blocks + pick(0, 3), C, rows = 0;
  std::vector<int64_t> tables, span, position;
  std::vector<size_t> source;  // of a row: its place in the sequence of all entries
  Stored entries, cache;       // [spans * blocks * kPage, C] in the order of positions; [pages * kPage, C]
  std::vector<float> rows_wide;
  std::vector<uint16_t> rows_half;
  Parts parts;
  std::vector<int8_t> bytes;  // of the pages, where there are parts

  RandomPages(const Kernels& k, Format f, size_t width, const Parts& of = {})
      : C(width), entries(k, normal(spans * blocks * kPage * C), f), cache(k, fill(k), f), parts(of) {
    if (!parts.count) return;
    const size_t line = parts.bytes();
    bytes.assign(pages * kPage * line, -1);  // two such bytes are a scale that is no number
    for (size_t i = 0; i < pages * kPage; ++i) {
      if (!std::isnan(cache.wide[i * C])) pack_line(k, parts, &cache.wide[i * C], &bytes[i * line]);
    }
    std::vector<int8_t> packed(line);
    for (size_t i = 0; i < spans * blocks * kPage; ++i) {
      pack_line(k, parts, &entries.wide[i * C], packed.data());
      unpack_line(k, parts, packed.data(), 0, C, &entries.wide[i * C]);
    }
  }

  std::vector<float> fill(const Kernels&) {
    std::vector<int64_t> free(pages);
    for (size_t i = 0; i < pages; ++i) free[i] = int64_t(i);
    std::shuffle(free.begin(), free.end(), random_engine);
    tables.assign(free.begin(), free.begin() + ptrdiff_t(spans * blocks));
    std::vector<float> values(pages * kPage * C, kNan);
    for (size_t s = 0; s < spans; ++s) {
      const size_t most = blocks * kPage, before = pick(0, most - 1), count = pick(0, std::min<size_t>(most - before, 90));
      for (size_t p = 0; p < before; ++p) {
        const float* const from = &entries.wide[(s * most + p) * C];
        std::copy_n(from, C, &values[(size_t(tables[s * blocks + p / kPage]) * kPage + p % kPage) * C]);
      }
      for (size_t p = before; p < before + count; ++p) {
        span.push_back(int64_t(s));
        position.push_back(int64_t(p));
        source.push_back(s * most + p);
      }
      for (size_t b = (before + count + kPage - 1) / kPage; b < blocks; ++b) tables[s * blocks + b] = -9;
    }
    for (size_t i = pick(0, 2); i > 0; --i) {
      span.push_back(-1);
      position.push_back(-1);
      source.push_back(0);
    }
    rows = span.size();
    return values;
  }
  // The call's cache, with the entries of its rows.
  Paged append_rows(const Kernels& k) {
    rows_wide.assign(rows * C, kNan);
    for (size_t i = 0; i < rows; ++i) {
      if (span[i] >= 0) std::copy_n(&entries.wide[source[i] * C], C, &rows_wide[i * C]);
    }
    rows_half.resize(rows_wide.size());
    k.narrow(rows_wide.data(), rows_half.data(), rows_wide.size());
    const bool half = cache.format == f16;
    const bool packed = parts.count > 0;
    const Weights held = packed ? Weights{bytes.data(), parts.bytes(), f32, nullptr, 0} : cache.rows(C);
    const Paged paged{rows,        spans,           blocks, pages, C, held, tables.data(),
                      span.data(), position.data(), parts};
    append(k, paged, half ? static_cast<const void*>(rows_half.data()) : rows_wide.data(),
           packed ? static_cast<void*>(bytes.data())
                  : half ? static_cast<void*>(cache.half.data()) : cache.wide.data());
    return paged;
  }
  // What a row attends to: entries 0 .. its position.
  std::vector<const float*> seen(size_t row) const {
    std::vector<const float*> lines;
    if (span[row] < 0) return lines;
    for (size_t p = 0; p <= size_t(position[row]); ++p)
      lines.push_back(&entries.wide[(size_t(span[row]) * blocks * kPage + p) * C]);
    return lines;
  }
  std::string name() const { return " spans-blocks-rows " + shape({spans, blocks, rows}); }
};

// Weights of a query over the lines: softmax of scale * (query . key).
std::vector<double> weights_of(const std::vector<const float*>& lines, const std::vector<double>& query, size_t column,
                               double scale) {
  std::vector<double> p;
  double top = -1e300, sum = 0;
  for (const float* line : lines) {
    double score = 0;
    for (size_t d = 0; d < query.size(); ++d) score += query[d] * line[column + d];
    p.push_back(score * scale);
    top = std::max(top, p.back());
  }
  for (double& x : p) sum += x = std::exp(x - top);
  for (double& x : p) x /= sum;
  return p;
}

// Where only some rows attend, they get the bits of `all`, and the others zeros.
template <class F>
void without_some(const std::string& name, const Paged& paged, std::vector<float> all, F&& attend) {
  std::vector<int64_t> span(paged.span, paged.span + paged.rows);
  const size_t width = paged.rows ? all.size() / paged.rows : 0;
  for (size_t i = 0; i < paged.rows; ++i) {
    if (pick(0, 1)) continue;
    span[i] = -1;
    std::fill_n(&all[i * width], width, 0.0f);
  }
  Paged some = paged;
  some.span = span.data();
  std::vector<float> y(all.size(), kNan);
  attend(some, y.data());
  if (y != all) fail(name + ": beside rows that do not attend it differs");
}

}  // namespace

void test_paged_gqa(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t G = pick(1, 3), shared = pick(1, 4), H = G * shared, head = pick(1, 40);
  const bool packed = f == f32 && pick(0, 1);
  RandomPages pages(k, f, 2 * G * head, packed ? Parts{2 * G, head, head} : Parts{});
  const Paged paged = pages.append_rows(k);
  const auto q = normal(pages.rows * H * head);
  std::vector<double> expected(q.size());
  for (size_t i = 0; i < pages.rows * H; ++i) {
    const size_t g = i % H / shared;
    const auto lines = pages.seen(i / H);
    const auto p = weights_of(lines, {&q[i * head], &q[i * head] + head}, g * head, 0.3f);
    for (size_t j = 0; j < lines.size(); ++j)
      for (size_t d = 0; d < head; ++d) expected[i * head + d] += p[j] * lines[j][(G + g) * head + d];
  }
  std::vector<float> y(q.size(), kNan);
  PagedGqa op{paged, H, G, head, 0.3f, q.data(), y.data()};
  paged_gqa_attention(k, parallel, op);
  const std::string name = std::string("paged gqa ") + k.isa + pages.name() + " H-G-head " + shape({H, G, head});
  expect_close(name, y, expected);
  without_some(name, paged, y, [&](const Paged& some, float* out) {
    op.paged = some, op.y = out;
    paged_gqa_attention(k, parallel, op);
  });
}

void test_paged_mla(const Kernels& k, Format f, const Parallel& parallel) {
  const size_t H = pick(0, 9) ? pick(1, 5) : 50, nope = pick(1, 20), rope = pick(0, 3) * 2, v = pick(1, 20);
  const size_t R = pick(1, 40);
  const bool packed = f == f32 && pick(0, 1);
  RandomPages pages(k, f, R + rope, packed ? Parts{rope ? 2u : 1u, R, rope} : Parts{});
  const Paged paged = pages.append_rows(k);
  const auto q_nope = normal(pages.rows * H * nope), q_rope = normal(pages.rows * H * rope);
  const Stored kv_up(k, normal(H * (nope + v) * R, 0.3f), f);
  std::vector<double> expected(pages.rows * H * v);
  for (size_t i = 0; i < pages.rows * H; ++i) {
    const float* const w = &kv_up.wide[i % H * (nope + v) * R];
    std::vector<double> query(R + rope), latent(R);
    for (size_t r = 0; r < R; ++r)
      for (size_t d = 0; d < nope; ++d) query[r] += double(q_nope[i * nope + d]) * w[d * R + r];
    for (size_t d = 0; d < rope; ++d) query[R + d] = q_rope[i * rope + d];
    const auto lines = pages.seen(i / H);
    const auto p = weights_of(lines, query, 0, 0.3f);
    for (size_t j = 0; j < lines.size(); ++j)
      for (size_t r = 0; r < R; ++r) latent[r] += p[j] * lines[j][r];
    for (size_t d = 0; d < v; ++d)
      for (size_t r = 0; r < R; ++r) expected[i * v + d] += latent[r] * w[(nope + d) * R + r];
  }
  std::vector<float> y(expected.size(), kNan);
  PagedMla op{paged, H, nope, rope, v, R, 0.3f, q_nope.data(), q_rope.data(), kv_up.rows(R), y.data()};
  paged_mla_attention(k, parallel, op);
  const std::string name =
      std::string("paged mla ") + k.isa + pages.name() + " H-nope-rope-v-R " + shape({H, nope, rope, v, R});
  expect_close(name, y, expected);
  without_some(name, paged, y, [&](const Paged& some, float* out) {
    op.paged = some, op.y = out;
    paged_mla_attention(k, parallel, op);
  });
}

}  // namespace mythos::test
