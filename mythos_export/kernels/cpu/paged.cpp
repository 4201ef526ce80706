#include "cpu/paged.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/attention.h"

namespace mythos {
namespace {

constexpr size_t kPartKeys = 8 * kPage;       // keys of a task
constexpr size_t kBlockQueries = 48;          // queries of a task: their sums stay in the cache
constexpr size_t kPartialFloats = 1 << 21;    // of the partial results that are kept at a time

std::string at(const char* name, size_t i) { return std::string(name) + "[" + std::to_string(i) + "]"; }

void check(const Paged& p) {
  for (size_t i = 0; i < p.rows; ++i) {
    const int64_t span = p.span[i], position = p.position[i];
    if (span < -1 || span >= static_cast<int64_t>(p.spans))
      throw std::invalid_argument(at("span", i) + " is " + std::to_string(span) + "; there are spans 0 to " +
                                  std::to_string(static_cast<int64_t>(p.spans) - 1) + ", and -1 for padding");
    if (span < 0) continue;
    if (position < 0 || position >= static_cast<int64_t>(p.blocks * kPage))
      throw std::invalid_argument(at("position", i) + " is " + std::to_string(position) + "; a table of " +
                                  std::to_string(p.blocks) + " pages has positions 0 to " +
                                  std::to_string(static_cast<int64_t>(p.blocks * kPage) - 1));
    // The rows before it have had the pages that they share with this one looked at.
    const bool follows = i > 0 && p.span[i - 1] == span && p.position[i - 1] <= position;
    for (size_t b = follows ? p.position[i - 1] / kPage : 0; b <= position / kPage; ++b) {
      const int64_t page = p.tables[span * p.blocks + b];
      if (page < 0 || page >= static_cast<int64_t>(p.pages))
        throw std::invalid_argument("tables[" + std::to_string(span) + ", " + std::to_string(b) + "] is " +
                                    std::to_string(page) + "; there are pages 0 to " +
                                    std::to_string(static_cast<int64_t>(p.pages) - 1));
    }
  }
}

// Rows `first` .. first + count - 1, all of one span, and some heads of one kv head.
struct RowBlock {
  size_t first, count;
  size_t head, heads;
  size_t parts;     // of kPartKeys keys
  size_t partials;  // where its partial results begin, in queries
  int64_t oldest, newest;

  size_t queries() const { return count * heads; }
};

struct Task {
  size_t block, part;
};

size_t parts_of(int64_t position) { return static_cast<size_t>(position) / kPartKeys + 1; }

// Partial results of all parts of all blocks: [parts, queries, width] of a block, and two numbers per query.
struct Partials {
  Buffer<float> sum, max, norm;
  Partials(size_t queries, size_t width) : sum(queries * width), max(queries), norm(queries) {}
};

Queries queries_of(const RowBlock& block, size_t part, const PagedHeads& heads, const Partials& partials,
                   const float* const* rows, const int64_t* positions) {
  const size_t count = block.queries(), first = block.partials + part * count;
  return {rows, positions, count, heads.depth, &partials.sum[first * heads.width], &partials.max[first],
          &partials.norm[first], heads.width};
}

// What a kv head reads of a page: the page itself or, of int8 lines, those of its columns made floats, which the products
// then read as they would a page of such.
class Columns {
 public:
  Columns(const Paged& p, const PagedHeads& heads, size_t group)
      : parts_(p.parts),
        key_(group * heads.depth),
        value_(heads.value_column + group * heads.width),
        depth_(heads.depth),
        width_(heads.width),
        within_(value_ >= key_ && value_ + width_ <= key_ + depth_),
        row_(depth_ + (within_ ? 0 : width_)),
        floats_(parts_.count ? kPage * row_ : 0) {}

  Weights keys(const Kernels& kernels, const Weights& page, size_t rows) const {
    return parts_.count ? unpacked(kernels, page, rows, key_, depth_, 0) : page.column(key_);
  }
  // After `keys`, of the same page.
  Weights values(const Kernels& kernels, const Weights& page, size_t rows) const {
    if (!parts_.count) return page.column(value_);
    if (within_) return rows_of(floats_.get() + (value_ - key_), row_);
    return unpacked(kernels, page, rows, value_, width_, depth_);
  }

 private:
  Weights unpacked(const Kernels& kernels, const Weights& page, size_t rows, size_t column, size_t n, size_t to) const {
    const int8_t* line = static_cast<const int8_t*>(page.data);
    float* y = floats_.get() + to;
    for (size_t row = 0; row < rows; ++row, line += page.row_bytes, y += row_)
      unpack_line(kernels, parts_, line, column, n, y);
    return rows_of(floats_.get() + to, row_);
  }

