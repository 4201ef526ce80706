// The operators as functions of plain pointers; mythos_export/kernels/cpu/register.cpp gives them to ONNX Runtime.
//
// Legend: B batch, T new tokens, L stacked layers or loop depths, S capacity of the past, C cache width, H heads,
// G kv heads, R latent width, P rotary width, E experts, K chosen experts, F expert width, Fs width of the shared
// experts.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace mythos {

// Sizes that the caller has checked against the tensors; the values inside index tensors are checked by the operators,
// which throw std::invalid_argument.

struct Moe {
  size_t n, D, E, K, F, Fs;
  const float* x;               // [n, D]
  const int64_t* expert_index;  // [n, K]
  const float* expert_weight;   // [n, K]
  Weights routed_gate_up;       // [E * 2F, D], gate rows before up rows
  Weights routed_down;          // [E * D, F], D in whole tiles of the format
  Weights shared_gate_up;       // [2Fs, D]
  Weights shared_down;          // [D, Fs]
  float* y;                     // [n, D]
  bool rounded = false;         // activations are rounded to int8 before every product
  const uint8_t* idle = nullptr;  // [n], or none: not zero where nobody reads a row's result, which is zeros then
  // Floats of hidden rows at a time, 4 MB, where it is not one expert's one token alone. The result does not depend on it.
  size_t most_hidden = size_t{1} << 20;
};
void moe(const Kernels& kernels, const Parallel& parallel, const Moe& op);

// The sum of moe, over outputs of the experts that are given.
struct ExpertSum {
  size_t n, D, K;
  const float* parts;           // [n, K, D]
  const int64_t* expert_index;  // [n, K]
  const float* expert_weight;   // [n, K]
  const float* shared;          // [n, D], or null where there are no shared experts
  float* y;                     // [n, D]
};
void expert_sum(const Kernels& kernels, const Parallel& parallel, const ExpertSum& op);

// y = x . weights^T
struct Linear {
  size_t n, K, rows;
  const float* x;   // [n, K]
  Weights weights;  // [rows, K]
  float* y;         // [n, rows]
  bool rounded = false;  // x is rounded to int8
};
void linear(const Kernels& kernels, const Parallel& parallel, const Linear& op);

// Rows of the weights in float32.
struct Embedding {
  size_t n, dim, rows;
  const int64_t* ids;  // [n]
  Weights weights;     // [rows, dim]
  float* y;            // [n, dim]
};
void embedding(const Kernels& kernels, const Embedding& op);

// Cache lines rounded to int8 and back, `width` neighbours with one scale.
struct RoundedLine {
  size_t parts, width;
  const float* x;  // [parts, width]
  float* y;        // [parts, width]
};
void rounded_line(const Kernels& kernels, const Parallel& parallel, const RoundedLine& op);

// What both kinds of attention read: slots j < past_lengths[b] of past[layer, b], then the chunk's own tokens.
struct Cache {
  size_t B, T, L, S, C;
  Weights past;  // [L * B * S, C]
  int64_t layer;
  Weights chunk;                // [B * T, C]
  const int64_t* positions;     // [B, T], -1: padding
  const int64_t* past_lengths;  // [B]
};

enum class MlaForm { cheaper, absorbed, expanded };

struct Mla {
  Cache cache;
  size_t H, nope, rope, v, R;
  float scale;
  const float* q_nope;              // [B, T, H, nope]
  const float* q_rope;              // [B, T, H, rope]
  Weights kv_up;                    // [H * (nope + v), R]
  float* y;                         // [B, T, H * v]
  MlaForm form = MlaForm::cheaper;  // the tests ask for each
};
void mla_attention(const Kernels& kernels, const Parallel& parallel, const Mla& op);

struct Gqa {
  Cache cache;
  size_t H, G, head;
  float scale;
  const float* q;  // [B, T, H, head]
  float* y;        // [B, T, H * head]
};
void gqa_attention(const Kernels& kernels, const Parallel& parallel, const Gqa& op);

// Halting of n positions; state in, and the state after it. float32 in every model.
struct ActHalting {
  size_t n, D;
  const float* h;           // [n, D]
  const float* out;         // [n, D]
  const float* cumulative;  // [n]
  const bool* halted;       // [n]
  const int32_t* depth;     // [n]
  const float* weight;      // [D]
  float bias;
  const float* threshold;   // [n], or one for all
  bool own_threshold;       // which
  float* p;                // [n]
  float* out_next;         // [n, D]
  float* cumulative_next;  // [n]
  bool* halted_next;       // [n]
  int32_t* depth_next;     // [n]
  bool* running;           // []
};
void act_halting(const ActHalting& op);

}  // namespace mythos
