// The operators over a paged cache as ONNX Runtime custom operators; part of register.cpp.
//
// Where a caller binds one buffer as the cache before and after, rows are appended in place. Otherwise the whole cache
// is copied, as the operator says.
#pragma once
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cpu/ort_tensors.h"
#include "cpu/paged.h"
#include "cpu/shape.h"

namespace mythos {
namespace {

// The cache after the call, with the rows' entries; the inputs from `first` on are entry, cache, tables, span, position.
template <class T>
Paged appended(const Ort::KernelContext& context, size_t first, size_t rows, size_t C) {
  const Input entry(context, first, "entry"), cache(context, first + 1, "cache"), tables(context, first + 2, "tables");
  const Input span(context, first + 3, "span"), position(context, first + 4, "position");
  entry.is({rows, C});
  cache.rank(3).is({cache.dim(0), kPage, C});
  tables.rank(2);
  span.is({rows});
  position.is({rows});
  auto next = context.GetOutput(1, cache.shape().data(), cache.shape().size());
  T* const to = static_cast<T*>(next.GetTensorMutableRawData());
  if (to != cache.data<T>()) std::memcpy(to, cache.data<T>(), cache.size() * sizeof(T));
  const Paged paged{rows,
                    tables.dim(0),
                    tables.dim(1),
                    cache.dim(0),
                    C,
                    rows_of(to, C, Element<T>::format),
                    tables.data<int64_t>(),
                    span.data<int64_t>(),
                    position.data<int64_t>()};
  append(paged, entry.data<T>(), to);
  return paged;
}

using PagedShapes = std::optional<std::vector<Ort::ShapeInferContext::Shape>>;

// Of the outputs for q [rows, heads, .]: [rows, heads * width] and the cache.
inline PagedShapes paged_shapes(Ort::ShapeInferContext& context, size_t cache, int64_t width) {
  const auto& q = context.GetInputShape(0);
  return {{{q[0], q[1].AsInt() * width}, context.GetInputShape(cache)}};
}

template <class T>
struct PagedGqaKernel {
  static constexpr const char* name = "paged_gqa_attention";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, F, kInt64, kInt64, kInt64};
  static constexpr ONNXTensorElementDataType outputs[] = {F, F};
  float scale;
  size_t G;

  explicit PagedGqaKernel(const Ort::ConstKernelInfo& info)
      : scale(checked_scale(info)), G(checked_size(info, "kv_heads")) {}

  static PagedShapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& q = context.GetInputShape(0);
    if (q.size() != 3 || !q[1].IsInt() || !q[2].IsInt() || q[1].AsInt() < 0 || q[2].AsInt() < 0) return std::nullopt;
    return paged_shapes(context, 2, q[2].AsInt());
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input q(context, 0, "q");
    const size_t rows = q.rank(3).dim(0), H = q.dim(1), head = q.dim(2);
    if (H % G != 0) {
      throw std::invalid_argument("q has " + std::to_string(H) + " heads, which kv_heads = " + std::to_string(G) +
                                  " does not divide");
    }
    const Floats<T> q_floats(kernels, q);
    const Paged paged = appended<T>(context, 1, rows, 2 * G * head);
    Output<T> y(context, {rows, H * head});
    paged_gqa_attention(kernels, OrtParallel(context), {paged, H, G, head, scale, q_floats.get(), y.get()});
    y.finish(kernels);
  }
};

template <class T>
struct PagedMlaKernel {
  static constexpr const char* name = "paged_mla_attention";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, F, F, kInt64, kInt64, kInt64, F};
  static constexpr ONNXTensorElementDataType outputs[] = {F, F};
  float scale;
  size_t v;

  explicit PagedMlaKernel(const Ort::ConstKernelInfo& info)
      : scale(checked_scale(info)), v(checked_size(info, "v_head_dim")) {}

  static PagedShapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& q = context.GetInputShape(0);
    if (q.size() != 3 || !q[1].IsInt() || q[1].AsInt() < 0) return std::nullopt;
    return paged_shapes(context, 3, context.GetAttrInt("v_head_dim"));
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input q_nope(context, 0, "q_nope"), q_rope(context, 1, "q_rope"), kv_up(context, 7, "kv_up");
    const size_t rows = q_nope.rank(3).dim(0), H = q_nope.dim(1), nope = q_nope.dim(2);
    const size_t rope = q_rope.rank(3).dim(2), R = kv_up.rank(2).dim(1);
    q_rope.is({rows, H, rope});
    kv_up.is({H * (nope + v), R});
    const Floats<T> q_nope_floats(kernels, q_nope), q_rope_floats(kernels, q_rope);
    const Paged paged = appended<T>(context, 2, rows, R + rope);
    Output<T> y(context, {rows, H * v});
    paged_mla_attention(kernels, OrtParallel(context),
                        {paged, H, nope, rope, v, R, scale, q_nope_floats.get(), q_rope_floats.get(),
                         weights<T>(kv_up, R), y.get()});
    y.finish(kernels);
  }
};

}  // namespace
}  // namespace mythos
