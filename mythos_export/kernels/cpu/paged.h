// Attention of packed rows over a paged cache, for both kinds of attention: in this form they differ in which columns of
// an entry are keys and which are values.
//
// A row's result is the same, bit for bit, whatever rows are beside it, in whatever chunks its sequence came, and
// however many threads run: pages are met in the order of positions, and keys are cut for the threads only at fixed
// positions, multiples of kPartKeys, whose partial results are added in their order.
//
// Legend: r rows, H heads, G kv heads, C cache width.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/lines.h"
#include "cpu/parallel.h"

namespace mythos {

constexpr size_t kPage = kKeyBlock;  // positions of a page

// Sizes that the caller has checked against the tensors; the values of the index tensors are checked by `append`.
struct Paged {
  size_t rows, spans, blocks, pages, C;
  Weights cache;            // [pages * kPage, C], holds the rows' entries; of int8 lines, by their bytes alone
  const int64_t* tables;    // [spans, blocks], pages
  const int64_t* span;      // [rows], -1: padding, whose results are zeros
  const int64_t* position;  // [rows]
  Parts parts = {};         // of int8 lines
};

// Writes the rows' entries [rows, C] into `cache`, the memory that p.cache reads: as they are, or of float32 packed into
// int8 lines. Throws std::invalid_argument for a span, a position or a page that is not there.
void append(const Kernels& kernels, const Paged& p, const void* entry, void* cache);

// What the heads of a row look for. Head h, of kv head g = h / (H / G), is dotted with columns g * depth .. of an entry
// and sums columns value_column + g * width .. of it.
struct PagedHeads {
  size_t H, G;
  size_t depth, width, value_column;
  float scale;
  const float* query;  // [rows, H, depth]
};

// out [rows, H, width]; zeros for padding.
void attend_paged(const Kernels& kernels, const Parallel& parallel, const Paged& p, const PagedHeads& heads,
                  float* out);

struct PagedGqa {
  Paged paged;
  size_t H, G, head;
  float scale;
  const float* q;  // [rows, H, head]
  float* y;        // [rows, H * head]
};
void paged_gqa_attention(const Kernels& kernels, const Parallel& parallel, const PagedGqa& op);

struct PagedMla {
  Paged paged;
  size_t H, nope, rope, v, R;
  float scale;
  const float* q_nope;  // [rows, H, nope]
  const float* q_rope;  // [rows, H, rope]
  Weights kv_up;        // [H * (nope + v), R]
  float* y;             // [rows, H * v]
};
void paged_mla_attention(const Kernels& kernels, const Parallel& parallel, const PagedMla& op);

}  // namespace mythos
