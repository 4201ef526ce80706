#include "cuda/call.h"

#include <algorithm>
#include <stdexcept>

namespace mythos::cuda {
namespace {

[[noreturn]] void unfit(const Tensor& tensor, const Shape& shape, const std::string& expected) {
  throw std::invalid_argument(tensor.name + " has the shape " + text(shape) + ", expected " + expected);
}

}  // namespace

std::string text(const Shape& shape) {
  std::string all;
  for (const std::int64_t size : shape) all += (all.empty() ? "" : ", ") + std::to_string(size);
  return "[" + all + "]";
}

bool fits(const Call& call, const std::string& name, const Shape& shape) {
  const auto known = call.trailing.find(name);
  if (known == call.trailing.end()) return true;
  const auto& sizes = known->second;
  return sizes.size() <= shape.size() &&
         std::equal(sizes.rbegin(), sizes.rend(), shape.rbegin(), [](std::int64_t want, std::int64_t have) {
           return want < 0 || have < 0 || want == have;
         });
}

std::vector<const Tensor*> inputs_of(const Call& call) {
  std::vector<const Tensor*> found;
  for (const Tensor& tensor : call.signature->inputs)
    if (std::find(call.inputs.begin(), call.inputs.end(), tensor.name) != call.inputs.end()) found.push_back(&tensor);
  return found;
}

std::string type_of(const Call& call, const Tensor& tensor) {
  if (tensor.type == "floats") return call.floats;
  if (tensor.type == "stored") return call.stored;
  return tensor.type == "scale" ? "fp16" : tensor.type;
}

void Invocation::bind(const std::string& name, std::int64_t size, const Tensor& tensor, const Shape& shape) {
  const auto [found, added] = names_.emplace(name, Value::of(size));
  if (!added && found->second.integer != size)
    unfit(tensor, shape, name + " = " + std::to_string(found->second.integer));
}

void Invocation::input(const Tensor& tensor, const Shape& shape, Address address) {
  buffers_[tensor.name] = address;
  shapes_[tensor.name] = shape;
  if (tensor.or_scalar) names_[tensor.name + "_stride"] = Value::of(!shape.empty());
  if (tensor.any_extents || (tensor.or_scalar && shape.empty())) return;
  const size_t behind = tensor.extents.size(), lead = shape.size() - std::min(behind, shape.size());
  if (shape.size() < behind || (!tensor.leading && lead))
    unfit(tensor, shape, std::to_string(behind) + " dimensions" + (tensor.leading ? " or more" : ""));
  if (tensor.leading) {
    const Shape found(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(lead));
    if (has_leading_ && found != leading_) unfit(tensor, shape, text(leading_) + " to begin with");
    leading_ = found;
    has_leading_ = true;
    std::int64_t product = 1;
    for (const std::int64_t size : leading_)
      if (__builtin_mul_overflow(product, size, &product)) unfit(tensor, shape, "fewer elements than 64 bits count");
    names_["lead"] = Value::of(product);
  }
  for (size_t i = 0; i < behind; ++i) bind(tensor.extents[i], shape[lead + i], tensor, shape);
}

Shape Invocation::shape_of(const Tensor& output) const {
  if (!output.updates.empty()) return shapes_.at(output.updates);
  Shape shape = output.leading ? leading_ : Shape();
  for (const Expression& product : output.products) shape.push_back(product.integer(names_));
  return shape;
}

void Invocation::output(const Tensor& tensor, const Shape& shape, Address address) {
  if (!tensor.updates.empty()) {
    std::int64_t elements = 1;
    for (const std::int64_t size : shape) elements *= size;  // of a tensor that is there
    updates_.push_back({&tensor, buffers_.at(tensor.updates), address, elements});
    return;
  }
  buffers_[tensor.name] = address;
  nothing_ = nothing_ && std::find(shape.begin(), shape.end(), 0) != shape.end();
}

void Invocation::launch(Launcher& launcher, const Call& call, void* stream) {
  for (const Update& update : updates_) {
    const std::int64_t bytes = update.elements * element_bytes(type_of(call, *update.output));
    if (update.from != update.to && bytes)
      Driver::get().copy(update.to, update.from, static_cast<size_t>(bytes), stream);
    buffers_[update.output->updates] = update.to;
  }
  if (nothing_) return;
  Names sizes;
  for (const auto& [name, expression] : call.signature->sizes) sizes[name] = expression.value(names_);
  launcher.run(call, std::move(buffers_), std::move(sizes), stream);
}

}  // namespace mythos::cuda