  const Parts& parts_;
  size_t key_, value_, depth_, width_;
  bool within_;
  size_t row_;
  Buffer<float> floats_;
};

void attend_part(const Kernels& kernels, const Paged& p, const PagedHeads& heads, const RowBlock& block, size_t part,
                 const Partials& partials) {
  const size_t count = block.queries(), g = block.head / (heads.H / heads.G);
  Buffer<const float*> row(count);
  Buffer<int64_t> position(count);
  Buffer<float> scores(score_floats(count));
  for (size_t i = 0; i < count; ++i) {
    const size_t r = block.first + i / block.heads;
    row[i] = heads.query + (r * heads.H + block.head + i % block.heads) * heads.depth;
    position[i] = p.position[r];
  }
  const Queries queries = queries_of(block, part, heads, partials, row.get(), position.get());
  queries.clear();
  const Columns columns(p, heads, g);
  const int64_t* const table = p.tables + p.span[block.first] * p.blocks;
  const int64_t end = std::min(static_cast<int64_t>((part + 1) * kPartKeys), block.newest + 1);
  int64_t key_positions[kPage];
  for (int64_t first = part * kPartKeys; first < end; first += kPage) {
    for (size_t j = 0; j < kPage; ++j) key_positions[j] = first + static_cast<int64_t>(j);
    const bool all_see_all = key_positions[kPage - 1] <= block.oldest;
    const Weights page = p.cache.row(table[first / kPage] * kPage);
    const size_t there = std::min<size_t>(kPage, static_cast<size_t>(end - first));
    attend(kernels, queries,
           {columns.keys(kernels, page, there), columns.values(kernels, page, there), kPage,
            all_see_all ? nullptr : key_positions},
           heads.scale, scores.get());
  }
}

// out = the sum of a query's parts, in their order.
void merge_parts(const Kernels& kernels, const Paged& p, const PagedHeads& heads, const RowBlock& block,
                 const Partials& partials, float* out) {
  const size_t count = block.queries();
  for (size_t i = 0; i < count; ++i) {
    const size_t r = block.first + i / block.heads, parts = parts_of(p.position[r]);
    float* const y = out + (r * heads.H + block.head + i % block.heads) * heads.width;
    float top = -std::numeric_limits<float>::infinity(), total = 0;
    for (size_t part = 0; part < parts; ++part) top = std::max(top, partials.max[block.partials + part * count + i]);
    for (size_t part = 0; part < parts; ++part) {
      const size_t q = block.partials + part * count + i;
      const float share = std::exp(partials.max[q] - top);
      total += partials.norm[q] * share;
      (part == 0 ? kernels.scale : kernels.axpy)(share, &partials.sum[q * heads.width], y, heads.width);
    }
    kernels.scale(1.0f / total, y, y, heads.width);
  }
}

// The blocks of the rows from `row` on, until the partial results are many enough; returns the next row.
size_t next_blocks(const Paged& p, const PagedHeads& heads, size_t row, std::vector<RowBlock>& blocks) {
  const size_t shared = heads.H / heads.G, most_heads = std::min(shared, kBlockQueries);
  const size_t most_rows = std::max<size_t>(kBlockQueries / shared, 1);
  size_t queries = 0;
  while (row < p.rows && queries * heads.width < kPartialFloats) {
    if (p.span[row] < 0) {
      ++row;
      continue;
    }
    RowBlock block{row, 0, 0, 0, 0, 0, p.position[row], p.position[row]};
    for (; row < p.rows && block.count < most_rows && p.span[row] == p.span[block.first]; ++row, ++block.count) {
      block.oldest = std::min(block.oldest, p.position[row]);
      block.newest = std::max(block.newest, p.position[row]);
    }
    block.parts = parts_of(block.newest);
    for (size_t g = 0; g < heads.G; ++g) {
      for (size_t h = 0; h < shared; h += most_heads) {
        block.head = g * shared + h;
        block.heads = std::min(most_heads, shared - h);
        block.partials = queries;
        queries += block.parts * block.queries();
        blocks.push_back(block);
      }
    }
  }
  return row;
}

}  // namespace

void append(const Kernels& kernels, const Paged& p, const void* entry, void* cache) {
  check(p);
  const size_t bytes = p.cache.row_bytes;
  for (size_t i = 0; i < p.rows; ++i) {
    if (p.span[i] < 0) continue;
    const size_t page = static_cast<size_t>(p.tables[p.span[i] * p.blocks + p.position[i] / kPage]);
    char* const line = static_cast<char*>(cache) + (page * kPage + p.position[i] % kPage) * bytes;
    if (p.parts.count) {
      pack_line(kernels, p.parts, static_cast<const float*>(entry) + i * p.C, reinterpret_cast<int8_t*>(line));
    } else {
      std::memcpy(line, static_cast<const char*>(entry) + i * bytes, bytes);
    }
  }
}

void attend_paged(const Kernels& kernels, const Parallel& parallel, const Paged& p, const PagedHeads& heads,
                  float* out) {
  for (size_t i = 0; i < p.rows; ++i) {
    if (p.span[i] < 0) std::fill_n(out + i * heads.H * heads.width, heads.H * heads.width, 0.0f);
  }
  std::vector<RowBlock> blocks;
  std::vector<Task> tasks;
  for (size_t row = 0; row < p.rows;) {
    blocks.clear();
    tasks.clear();
    row = next_blocks(p, heads, row, blocks);
    if (blocks.empty()) return;
    size_t products = 0;
    for (size_t b = 0; b < blocks.size(); ++b) {
      products += blocks[b].queries() * (heads.depth + heads.width) * (static_cast<size_t>(blocks[b].newest) + 1);
      for (size_t part = 0; part < blocks[b].parts; ++part) tasks.push_back({b, part});
    }
    const size_t queries = blocks.back().partials + blocks.back().parts * blocks.back().queries();
    const Partials partials(queries, heads.width);
    parallel.each(tasks.size(), products, [&](size_t t) {
      attend_part(kernels, p, heads, blocks[tasks[t].block], tasks[t].part, partials);
    });
    parallel.each(blocks.size(), queries * heads.width,
                  [&](size_t b) { merge_parts(kernels, p, heads, blocks[b], partials, out); });
  }
}

}  // namespace mythos
