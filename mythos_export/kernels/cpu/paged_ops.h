// The operators over a paged cache as ONNX Runtime custom operators; part of register.cpp.
//
// Where a caller binds one buffer as the cache before and after, rows are appended in place. Otherwise the whole cache
// is copied, as the operator says. Those with a `_` behind their names have no cache among their outputs and write into
// the one that they are given, as PyTorch's do (mythos_model/paged_ops.py): for a Loop, which would carry a copy.
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

// What is computed in, and what pages hold: T itself or, of Int8Lines, int8 lines, in float32.
struct Int8Lines {};
template <class T_>
struct Pages {
  using T = T_;
  static constexpr bool packed = false;
  static constexpr auto element = Element<T>::onnx;
};
template <>
struct Pages<Int8Lines> {
  using T = float;
  static constexpr bool packed = true;
  static constexpr auto element = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
};

// Refuses a cache that is written into and is a constant of the graph.
inline void check_writable(const Ort::ConstKernelInfo& info, size_t cache) {
  int constant = 0;
  info.GetTensorConstantInput(cache, &constant);
  if (constant) throw std::invalid_argument("cache is written to, and is a constant of the graph");
}

// The cache after the call, with the rows' entries; the inputs from `first` on are entry, cache, tables, span, position.
// `parts`: of a line, where those are int8.
template <class P, bool in_place>
Paged appended(const Kernels& kernels, const Ort::KernelContext& context, size_t first, size_t rows, size_t C,
               const Parts& parts) {
  using T = typename P::T;
  const Input entry(context, first, "entry"), cache(context, first + 1, "cache"), tables(context, first + 2, "tables");
  const Input span(context, first + 3, "span"), position(context, first + 4, "position");
  entry.is({rows, C});
  cache.rank(3).is({cache.dim(0), kPage, P::packed ? parts.bytes() : C});
  tables.rank(2);
  span.is({rows});
  position.is({rows});
  const size_t bytes = P::packed ? parts.bytes() : C * sizeof(T);  // of a line
  void* to = const_cast<void*>(cache.data<void>());
  if constexpr (!in_place) {
    to = context.GetOutput(1, cache.shape().data(), cache.shape().size()).GetTensorMutableRawData();
    if (to != cache.data<void>()) std::memcpy(to, cache.data<void>(), cache.dim(0) * kPage * bytes);
  }
  const Paged paged{rows,
                    tables.dim(0),
                    tables.dim(1),
                    cache.dim(0),
                    C,
                    {to, bytes, Element<T>::format, nullptr, 0},
                    tables.data<int64_t>(),
                    span.data<int64_t>(),
                    position.data<int64_t>(),
                    P::packed ? parts : Parts{}};
  append(kernels, paged, entry.data<T>(), to);
  return paged;
}

// Lets only those rows attend whose results somebody reads; the entries of the others have been appended. `first`: as
// `Idle` has it.
class Attending {
 public:
  Attending(const Ort::KernelContext& context, size_t first, Paged& paged) {
    const Idle idle(context, first, paged.rows);
    if (!idle.rows()) return;
    span_.assign(paged.span, paged.span + paged.rows);
    for (size_t i = 0; i < paged.rows; ++i)
      if (idle.rows()[i]) span_[i] = -1;
    paged.span = span_.data();
  }

 private:
  std::vector<int64_t> span_;
};

using PagedShapes = std::optional<std::vector<Ort::ShapeInferContext::Shape>>;

// Of the outputs for q [rows, heads, .]: [rows, heads * width] and the cache.
inline PagedShapes paged_shapes(Ort::ShapeInferContext& context, size_t cache, int64_t width) {
  const auto& q = context.GetInputShape(0);
  return {{{q[0], q[1].AsInt() * width}, context.GetInputShape(cache)}};
}

template <class Kept, bool in_place>
struct PagedGqa {
  using P = Pages<Kept>;
  using T = typename P::T;
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F,      F,     P::element, kInt64, kInt64,
                                                         kInt64, kBool, kBool,      kFloat32};
  static constexpr size_t optional_inputs = 3;  // what tells idle rows
  float scale;
  size_t G;

  explicit PagedGqa(const Ort::ConstKernelInfo& info) : scale(checked_scale(info)), G(checked_size(info, "kv_heads")) {
    if (in_place) check_writable(info, 2);
  }

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
    Paged paged = appended<P, in_place>(kernels, context, 1, rows, 2 * G * head, {2 * G, head, head});
    const Attending attending(context, 6, paged);
    Output<T> y(context, {rows, H * head});
    paged_gqa_attention(kernels, OrtParallel(context), {paged, H, G, head, scale, q_floats.get(), y.get()});
    y.finish(kernels);
  }
};

template <class Kept, bool in_place>
struct PagedMla {
  using P = Pages<Kept>;
  using T = typename P::T;
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F,      F, F,     P::element, kInt64, kInt64,
                                                         kInt64, F, kBool, kBool,      kFloat32};
  static constexpr size_t optional_inputs = 3;  // what tells idle rows
  float scale;
  size_t v;

  explicit PagedMla(const Ort::ConstKernelInfo& info) : scale(checked_scale(info)), v(checked_size(info, "v_head_dim")) {
    if (in_place) check_writable(info, 3);
  }

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
    Paged paged = appended<P, in_place>(kernels, context, 2, rows, R + rope, {2, R, rope});
    const Attending attending(context, 8, paged);
    Output<T> y(context, {rows, H * v});
    paged_mla_attention(kernels, OrtParallel(context),
                        {paged, H, nope, rope, v, R, scale, q_nope_floats.get(), q_rope_floats.get(),
                         weights<T>(kv_up, R), y.get()});
    y.finish(kernels);
  }
};

template <class Kept>
struct PagedGqaKernel : PagedGqa<Kept, false> {
  using PagedGqa<Kept, false>::PagedGqa;
  static constexpr const char* name = "paged_gqa_attention";
  static constexpr ONNXTensorElementDataType outputs[] = {PagedGqaKernel::F, PagedGqaKernel::P::element};
  static constexpr size_t cache_input = 2;
};

template <class Kept>
struct PagedGqaInPlaceKernel : PagedGqa<Kept, true> {
  using PagedGqa<Kept, true>::PagedGqa;
  static constexpr const char* name = "paged_gqa_attention_";
  static constexpr ONNXTensorElementDataType outputs[] = {PagedGqaInPlaceKernel::F};
};

template <class Kept>
struct PagedMlaKernel : PagedMla<Kept, false> {
  using PagedMla<Kept, false>::PagedMla;
  static constexpr const char* name = "paged_mla_attention";
  static constexpr ONNXTensorElementDataType outputs[] = {PagedMlaKernel::F, PagedMlaKernel::P::element};
  static constexpr size_t cache_input = 3;
};

template <class Kept>
struct PagedMlaInPlaceKernel : PagedMla<Kept, true> {
  using PagedMla<Kept, true>::PagedMla;
  static constexpr const char* name = "paged_mla_attention_";
  static constexpr ONNXTensorElementDataType outputs[] = {PagedMlaInPlaceKernel::F};
};

}  // namespace
}  // namespace mythos
