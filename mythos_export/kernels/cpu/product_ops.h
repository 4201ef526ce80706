// The operators that multiply by weights, over every format of formats.h: from ONNX Runtime's tensors to the arguments
// of ops.h. One class an operator; what it computes in and how its weights are stored is its `Column`. register.cpp includes
// this.
#pragma once
#include <optional>
#include <stdexcept>
#include <string>

#include "cpu/ops.h"
#include "cpu/ort_tensors.h"

namespace mythos {
namespace {

// T: what x and the result are, and plain weights; W: how the weights are stored.
template <class T_, Format W>
struct Column {
  using T = T_;
  static constexpr Format format = W;
  static constexpr bool plain = format_of(W).block == 1;
  static constexpr auto compute = Element<T>::onnx;
  static constexpr auto weight = W == int8   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
                                 : W == int4 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
                                             : Element<T>::onnx;

  // A node says its format and has the types of its weights; both have to mean the same. Whether activations are rounded
  // to int8 before a product, the name's end says ("int4a8").
  static bool check(const Ort::ConstKernelInfo& info) {
    const std::string found = attribute_or(info, "format", format_of(f32).name), expected = format_of(W).name;
    if (!plain && found == expected + "a8") return true;
    if (found != expected)
      throw std::invalid_argument("format is '" + found + "', but the weights are those of '" + expected + "'");
    return false;
  }
};

// A matrix [rows, inputs], or `experts` of them, whose layout is checked; plain weights have no scale to look at.
template <class C>
Weights matrix(const Ort::KernelContext& context, const Input& weight, size_t scale_index, const char* scale_name,
               std::optional<size_t> experts, size_t rows, size_t inputs) {
  constexpr FormatTraits format = format_of(C::format);
  const auto with_experts = [&](std::initializer_list<size_t> dims) {
    Shape shape;
    if (experts) shape.push_back(static_cast<int64_t>(*experts));
    for (size_t dim : dims) shape.push_back(static_cast<int64_t>(dim));
    return shape;
  };
  if constexpr (C::plain) {
    weight.is(with_experts({rows, inputs}));
    return weights<typename C::T>(weight, inputs);
  } else {
    const size_t tiles = ceil_div(rows, format.tile), blocks = ceil_div(inputs, format.block);
    const Input scale(context, scale_index, scale_name);
    weight.is(with_experts({tiles, blocks * format.block / format.group(), format.tile, kQuad}));
    scale.is(with_experts({tiles, blocks, format.tile}));
    return {weight.data<void>(), blocks * format.block * format.bits / 8, C::format, scale.data<Scale>(), blocks};
  }
}

template <class C>
struct LinearKernel {
  static constexpr const char* name = "linear";
  static constexpr ONNXTensorElementDataType F = C::compute;
  static constexpr ONNXTensorElementDataType inputs[] = {F, C::weight, kFloat16};
  static constexpr size_t optional_inputs = 1;
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  size_t rows;
  bool rounded;

  explicit LinearKernel(const Ort::ConstKernelInfo& info)
      : rows(checked_size(info, "rows")), rounded(C::check(info)) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    auto shape = context.GetInputShape(0);
    if (shape.empty()) return std::nullopt;
    shape.back() = context.GetAttrInt("rows");
    return {{shape}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input x(context, 0, "x"), weight(context, 1, "weight");
    const size_t K = x.last(), n = x.size() / K;
    const Weights w = matrix<C>(context, weight, 2, "scale", std::nullopt, rows, K);
    const Floats<typename C::T> x_floats(kernels, x);
    Output<typename C::T> y(context, x.shape_with(rows));
    linear(kernels, OrtParallel(context), {n, K, rows, x_floats.get(), w, y.get(), rounded});
    y.finish(kernels);
  }
};

template <class C>
struct EmbeddingKernel {
  static constexpr const char* name = "embedding";
  static constexpr ONNXTensorElementDataType F = C::compute;
  static constexpr ONNXTensorElementDataType inputs[] = {kInt64, C::weight, kFloat16};
  static constexpr size_t optional_inputs = 1;
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  size_t dim;

