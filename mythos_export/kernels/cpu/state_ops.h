// What reads and writes a position's own values, as ONNX Runtime custom operators: the halting, and lines that a cache keeps
// in int8. Part of register.cpp.
#pragma once
#include <optional>
#include <stdexcept>
#include <string>

#include "cpu/ops.h"
#include "cpu/ort_tensors.h"

namespace mythos {
namespace {

// Lines are rounded in float32 alone, so T is float.
template <class T>
struct RoundedLineKernel {
  static constexpr const char* name = "rounded_line";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F};
  static constexpr ONNXTensorElementDataType outputs[] = {F};
  size_t width;

  explicit RoundedLineKernel(const Ort::ConstKernelInfo& info) : width(checked_size(info, "width")) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& x = context.GetInputShape(0);
    if (x.empty()) return std::nullopt;  // rank 0 stands for an unknown one too
    return {{x}};
  }

  void compute(const Kernels& kernels, const Ort::KernelContext& context) const {
    const Input x(context, 0, "x");
    if (x.last() % width) {
      throw std::invalid_argument("x has lines of " + std::to_string(x.last()) + " values, which width = " +
                                  std::to_string(width) + " does not divide");
    }
    Output<T> y(context, x.shape());
    rounded_line(kernels, OrtParallel(context), {x.size() / width, width, x.data<T>(), y.get()});
    y.finish(kernels);
  }
};

// The state is float32 at every precision, so T is float.
template <class T>
struct ActKernel {
  static constexpr const char* name = "act_halting";
  static constexpr ONNXTensorElementDataType F = Element<T>::onnx;
  static constexpr ONNXTensorElementDataType inputs[] = {F, F, F, kBool, kInt32, F, F, F};
  static constexpr ONNXTensorElementDataType outputs[] = {F, F, F, kBool, kInt32, kBool};

  explicit ActKernel(const Ort::ConstKernelInfo&) {}

  static Shapes output_shapes(Ort::ShapeInferContext& context) {
    const auto& h = context.GetInputShape(0);
    if (h.size() < 2) return std::nullopt;  // rank 0 stands for an unknown one too
    const Ort::ShapeInferContext::Shape positions(h.begin(), h.end() - 1);
    return {{positions, h, positions, positions, positions, {}}};
  }

  void compute(const Kernels&, const Ort::KernelContext& context) const {
    const Input h(context, 0, "h"), out(context, 1, "out"), cumulative(context, 2, "cumulative");
    const Input halted(context, 3, "halted"), depth(context, 4, "depth"), weight(context, 5, "weight");
    const Input bias(context, 6, "bias"), threshold(context, 7, "threshold");
    const size_t D = h.last();
    const Shape& positions = cumulative.shape();
    Shape rows = positions;
    rows.push_back(static_cast<int64_t>(D));
    for (const Input* one : {&h, &out}) one->is(rows);
    for (const Input* one : {&halted, &depth}) one->is(positions);
    weight.is({1, D});
    bias.is({1});
    const bool own_threshold = threshold.shape().size() != 0;
    if (own_threshold) threshold.is(positions);
    const auto at = [&](size_t index, const Shape& shape) {
      return context.GetOutput(index, shape.data(), shape.size()).GetTensorMutableRawData();
    };
    act_halting({cumulative.size(), D, h.data<T>(), out.data<T>(), cumulative.data<T>(), halted.data<bool>(),
                 depth.data<int32_t>(), weight.data<T>(), *bias.data<T>(), threshold.data<T>(),
                 own_threshold, static_cast<T*>(at(0, positions)), static_cast<T*>(at(1, h.shape())),
                 static_cast<T*>(at(2, positions)), static_cast<bool*>(at(3, positions)),
                 static_cast<int32_t*>(at(4, positions)), static_cast<bool*>(at(5, {}))});
  }
};

}  // namespace
}  // namespace mythos
