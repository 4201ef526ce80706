// An operator as ONNX Runtime sees it: a class with the operator's name, the types of its inputs and outputs, `output_shapes`
// and `compute` becomes a custom operator. Part of register.cpp.
#pragma once
#include <algorithm>
#include <atomic>
#include <deque>
#include <iterator>
#include <string>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/ort_tensors.h"

namespace mythos {
namespace {

template <class K>
OrtStatusPtr failure(const std::exception& error) {
  return Ort::Status((std::string("mythos.") + K::name + ": " + error.what()).c_str(), ORT_INVALID_ARGUMENT).release();
}

// An instance in a session: the instruction set is chosen when the session is made.
template <class K>
struct Instance {
  K op;
  const Kernels& kernels;

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    try {
      op.compute(kernels, Ort::KernelContext(raw));
      return nullptr;
    } catch (const std::exception& error) {
      return failure<K>(error);
    }
  }
};

// The input whose pages an operator appends to; 0 where it has none.
template <class K, class = void>
constexpr size_t cache_input = 0;
template <class K>
constexpr size_t cache_input<K, std::void_t<decltype(K::cache_input)>> = K::cache_input;

// Whether an operator is there for several types to compute in, `F`.
template <class K, class = void>
constexpr bool has_compute_type = false;
template <class K>
constexpr bool has_compute_type<K, std::void_t<decltype(K::F)>> = true;

// What K computes in at this node, as its first input of that type says.
template <class K>
ONNXTensorElementDataType compute_type(OrtShapeInferContext* raw) {
  const size_t typed_by = std::find(std::begin(K::inputs), std::end(K::inputs), K::F) - std::begin(K::inputs);
  OrtTensorTypeAndShapeInfo* input = nullptr;  // belongs to the context
  ONNXTensorElementDataType compute;
  Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputTypeShape(raw, typed_by, &input));
  Ort::ThrowOnError(Ort::GetApi().GetTensorElementType(input, &compute));
  return compute == kFloat16 ? compute : kFloat32;  // of integer weights, too
}

// ONNX Runtime asks the first of the operators that share a name, whatever the types of a node are: an output of the
// compute type gets it from the first input that may have it, which is why the wrapper of CustomOpBase, which cannot
// see it, is not used.
template <class K>
OrtStatusPtr infer_outputs(const OrtCustomOp*, OrtShapeInferContext* raw) {
  try {
    Ort::ShapeInferContext context(&Ort::GetApi(), raw);
    auto shapes = K::output_shapes(context);
    if (!shapes) return nullptr;
    // A size that ONNX Runtime does not know comes as -1, and would go back as a size of -1: two tensors of "size -1"
    // count as equally large then, and share memory. A symbol that no other dimension has says what is meant.
    static std::atomic<unsigned> unknown{0};
    std::deque<std::string> symbols;
    for (auto& shape : *shapes)
      for (auto& dim : shape)
        if (dim.IsInt() && dim.AsInt() < 0)
          dim = symbols.emplace_back(std::string("mythos.") + K::name + "." + std::to_string(unknown++)).c_str();
    const auto type_of = [&](size_t i) {
      if constexpr (cache_input<K> != 0) {  // the last output is that cache, of whatever it is made
        if (i + 1 == std::size(K::outputs)) {
          OrtTensorTypeAndShapeInfo* input = nullptr;
          ONNXTensorElementDataType held;
          Ort::ThrowOnError(Ort::GetApi().ShapeInferContext_GetInputTypeShape(raw, cache_input<K>, &input));
          Ort::ThrowOnError(Ort::GetApi().GetTensorElementType(input, &held));
          return held;
        }
      }
      if constexpr (has_compute_type<K>) {
        if (K::outputs[i] == K::F) return compute_type<K>(raw);
      }
      return K::outputs[i];
    };
    for (size_t i = 0; i < shapes->size(); ++i)
      Ort::ThrowOnError(context.SetOutputShape(i, (*shapes)[i], type_of(i)));
    return nullptr;
  } catch (const std::exception& error) {
    return failure<K>(error);
  }
}

// Trailing inputs and outputs that a node may leave out.
template <class K, class = void>
constexpr size_t optional_inputs = 0;
template <class K>
constexpr size_t optional_inputs<K, std::void_t<decltype(K::optional_inputs)>> = K::optional_inputs;
template <class K, class = void>
constexpr size_t optional_outputs = 0;
template <class K>
constexpr size_t optional_outputs<K, std::void_t<decltype(K::optional_outputs)>> = K::optional_outputs;

template <class K>
struct Operator : Ort::CustomOpBase<Operator<K>, Instance<K>, true> {
  Operator() { this->InferOutputShapeFn = infer_outputs<K>; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    try {
      *kernel = new Instance<K>{K(Ort::ConstKernelInfo(info)), select_kernels()};
      return nullptr;
    } catch (const std::exception& error) {
      return failure<K>(error);
    }
  }
  const char* GetName() const { return K::name; }
  const char* GetExecutionProviderType() const { return "CPUExecutionProvider"; }
  size_t GetInputTypeCount() const { return std::size(K::inputs); }
  ONNXTensorElementDataType GetInputType(size_t i) const { return K::inputs[i]; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t i) const {
    return i < std::size(K::inputs) - optional_inputs<K> ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }
  size_t GetOutputTypeCount() const { return std::size(K::outputs); }
  ONNXTensorElementDataType GetOutputType(size_t i) const { return K::outputs[i]; }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(size_t i) const {
    return i < std::size(K::outputs) - optional_outputs<K> ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }
};

}  // namespace
}  // namespace mythos
