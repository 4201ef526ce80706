// Products and elementwise kernels at every size around the boundaries that they are cut at: no draw may miss a tail.
#include "cpu/kernels_test.h"

namespace mythos::test {
namespace {

// 1 to `all`, and one less, as many and one more of each boundary.
std::vector<size_t> around(size_t all, std::initializer_list<size_t> boundaries) {
  std::vector<size_t> sizes;
  for (size_t size = 1; size <= all; ++size) sizes.push_back(size);
  for (size_t at : boundaries) {
    for (size_t size = at - 1; size <= at + 1; ++size) {
      if (size > sizes.back()) sizes.push_back(size);
    }
  }
  return sizes;
}

std::vector<double> product(const std::vector<float>& a, size_t m, const std::vector<float>& b, size_t n,
                            size_t depth) {
  std::vector<double> c(m * n);
  for (size_t i = 0; i < m * n; ++i) {
    for (size_t d = 0; d < depth; ++d) c[i] += double(a[i / n * depth + d]) * b[i % n * depth + d];
  }
  return c;
}

void check_nt(const Kernels& k, Format f, const std::vector<float>& a, size_t m, size_t n, size_t depth) {
  const Matrix b(k, f, n, depth, 1.0f);
  std::vector<const float*> rows(m);
  for (size_t i = 0; i < m; ++i) rows[i] = &a[i * depth];
  std::vector<float> c(m * n, kNan);
  k.nt[f](rows.data(), m, b.view(), n, depth, c.data(), n);
  expect_close("nt " + name_of(k, f) + shape({m, n, depth}), c, product(a, m, b.wide, n, depth),
               std::sqrt(double(depth)));
}

void check_product(const Kernels& k, Format f, size_t m, size_t n, size_t depth) {
  const auto a = normal(m * depth);
  check_nt(k, f, a, m, n, depth);
  if (!k.nn[f]) return;
  const Matrix columns(k, f, depth, n, 1.0f);
  std::vector<float> turned(n * depth), y(m * n, kNan);
  for (size_t i = 0; i < n * depth; ++i) turned[i] = columns.wide[i % depth * n + i / depth];
  k.nn[f](a.data(), depth, m, columns.view(), n, depth, y.data(), n, nullptr);
  expect_close("nn " + name_of(k, f) + shape({m, n, depth}), y, product(a, m, turned, n, depth),
               std::sqrt(double(depth)));
}

}  // namespace

void test_edges(const Kernels& k, Format f) {
  const Tiles& t = k.tiles;
  const size_t block = format_of(f).block, tile = format_of(f).tile, panel = t.panel_depth;
  const auto depths = around(2 * t.width + 1, {block, 2 * block, panel, panel + block});
  // As many registers of columns as an `nn` tile takes, all tiles of rows that `nt` takes, and whole tiles of a format.
  const auto columns = around(2 * t.strip + 1, {tile, 2 * tile, 4 * tile, t.width * t.columns});
  const auto rows = around(2 * t.rows + 1, {t.panel_rows, 2 * t.panel_rows, 24});
  // Every depth with every number of rows, and every number of columns with both; the third goes round.
  size_t turn = 0;
  for (size_t m : rows) {
    for (size_t depth : depths) check_product(k, f, m, columns[turn++ % columns.size()], depth);
    for (size_t n : columns) check_product(k, f, m, n, depths[turn++ % depths.size()]);
  }
  for (size_t n : columns) {
    for (size_t depth : depths) check_product(k, f, rows[turn++ % rows.size()], n, depth);
  }
  if (block == 1) {  // in parts, and in blocks of 64 and of 24 rows
    for (size_t m : {2, 7, 24, 64, 65}) {
      for (size_t n : {1, 4, 23, 24, 25, 50}) {
        const size_t depth = kDeep + turn++ % 3 * kDepthAtOnce / 2 + 1;
        check_nt(k, f, normal(m * depth), m, n, depth);
      }
    }
    return;
  }
  const auto heights = around(2 * t.rounded_rows + 1, {});
  const auto rounded = [&](size_t depth, size_t n) {
    test_rounded_linear(k, f, Threads(1), heights[turn++ % heights.size()], depth, n);
  };
  for (size_t n : columns) rounded(depths[turn % depths.size()], n);
  for (size_t depth : depths) rounded(depth, columns[turn % columns.size()]);
}

void test_element_edges(const Kernels& k) {
  for (size_t n = 1; n <= 3 * k.tiles.width + 1; ++n) {
    const auto x = normal(n), y = normal(n);
    const std::string name = std::string(" ") + k.isa + " " + shape({n});
    std::vector<double> sum(n), scaled(n), gated(n);
    for (size_t i = 0; i < n; ++i) {
      sum[i] = 0.3f * double(x[i]) + y[i];
      scaled[i] = 0.3f * double(x[i]);
      gated[i] = double(x[i]) / (1 + std::exp(-double(x[i]))) * y[i];
    }
    std::vector<float> got = y, other(n, kNan);
    k.axpy(0.3f, x.data(), got.data(), n);
    expect_close("axpy" + name, got, sum);
    k.scale(0.3f, x.data(), other.data(), n);
    expect_close("scale" + name, other, scaled);
    k.silu_mul(x.data(), y.data(), other.data(), n);
    expect_close("silu_mul" + name, other, gated);
    std::vector<uint16_t> half(n);
    std::vector<float> wide(n, kNan), again(n, kNan);
    k.narrow(x.data(), half.data(), n);
    k.widen(half.data(), wide.data(), n);
    for (size_t i = 0; i < n; ++i) {
      uint16_t alone;
      k.narrow(&x[i], &alone, 1);
      k.widen(&alone, &again[i], 1);
    }
    if (wide != again) fail("widen, narrow" + name);
  }
  for (size_t rows = 1; rows <= 2 * k.tiles.width + 1; ++rows) {
    for (size_t n = 1; n <= kKeyBlock; ++n) {
      Buffer<float> scores(rows * kKeyBlock);
      std::vector<float> given = normal(rows * n), max(rows), sum(rows), keep(rows), got, kept;
      std::vector<double> expected, expected_sum;
      for (size_t i = 0; i < rows; ++i) {
        max[i] = 0.2f;
        sum[i] = 1.5f;
        std::copy_n(&given[i * n], n, &scores[i * kKeyBlock]);
        const double top = std::max(0.2, 0.5 * *std::max_element(&given[i * n], &given[i * n] + n));
        double total = 1.5 * std::exp(0.2f - top);
        for (size_t j = 0; j < n; ++j) {
          expected.push_back(std::exp(0.5 * given[i * n + j] - top));
          total += expected.back();
        }
        expected_sum.push_back(total);
      }
      k.softmax_block(scores.get(), rows, n, 0.5f, max.data(), sum.data(), keep.data());
      for (size_t i = 0; i < rows; ++i) got.insert(got.end(), &scores[i * kKeyBlock], &scores[i * kKeyBlock] + n);
      const std::string name = std::string(" ") + k.isa + " " + shape({rows, n});
      expect_close("softmax" + name, got, expected);
      expect_close("sum of softmax" + name, sum, expected_sum);
    }
  }
}

}  // namespace mythos::test
