// A call's shapes and addresses on their way to the launcher, whoever hands them over: ONNX Runtime or TensorRT.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cuda/launcher.h"

namespace mythos::cuda {

using Shape = std::vector<std::int64_t>;

std::string text(const Shape& shape);

// Whether an input's last dimensions are those that the call's plans are for; -1 in a shape is not known yet.
bool fits(const Call& call, const std::string& name, const Shape& shape);

// The inputs that it gives, in the operator's order, and what its tensors' elements are ("fp16", "i64").
std::vector<const Tensor*> inputs_of(const Call& call);
std::string type_of(const Call& call, const Tensor& tensor);

class Invocation {
 public:
  // Args: attributes of the node, which expressions may name.
  explicit Invocation(Names attributes) : names_(std::move(attributes)) {}

  // The next input. Throws std::invalid_argument where its shape does not fit the operator, or an input before.
  void input(const Tensor& tensor, const Shape& shape, Address address);
  // Of an output, once all inputs are there.
  Shape shape_of(const Tensor& output) const;
  void output(const Tensor& tensor, const Shape& shape, Address address);
  // Puts the kernels into a stream, unless no output has an element that they make; before them, copies of inputs that
  // outputs update elsewhere. Throws what `Launcher::run` does.
  void launch(Launcher& launcher, const Call& call, void* stream);

 private:
  void bind(const std::string& name, std::int64_t size, const Tensor& tensor, const Shape& shape);

  Names names_;    // attributes, extents, and `lead`, the product of leading ones
  Shape leading_;  // that any number of extents may be
  bool has_leading_ = false, nothing_ = true;
  Buffers buffers_;
  std::map<std::string, Shape> shapes_;  // of inputs
  struct Update {
    const Tensor* output;
    Address from, to;
    std::int64_t elements;
  };
  std::vector<Update> updates_;
};

}  // namespace mythos::cuda
