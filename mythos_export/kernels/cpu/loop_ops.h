// What stands in the Loop of loops.onnx beside the step's own nodes (mythos_export/step_in_loop.py), as two operators in
// place of ten: of a small model every node of a loop counts. Part of register.cpp.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <string>

#include "cpu/ort_tensors.h"

namespace mythos {
namespace {

inline int64_t scalar(const Ort::KernelContext& context, size_t index, const char* name) {
  const Input input(context, index, name);
  input.is({});
  return *input.data<int64_t>();
}

template <class T>
T* output(const Ort::KernelContext& context, size_t index, const Shape& shape) {
  return static_cast<T*>(context.GetOutput(index, shape.data(), shape.size()).GetTensorMutableRawData());
}

// What the rows [r] are told of loop `index` of a call:
//   last, threshold [l, r]: line `index`. loop: as many loops on. span: that of the loop behind it, `ahead` further.
struct LoopKnobsKernel {
  static constexpr const char* name = "loop_knobs";
  static constexpr ONNXTensorElementDataType inputs[] = {kInt64, kInt64, kInt64, kInt64, kBool, kFloat32};
  static constexpr size_t optional_inputs = 1;
  static constexpr ONNXTensorElementDataType outputs[] = {kInt64, kInt64, kBool, kFloat32};
  static constexpr size_t optional_outputs = 1;

  explicit LoopKnobsKernel(const Ort::ConstKernelInfo&) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& rows = context.GetInputShape(1);
    return {std::vector<Ort::ShapeInferContext::Shape>(context.GetInputCount() - 2, rows)};
  }

  void compute(const Kernels&, const Ort::KernelContext& context) const {
    const int64_t index = scalar(context, 0, "index");
    const Input loop(context, 1, "loop"), span(context, 2, "span"), ahead(context, 3, "ahead"), last(context, 4, "last");
    const size_t rows = loop.rank(1).dim(0);
    for (const Input* one : {&span, &ahead}) one->is({rows});
    last.rank(2).is({last.dim(0), rows});
    if (index < 0 || static_cast<size_t>(index) >= last.dim(0))
      throw std::invalid_argument("index is " + std::to_string(index) + "; last has " + std::to_string(last.dim(0)) +
                                  " lines");
    const size_t line = static_cast<size_t>(index) * rows;
    int64_t* const loop_now = output<int64_t>(context, 0, loop.shape());
    int64_t* const span_next = output<int64_t>(context, 1, loop.shape());
    for (size_t i = 0; i < rows; ++i) {
      loop_now[i] = loop.data<int64_t>()[i] + index;
      span_next[i] = span.data<int64_t>()[i] + ahead.data<int64_t>()[i];
    }
    std::copy_n(last.data<bool>() + line, rows, output<bool>(context, 2, loop.shape()));
    if (context.GetInputCount() <= 5) return;
    const Input threshold(context, 5, "threshold");
    threshold.is(last.shape());
    std::copy_n(threshold.data<float>() + line, rows, output<float>(context, 3, loop.shape()));
  }
};

// Whether another loop follows: none of the rows that stop the call [r] has halted; and how many have run with this one.
struct LoopGoesOnKernel {
  static constexpr const char* name = "loop_goes_on";
  static constexpr ONNXTensorElementDataType inputs[] = {kInt64, kBool, kBool};
  static constexpr ONNXTensorElementDataType outputs[] = {kBool, kInt64};

  explicit LoopGoesOnKernel(const Ort::ConstKernelInfo&) {}

  static Shapes output_shapes(Ort::ShapeInferContext&) {
    return {std::vector<Ort::ShapeInferContext::Shape>(2)};
  }

  void compute(const Kernels&, const Ort::KernelContext& context) const {
    const int64_t index = scalar(context, 0, "index");
    const Input stops(context, 1, "stops"), halted(context, 2, "halted");
    const size_t rows = stops.rank(1).dim(0);
    halted.is({rows});
    bool goes = true;
    for (size_t i = 0; i < rows; ++i) goes &= !(stops.data<bool>()[i] && halted.data<bool>()[i]);
    *output<bool>(context, 0, {}) = goes;
    *output<int64_t>(context, 1, {}) = index + 1;
  }
};

}  // namespace
}  // namespace mythos
