// The micro-kernels that the operators are written in, as a table per instruction set, and how they see a matrix.
//
//   const Kernels& k = select_kernels();           // the best of this processor, or what MYTHOS_OPS_ISA says
//   k.nt[f32](rows, m, weights, n, depth, c, ldc);  // c[m, n] = rows . weights^T
//
// Two products carry all of the work. `nt` takes both operands along the rows that are in memory (a linear layer with
// weights [out, in]; scores of queries against cached keys), so that weights and cache are read as they are, in order,
// and nothing is packed. `nn` takes the right operand by columns (probabilities times cached values; queries times
// W_uk).
//
// A weight format is one column of the tables `nt` and `nn` and its row in formats.h; operators address weights only
// through `Weights` and cut them only at multiples of a format's `tile`. Prefill and decode share one layout, for a
// kernel gets the number m of activation rows and chooses its tiling itself. Scales are apart from the weights.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "cpu/formats.h"

namespace mythos {

// A matrix that is only read, by rows: weights [out, in], or a slice of the cache [slots, C].
struct Weights {
  const void* data = nullptr;
  size_t row_bytes = 0;  // of a tiled format, a tile's bytes over its rows
  Format format = f32;
  const Scale* scales = nullptr;  // of int8 and int4: [tiles, blocks, tile]
  size_t scale_row = 0;           // scales of a row

  Weights row(size_t r) const {
    return {static_cast<const char*>(data) + r * row_bytes, row_bytes, format, scales + r * scale_row, scale_row};
  }
  // The same rows without their first c elements; only for formats whose elements are one behind the other.
  Weights column(size_t c) const {
    return {static_cast<const char*>(data) + c * format_of(format).bits / 8, row_bytes, format, nullptr, 0};
  }
};
inline Weights rows_of(const float* data, size_t stride) { return {data, stride * sizeof(float), f32, nullptr, 0}; }
inline Weights rows_of(const void* data, size_t stride, Format f) {
  return {data, stride * format_of(f).bits / 8, f, nullptr, 0};
}

// A row of activations rounded to int8, as `round` makes it for one format: of every block of 32, integers, their scale
// (a value is scale times integer), and what their sum has to be moved by for the zero of the weights.
struct RoundedRow {
  const int8_t* q;      // in whole blocks
  const float* scale;   // [blocks]
  const int32_t* zero;  // [blocks]
};
// A block whose largest activation is less is rounded to zeros, and so is a part of a cache line.
constexpr float kLeastRounded = 0x1p-100f;

// Keys that one call of softmax_block covers at most, and the stride of its rows. 32 rows of a cache 160 wide stay in
// the first level between the scores and the weighted sum.
constexpr size_t kKeyBlock = 32;

// Rows longer than kDeep meet the activations in parts, so that many of these stay in the second level meanwhile.
constexpr size_t kDeep = 4096, kDepthAtOnce = 1024;

// How the products of an instruction set are cut: what is not a multiple of these takes other paths.
struct Tiles {
  size_t width;        // floats of a register
  size_t rows;         // activation rows of an `nt` tile at most
  size_t strip;        // rows of weights that `nt` takes at a time
  size_t columns;      // registers of columns of an `nn` tile at most
  size_t panel_rows;   // activation rows of a tile of a block-wise format at most
  size_t panel_depth;  // inputs of such a format that are unpacked at a time
  size_t rounded_rows; // rounded activation rows of a tile at most
};

struct Kernels {
  const char* isa;
  Tiles tiles;

  // c[i*ldc + j] = sum over d < depth of a[i][d] * b[j, d];  i < m, j < n. The sum's order depends on depth alone, so a
  // row's result does not change with the rows computed beside it.
  void (*nt[kFormats])(const float* const* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc);

  // c[i*ldc + j] = keep[i] * c[i*ldc + j] + sum over d < depth of a[i*lda + d] * b[d, j];  keep = nullptr: c is only
  // written. Null for int8 and int4.
  void (*nn[kFormats])(const float* a, size_t lda, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc,
                       const float* keep);

  // Activations rounded to int8, and `nt` of such, for weights in int8 and int4; null for plain ones.
  void (*round[kFormats])(const float* x, size_t depth, int8_t* q, float* scale, int32_t* zero);
  void (*nt_rounded[kFormats])(const RoundedRow* a, size_t m, Weights b, size_t n, size_t depth, float* c, size_t ldc);

  // A part of a cache line rounded to int8: n integers, and their scale, the bits of a bfloat16; and back, exactly.
  uint16_t (*round_part)(const float* x, size_t n, int8_t* q);
  void (*unpack_part)(const int8_t* q, uint16_t scale, float* y, size_t n);

  // h[i] = silu(gate[i]) * up[i]
  void (*silu_mul)(const float* gate, const float* up, float* h, size_t n);

  // One step of an online softmax over `rows` rows of n <= kKeyBlock scores, rows kKeyBlock apart and 64-byte aligned
  // (scores may hold -inf; scale > 0). Replaces scores by exp(scale * score - max), and updates each row's running
  // maximum and sum; keep[i] is the factor that what was summed before must be multiplied by.
  void (*softmax_block)(float* scores, size_t rows, size_t n, float scale, float* max, float* sum, float* keep);

  void (*axpy)(float a, const float* x, float* y, size_t n);   // y += a * x
  void (*scale)(float a, const float* x, float* y, size_t n);  // y = a * x
  void (*widen)(const uint16_t* half, float* y, size_t n);     // float16 -> float32
  void (*narrow)(const float* x, uint16_t* half, size_t n);    // float32 -> float16, to nearest even
};

// The tables; null where the build or the processor lacks the instructions.
const Kernels* generic_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
const Kernels* vnni_kernels();
const Kernels* neon_kernels();
const Kernels* neon_dot_kernels();

// The best table of this processor, or the one that the environment variable MYTHOS_OPS_ISA (generic, avx2,
// avx512, avx512vnni, neon, neondot) names. Throws std::runtime_error for an unknown name and for instructions that this processor lacks.
const Kernels& select_kernels();

// What this library is made of, as JSON: the formats, and the tiles of every instruction set that this processor has.
std::string describe();

}  // namespace mythos
