// The attentions over a whole cache as ONNX Runtime custom operators: from their tensors to the arguments of ops.h. Part of
// register.cpp.
#pragma once
#include <optional>
#include <stdexcept>
#include <string>

#include "cpu/ops.h"
#include "cpu/ort_tensors.h"

namespace mythos {
namespace {

// past, layer, chunk, positions, past_lengths: the inputs from `first` on that both kinds of attention share.
template <class T>
Cache cache_of(const Ort::KernelContext& context, size_t first, size_t B, size_t tokens, size_t C) {
  const Input past(context, first, "past"), layer(context, first + 1, "layer"), chunk(context, first + 2, "chunk");
  const Input positions(context, first + 3, "positions"), past_lengths(context, first + 4, "past_lengths");
  past.rank(4).is({past.dim(0), B, past.dim(2), C});
  layer.is({});
  chunk.is({B, tokens, C});
  positions.is({B, tokens});
  past_lengths.is({B});
  return {B,
          tokens,
          past.dim(0),
          past.dim(2),
          C,
          weights<T>(past, C),
          *layer.data<int64_t>(),
          weights<T>(chunk, C),
          positions.data<int64_t>(),
          past_lengths.data<int64_t>()};
}

template <class T>
struct MlaKernel {
  static constexpr const char* name = "mla_attention";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, F, kInt64, F, kInt64, kInt64, F};
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  float scale;
  size_t v;

  explicit MlaKernel(const Ort::ConstKernelInfo& info)
      : scale(checked_scale(info)), v(checked_size(info, "v_head_dim")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& q = context.GetInputShape(0);
    if (q.size() != 4 || !q[2].IsInt() || q[2].AsInt() < 0) return std::nullopt;
    return {{{q[0], q[1], q[2].AsInt() * context.GetAttrInt("v_head_dim")}}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input q_nope(context, 0, "q_nope"), q_rope(context, 1, "q_rope"), kv_up(context, 7, "kv_up");
    const size_t B = q_nope.rank(4).dim(0), tokens = q_nope.dim(1), H = q_nope.dim(2), nope = q_nope.dim(3);
    const size_t rope = q_rope.rank(4).dim(3), R = kv_up.rank(2).dim(1);
    q_rope.is({B, tokens, H, rope});
    kv_up.is({H * (nope + v), R});
    const Floats<T> q_nope_floats(kernels, q_nope), q_rope_floats(kernels, q_rope);
    const Cache cache = cache_of<T>(context, 2, B, tokens, R + rope);
    Output<T> y(context, {q_nope.shape()[0], q_nope.shape()[1], static_cast<int64_t>(H * v)});
    mla_attention(
        kernels, OrtParallel(context),
        {cache, H, nope, rope, v, R, scale, q_nope_floats.get(), q_rope_floats.get(), weights<T>(kv_up, R), y.get()});
    y.finish(kernels);
  }
};

template <class T>
struct GqaKernel {
  static constexpr const char* name = "gqa_attention";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, kInt64, F, kInt64, kInt64};
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  float scale;
  size_t G;

  explicit GqaKernel(const Ort::ConstKernelInfo& info)
      : scale(checked_scale(info)), G(checked_size(info, "kv_heads")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& q = context.GetInputShape(0);
    if (q.size() != 4 || !q[2].IsInt() || !q[3].IsInt() || q[2].AsInt() < 0 || q[3].AsInt() < 0) return std::nullopt;
    return {{{q[0], q[1], q[2].AsInt() * q[3].AsInt()}}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input q(context, 0, "q");
    const size_t B = q.rank(4).dim(0), tokens = q.dim(1), H = q.dim(2), head = q.dim(3);
    if (H % G != 0) {
      throw std::invalid_argument("q has " + std::to_string(H) + " heads, which kv_heads = " + std::to_string(G) +
                                  " does not divide");
    }
    const Floats<T> q_floats(kernels, q);
    const Cache cache = cache_of<T>(context, 1, B, tokens, 2 * G * head);
    Output<T> y(context, {q.shape()[0], q.shape()[1], static_cast<int64_t>(H * head)});
    gqa_attention(kernels, OrtParallel(context), {cache, H, G, head, scale, q_floats.get(), y.get()});
    y.finish(kernels);
  }
};

}  // namespace
}  // namespace mythos
