// ONNX Runtime's tensors as the operators take them, with the checks whose messages name the tensor.
#pragma once
#include "onnxruntime_api.h"

#include <cmath>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/shape.h"

namespace mythos {
namespace {

constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
constexpr auto kInt32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
constexpr auto kBool = ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
constexpr auto kFloat32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kFloat16 = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;

// The shapes of an operator's outputs, as far as its inputs' tell them.
using Shapes = std::optional<std::vector<Ort::ShapeInferContext::Shape>>;

template <class T>
struct Element;
template <>
struct Element<float> {
  static constexpr auto onnx = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  static constexpr Format format = f32;
};
template <>
struct Element<uint16_t> {  // float16
  static constexpr auto onnx = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  static constexpr Format format = f16;
};

class OrtParallel final : public Parallel {
 public:
  explicit OrtParallel(const Ort::KernelContext& context) : context_(context) {}
  void run(size_t n, void (*task)(void*, size_t), void* data) const override {
    context_.ParallelFor(task, n, n, data);  // n batches: a thread that is done takes the next one
  }

 private:
  const Ort::KernelContext& context_;
};

Shape shape_of(const OrtTensorTypeAndShapeInfo* info) {
  size_t rank;
  Ort::ThrowOnError(Ort::GetApi().GetDimensionsCount(info, &rank));
  Shape shape(rank);
  Ort::ThrowOnError(Ort::GetApi().GetDimensions(info, shape.data(), rank));
  return shape;
}

// An input with the name that the errors call it by.
class Input {
 public:
  Input(const Ort::KernelContext& context, size_t index, const char* name)
      : name_(name), value_(context.GetInput(index)), shape_(shape_of(value_.GetTensorTypeAndShapeInfo())) {}

  size_t dim(size_t i) const { return static_cast<size_t>(shape_[i]); }
  // The size of the last dimension; the ones before it count rows.
  size_t last() const {
    if (shape_.size() < 2 || shape_.back() < 1) fail("rows of one element or more");
    return static_cast<size_t>(shape_.back());
  }
  const Shape& shape() const { return shape_; }
  // The same rows with another last dimension.
  Shape shape_with(size_t last) const {
    Shape other = shape_;
    other.back() = static_cast<int64_t>(last);
    return other;
  }
  size_t size() const { return elements(shape_); }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(value_.GetTensorRawData());
  }
  const Input& rank(size_t n) const {
    if (shape_.size() != n) fail("a tensor with " + std::to_string(n) + " dimensions");
    return *this;
  }
  const Input& is(std::initializer_list<size_t> expected) const { return is(Shape(expected)); }
  const Input& is(const Shape& expected) const {
    if (shape_ != expected) fail(text(expected));
    return *this;
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    throw std::invalid_argument(std::string(name_) + " has the shape " + text(shape_) + ", expected " + expected);
  }

  const char* name_;
  Ort::ConstValue value_;
  Shape shape_;
};

// Rows of the step whose result nobody reads: halted before, and in their last loop, where only their cache entries are
// wanted. Where a threshold of -inf says so, a row's cap made that loop the last, and others follow: the runtimes give
// -inf to such rows alone, and run an infinite threshold that somebody asked for as the largest finite one. Of nodes
// that say nothing of it (`first` and the two inputs behind it are optional: halted, last, threshold) there are none.
class Idle {
 public:
  Idle(const Ort::KernelContext& context, size_t first, size_t rows) {
    if (context.GetInputCount() <= first || !context.GetInput(first)) return;
    const Input halted(context, first, "halted"), last(context, first + 1, "last");
    const Input threshold(context, first + 2, "threshold");
    for (const Input* one : {&halted, &last, &threshold}) one->is({rows});
    const bool *const has_halted = halted.data<bool>(), *const is_last = last.data<bool>();
    const float* const at = threshold.data<float>();
    idle_.resize(rows);
    for (size_t i = 0; i < rows; ++i) {
      idle_[i] = has_halted[i] && is_last[i] && at[i] > -std::numeric_limits<float>::infinity();
      any_ |= idle_[i];
    }
  }

  // [rows]; null where there are none.
  const uint8_t* rows() const { return any_ ? idle_.data() : nullptr; }

 private:
  std::vector<uint8_t> idle_;
  bool any_ = false;
};

// The elements of an input as float32: where they are, or a copy.
template <class T>
class Floats {
 public:
  Floats(const Kernels& kernels, const Input& input) : copy_(kWide ? 0 : input.size()), data_(input.data<float>()) {
    if constexpr (!kWide) {
      kernels.widen(input.data<uint16_t>(), copy_.get(), input.size());
      data_ = copy_.get();
    }
  }
  const float* get() const { return data_; }

 private:
  static constexpr bool kWide = Element<T>::format == f32;
  Buffer<float> copy_;
  const float* data_;
};

// The output, computed in float32 and rounded once.
template <class T>
class Output {
 public:
  Output(const Ort::KernelContext& context, const Shape& shape)
      : value_(context.GetOutput(0, shape.data(), shape.size())), size_(elements(shape)), wide_(kWide ? 0 : size_) {}

  float* get() { return kWide ? static_cast<float*>(value_.GetTensorMutableRawData()) : wide_.get(); }
  void finish(const Kernels& kernels) {
    if constexpr (!kWide) kernels.narrow(wide_.get(), static_cast<uint16_t*>(value_.GetTensorMutableRawData()), size_);
  }

 private:
  static constexpr bool kWide = Element<T>::format == f32;
  Ort::UnownedValue value_;
  size_t size_;
  Buffer<float> wide_;
};

float checked_scale(const Ort::ConstKernelInfo& info) {
  const float scale = info.GetAttribute<float>("scale");
  if (!(scale > 0) || !std::isfinite(scale)) throw std::invalid_argument("scale must be a positive number");
  return scale;
}

size_t checked_size(const Ort::ConstKernelInfo& info, const char* name) {
  const int64_t value = info.GetAttribute<int64_t>(name);
  if (value < 1)
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + ", expected 1 or more");
  return static_cast<size_t>(value);
}

// A text attribute, or what it is where the node does not say.
std::string attribute_or(const Ort::ConstKernelInfo& info, const char* name, const char* otherwise) {
  size_t size = 0;
  const Ort::Status missing(Ort::GetApi().KernelInfoGetAttribute_string(info, name, nullptr, &size));
  return missing.IsOK() ? info.GetAttribute<std::string>(name) : otherwise;
}

template <class T>
Weights weights(const Input& input, size_t columns) {
  return rows_of(input.data<void>(), columns, Element<T>::format);
}

}  // namespace
}  // namespace mythos
