// The operators over block-wise int8 and int4 weights, from ONNX Runtime's tensors to the arguments of ops.h.
// register.cpp includes this.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cpu/ops.h"
#include "cpu/ort_tensors.h"

namespace mythos {
namespace {

// The shapes of an operator's outputs, as far as its inputs' tell them.
using Shapes = std::optional<std::vector<Ort::ShapeInferContext::Shape>>;

constexpr auto kFloat32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kFloat16 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;

struct Int8 {
  static constexpr auto onnx = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
  static constexpr Format format = q8;
  static constexpr size_t lane_bytes = 16;  // of a tile's weights of one input
};
struct Int4 {
  static constexpr auto onnx = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  static constexpr Format format = q4;
  static constexpr size_t lane_bytes = 8;
};
template <class Form>
constexpr const char* name_of(const char* int8, const char* int4) {
  return Form::format == q8 ? int8 : int4;
}

// A matrix [rows, inputs], or `experts` of them, whose layout is checked.
template <class Form>
Weights quantized(const Ort::KernelContext& context, size_t first, const char* name, const char* scale_name,
                  std::optional<size_t> experts, size_t rows, size_t inputs) {
  const Input weight(context, first, name), scale(context, first + 1, scale_name);
  const size_t tiles = ceil_div(rows, 16), blocks = ceil_div(inputs, 32);
  if (experts) {
    weight.is({*experts, tiles, blocks * 32, Form::lane_bytes});
    scale.is({*experts, tiles, blocks, 16});
  } else {
    weight.is({tiles, blocks * 32, Form::lane_bytes});
    scale.is({tiles, blocks, 16});
  }
  return {weight.data<void>(), blocks * 32 * Form::lane_bytes / 16, Form::format, scale.data<uint16_t>(), blocks};
}

template <class Form>
struct QuantizedLinearKernel {
  static constexpr const char* name = name_of<Form>("int8_linear", "int4_linear");
  static constexpr ONNXTensorElementDataType inputs[] = {kFloat32, Form::onnx, kFloat16};
  static constexpr ONNXTensorElementDataType F = kFloat32;
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  size_t rows;

  explicit QuantizedLinearKernel(const Ort::ConstKernelInfo& info) : rows(checked_size(info, "rows")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    auto shape = context.GetInputShape(0);
    if (shape.empty()) return std::nullopt;
    shape.back() = context.GetAttrInt("rows");
    return {{shape}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input x(context, 0, "x");
    const size_t K = x.last(), n = x.size() / K;
    const Weights w = quantized<Form>(context, 1, "weight", "scale", std::nullopt, rows, K);
    Shape shape = x.shape();
    shape.back() = static_cast<int64_t>(rows);
    Output<float> y(context, shape);
    linear(kernels, OrtParallel(context), {n, K, rows, x.data<float>(), w, y.get()});
  }
};

template <class Form>
struct QuantizedEmbeddingKernel {
  static constexpr const char* name = name_of<Form>("int8_embedding", "int4_embedding");
  static constexpr ONNXTensorElementDataType inputs[] = {kInt64, Form::onnx, kFloat16};
  static constexpr ONNXTensorElementDataType F = kFloat32;
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  size_t dim;

  explicit QuantizedEmbeddingKernel(const Ort::ConstKernelInfo& info) : dim(checked_size(info, "dim")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    auto shape = context.GetInputShape(0);
    if (shape.empty()) return std::nullopt;  // rank 0 stands for an unknown one too
    shape.push_back(context.GetAttrInt("dim"));
    return {{shape}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input ids(context, 0, "ids");
    const Input weight(context, 1, "weight");
    const size_t tiles = weight.rank(3).dim(0);
    const Weights w = quantized<Form>(context, 1, "weight", "scale", std::nullopt, tiles * 16, dim);
    Shape shape = ids.shape();
    shape.push_back(static_cast<int64_t>(dim));
    Output<float> y(context, shape);
    embedding(kernels, {ids.size(), dim, tiles * 16, ids.data<int64_t>(), w, y.get()});
  }
};

template <class Form>
struct QuantizedMoeKernel {
  static constexpr const char* name = name_of<Form>("int8_moe", "int4_moe");
  static constexpr ONNXTensorElementDataType inputs[] = {kFloat32,   kInt64,   kFloat32,   Form::onnx, kFloat16,  Form::onnx,
                                                         kFloat16,   Form::onnx, kFloat16, Form::onnx, kFloat16};
  static constexpr ONNXTensorElementDataType F = kFloat32;
  static constexpr ONNXTensorElementDataType outputs[] = {F};

  explicit QuantizedMoeKernel(const Ort::ConstKernelInfo&) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& x = context.GetInputShape(0);
    if (x.size() < 2) return std::nullopt;  // rank 0 stands for an unknown one too
    return {{x}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input x(context, 0, "x"), index(context, 1, "expert_index"), weight(context, 2, "expert_weight");
    const Input gate_up(context, 3, "routed_gate_up"), shared_gate_up(context, 7, "shared_gate_up");
    const size_t D = x.last(), n = x.size() / D, K = index.last();
    // Widths in whole tiles: what they are padded by is zero, in the rows of gate and up and in the inputs of down.
    const size_t E = gate_up.rank(4).dim(0), F = gate_up.dim(1) / 2 * 16, Fs = shared_gate_up.rank(3).dim(0) / 2 * 16;
    Shape routing = x.shape();
    routing.back() = static_cast<int64_t>(K);
    index.is(routing);
    weight.is(routing);
    const Weights routed = quantized<Form>(context, 3, "routed_gate_up", "routed_gate_up_scale", E, 2 * F, D);
    const Weights down = quantized<Form>(context, 5, "routed_down", "routed_down_scale", E, D, F);
    const Weights shared = quantized<Form>(context, 7, "shared_gate_up", "shared_gate_up_scale", {}, 2 * Fs, D);
    const Weights shared_down = quantized<Form>(context, 9, "shared_down", "shared_down_scale", {}, D, Fs);
    Output<float> y(context, x.shape());
    moe(kernels, OrtParallel(context),
        {n, D, E, K, F, Fs, x.data<float>(), index.data<int64_t>(), weight.data<float>(), routed, down, shared,
         shared_down, y.get()});
  }
};

}  // namespace
}  // namespace mythos
