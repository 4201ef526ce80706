// ONNX Runtime's tensors as the operators take them, with the checks whose messages name the tensor.
#pragma once
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace mythos {
namespace {

// Dimensions without an allocation: operators of a decoded token take microseconds.
class Shape {
 public:
  static constexpr size_t kMost = 8;  // inputs have up to 4 dimensions; more than kMost are reported as that many
  Shape(std::initializer_list<int64_t> dims) {
    for (int64_t d : dims) dims_[rank_++] = d;
  }
  explicit Shape(const OrtTensorTypeAndShapeInfo* info) {
    Ort::ThrowOnError(Ort::GetApi().GetDimensionsCount(info, &rank_));
    if (rank_ > kMost) rank_ = kMost;
    Ort::ThrowOnError(Ort::GetApi().GetDimensions(info, dims_, rank_));
  }
  const int64_t* data() const { return dims_; }
  size_t size() const { return rank_; }
  int64_t operator[](size_t i) const { return dims_[i]; }
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }
  bool operator==(std::initializer_list<size_t> other) const {
    return std::equal(begin(), end(), other.begin(), other.end(),
                      [](int64_t a, size_t b) { return a == static_cast<int64_t>(b); });
  }

 private:
  size_t rank_ = 0;
  int64_t dims_[kMost];
};
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

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

template <class Dims>
std::string text(const Dims& dims) {
  std::string s = "[";
  for (auto d : dims) s += (s.size() > 1 ? ", " : "") + std::to_string(d);
  return s + "]";
}

size_t elements(const Shape& shape) {
  size_t n = 1;
  for (int64_t d : shape) n *= static_cast<size_t>(d);
  return n;
}

// An input with the name that the errors call it by.
class Input {
 public:
  Input(const Ort::KernelContext& context, size_t index, const char* name)
      : name_(name), value_(context.GetInput(index)), shape_(value_.GetTensorTypeAndShapeInfo()) {}

  size_t dim(size_t i) const { return static_cast<size_t>(shape_[i]); }
  const Shape& shape() const { return shape_; }
  size_t size() const { return elements(shape_); }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(value_.GetTensorRawData());
  }
  const Input& rank(size_t n) const {
    if (shape_.size() != n) fail("a tensor with " + std::to_string(n) + " dimensions");
    return *this;
  }
  const Input& is(std::initializer_list<size_t> expected) const {
    if (!(shape_ == expected)) fail(text(expected));
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

// The elements of an input as float32: where they lie, or a copy.
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

template <class T>
Weights weights(const Input& input, size_t columns) {
  return rows_of(input.data<void>(), columns, Element<T>::format);
}

}  // namespace
}  // namespace mythos