  explicit EmbeddingKernel(const Ort::ConstKernelInfo& info) : dim(checked_size(info, "dim")) { C::check(info); }

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    auto shape = context.GetInputShape(0);
    if (shape.empty()) return std::nullopt;  // rank 0 stands for an unknown one too
    shape.push_back(context.GetAttrInt("dim"));
    return {{shape}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input ids(context, 0, "ids"), weight(context, 1, "weight");
    const size_t rows = weight.rank(C::plain ? 2 : 4).dim(0) * format_of(C::format).tile;
    const Weights w = matrix<C>(context, weight, 2, "scale", std::nullopt, rows, dim);
    Shape shape = ids.shape();
    shape.push_back(static_cast<int64_t>(dim));
    Output<typename C::T> y(context, shape);
    embedding(kernels, {ids.size(), dim, rows, ids.data<int64_t>(), w, y.get()});
    y.finish(kernels);
  }
};

template <class C>
struct MoeKernel {
  static constexpr const char* name = "moe";
  static constexpr ONNXTensorElementDataType F = C::compute, W = C::weight;
  static constexpr ONNXTensorElementDataType inputs[] = {F,        kInt64,   F,        W,        W,     W,     W,
                                                         kFloat16, kFloat16, kFloat16, kFloat16, kBool, kBool, kFloat32};
  static constexpr size_t optional_inputs = 7;  // the scales, and what tells idle rows
  static constexpr ONNXTensorElementDataType outputs[] = {F};

  bool rounded;

  explicit MoeKernel(const Ort::ConstKernelInfo& info) : rounded(C::check(info)) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& x = context.GetInputShape(0);
    if (x.size() < 2) return std::nullopt;  // rank 0 stands for an unknown one too
    return {{x}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    constexpr size_t tile = format_of(C::format).tile, rank = C::plain ? 2 : 4;
    const Input x(context, 0, "x"), index(context, 1, "expert_index"), weight(context, 2, "expert_weight");
    const Input gate_up(context, 3, "routed_gate_up"), down(context, 4, "routed_down");
    const Input shared_gate_up(context, 5, "shared_gate_up"), shared_down(context, 6, "shared_down");
    const size_t D = x.last(), n = x.size() / D, K = index.last();
    // Widths of a tiled format are whole tiles: what they are padded by is zero, in the rows of gate and up and in the
    // inputs of down.
    const size_t E = gate_up.rank(rank + 1).dim(0), F = gate_up.dim(1) * tile / 2;
    const size_t Fs = shared_gate_up.rank(rank).dim(0) * tile / 2;
    index.is(x.shape_with(K));
    weight.is(x.shape_with(K));
    const Weights routed = matrix<C>(context, gate_up, 7, "routed_gate_up_scale", E, 2 * F, D);
    const Weights routed_down = matrix<C>(context, down, 8, "routed_down_scale", E, D, F);
    const Weights shared = matrix<C>(context, shared_gate_up, 9, "shared_gate_up_scale", std::nullopt, 2 * Fs, D);
    const Weights last = matrix<C>(context, shared_down, 10, "shared_down_scale", std::nullopt, D, Fs);
    const Floats<typename C::T> x_floats(kernels, x), weight_floats(kernels, weight);
    const Idle idle(context, 11, n);
    Output<typename C::T> y(context, x.shape());
    moe(kernels, OrtParallel(context),
        {n, D, E, K, F, Fs, x_floats.get(), index.data<int64_t>(), weight_floats.get(), routed, routed_down, shared,
         last, y.get(), rounded, idle.rows()});
    y.finish(kernels);
  }
};

// What moe's experts have put out elsewhere, summed as moe does it.
template <class T>
struct ExpertSumKernel {
  static constexpr const char* name = "expert_sum";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, kInt64, F, F};
  static constexpr ONNXTensorElementDataType outputs[] = {F};

  explicit ExpertSumKernel(const Ort::ConstKernelInfo&) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    auto shape = context.GetInputShape(0);
    if (shape.size() < 2) return std::nullopt;  // rank 0 stands for an unknown one too
    shape.erase(shape.end() - 2);
    return {{shape}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input parts(context, 0, "parts"), index(context, 1, "expert_index"), weight(context, 2, "expert_weight");
    const Input shared(context, 3, "shared");
    const size_t D = parts.last(), K = index.last(), n = K ? index.size() / K : 0;
    Shape of_parts = index.shape();
    of_parts.push_back(static_cast<int64_t>(D));
    parts.is(of_parts);
    weight.is(index.shape());
    const Shape rows = index.shape_with(D);
    const bool none = shared.shape().size() == 1 && shared.size() == 0;
    if (!none) shared.is(rows);
    Output<T> y(context, rows);
    expert_sum(kernels, OrtParallel(context),
               {n, D, K, parts.data<T>(), index.data<int64_t>(), weight.data<T>(), none ? nullptr : shared.data<T>(),
                y.get()});
    y.finish(kernels);
  }
};

}  // namespace
}  // namespace mythos
