#include "tensorrt/plugin.h"

#include <algorithm>
#include <stdexcept>

#include "tensorrt/said.h"
#include "tensorrt/symbols.h"

namespace mythos::tensorrt {

using cuda::Address;
using cuda::Shape;
using cuda::Tensor;

namespace {

trt::DataType type_of(const std::string& type) {
  if (type == "fp32") return trt::DataType::kFLOAT;
  if (type == "fp16") return trt::DataType::kHALF;
  if (type == "bf16") return trt::DataType::kBF16;
  if (type == "i64") return trt::DataType::kINT64;
  if (type == "i32") return trt::DataType::kINT32;
  if (type == "i8") return trt::DataType::kINT8;
  if (type == "u8") return trt::DataType::kUINT8;
  if (type == "i1") return trt::DataType::kBOOL;
  throw std::invalid_argument("a tensor of the type " + type);
}

Shape shape_of(const trt::Dims& dims) {
  const std::int32_t most = trt::Dims::MAX_DIMS;
  return Shape(dims.d, dims.d + std::clamp(dims.nbDims, 0, most));
}

bool is_known(const trt::PluginTensorDesc& tensor) {
  const Shape shape = shape_of(tensor.dims);
  return std::all_of(shape.begin(), shape.end(), [](std::int64_t size) { return size >= 0; });
}

}  // namespace

Plugin::Plugin(std::shared_ptr<const Node> node) : node_(std::move(node)) {
  const auto field = [this](const char* name, const std::string& bytes) {
    if (bytes.size() > INT32_MAX) throw std::invalid_argument(std::string(name) + " is too large for an engine");
    fields_.push_back({name, bytes.data(), trt::PluginFieldType::kCHAR, static_cast<std::int32_t>(bytes.size())});
  };
  field(kProgram, node_->document);
  for (const auto& [name, bytes] : node_->program->held) field(name.c_str(), bytes);
  collection_.nbFields = static_cast<std::int32_t>(fields_.size());
  collection_.fields = fields_.data();
}

trt::IPluginCapability* Plugin::getCapabilityInterface(trt::PluginCapabilityType type) noexcept {
  switch (type) {
    case trt::PluginCapabilityType::kCORE: return static_cast<trt::IPluginV3OneCore*>(this);
    case trt::PluginCapabilityType::kBUILD: return static_cast<trt::IPluginV3OneBuild*>(this);
    case trt::PluginCapabilityType::kRUNTIME: return static_cast<trt::IPluginV3OneRuntime*>(this);
  }
  return nullptr;
}

trt::IPluginV3* Plugin::clone() noexcept {
  return guarded<trt::IPluginV3*>(op(), nullptr, [&] { return new Plugin(node_); });
}

std::int32_t Plugin::getOutputDataTypes(trt::DataType* types, std::int32_t count, const trt::DataType*,
                                        std::int32_t given) const noexcept {
  return guarded(op(), -1, [&] {
    check_counts(given, count);
    for (size_t i = 0; i < outputs().size(); ++i) types[i] = type_of(cuda::type_of(*node_->call, outputs()[i]));
    return 0;
  });
}

std::int32_t Plugin::getOutputShapes(const trt::DimsExprs* inputs, std::int32_t given, const trt::DimsExprs*,
                                     std::int32_t, trt::DimsExprs* shapes, std::int32_t count,
                                     trt::IExprBuilder& builder) noexcept {
  return guarded(op(), -1, [&] {
    check_counts(given, count);
    Symbols symbols(builder);
    for (const auto& [name, value] : node_->attributes)
      if (!value.real) symbols.attribute(name, value.integer);
    for (size_t i = 0; i < node_->inputs.size(); ++i) symbols.input(*node_->inputs[i], inputs[i]);
    for (size_t i = 0; i < outputs().size(); ++i) shapes[i] = symbols.shape(outputs()[i]);
    return 0;
  });
}

bool Plugin::supportsFormatCombination(std::int32_t position, const trt::DynamicPluginTensorDesc* all,
                                       std::int32_t given, std::int32_t count) noexcept {
  return guarded(op(), false, [&] {
    check_counts(given, count);
    if (position < 0 || position >= given + count) throw std::invalid_argument("there is no such tensor");
    const auto at = static_cast<size_t>(position), inputs = node_->inputs.size();
    const Tensor& tensor = at < inputs ? *node_->inputs[at] : outputs()[at - inputs];
    const trt::PluginTensorDesc& offered = all[at].desc;
    const trt::DataType wanted = type_of(cuda::type_of(*node_->call, tensor));
    return offered.format == trt::TensorFormat::kLINEAR && offered.type == wanted;
  });
}

std::int32_t Plugin::configurePlugin(const trt::DynamicPluginTensorDesc* in, std::int32_t given,
                                     const trt::DynamicPluginTensorDesc*, std::int32_t count) noexcept {
  return guarded(op(), -1, [&] {
    check_counts(given, count);
    for (size_t i = 0; i < node_->inputs.size(); ++i) check_sizes(*node_->inputs[i], shape_of(in[i].desc.dims));
    return 0;
  });
}

std::int32_t Plugin::onShapeChange(const trt::PluginTensorDesc* in, std::int32_t given,
                                   const trt::PluginTensorDesc* out, std::int32_t count) noexcept {
  return guarded(op(), -1, [&] {
    check_counts(given, count);
    const bool known = std::all_of(in, in + given, is_known) && std::all_of(out, out + count, is_known);
    if (known) called(in, out, nullptr, nullptr);
    return 0;
  });
}

std::int32_t Plugin::enqueue(const trt::PluginTensorDesc* in, const trt::PluginTensorDesc* out,
                             const void* const* inputs, void* const* results, void*, cudaStream_t stream) noexcept {
  return guarded(op(), -1, [&] {
    called(in, out, inputs, results).launch(*node_->launcher, *node_->call, stream);
    return 0;
  });
}

void Plugin::check_counts(std::int32_t given, std::int32_t count) const {
  const size_t inputs = node_->inputs.size();
  if (given >= 0 && static_cast<size_t>(given) == inputs && count == getNbOutputs()) return;
  throw std::invalid_argument("it is given " + std::to_string(given) + " inputs and " + std::to_string(count) +
                              " outputs, expected " + std::to_string(inputs) + " and " +
                              std::to_string(getNbOutputs()));
}

void Plugin::check_sizes(const Tensor& tensor, const Shape& shape) const {
  if (!cuda::fits(*node_->call, tensor.name, shape))
    throw std::invalid_argument(tensor.name + " has the shape " + cuda::text(shape) +
                                ", and no kernels of this plug-in are for it: export the model again");
}

cuda::Invocation Plugin::called(const trt::PluginTensorDesc* in, const trt::PluginTensorDesc* out,
                                const void* const* inputs, void* const* results) const {
  cuda::Invocation invocation(node_->attributes);
  for (size_t i = 0; i < node_->inputs.size(); ++i) {
    const Shape shape = shape_of(in[i].dims);
    check_sizes(*node_->inputs[i], shape);
    invocation.input(*node_->inputs[i], shape, inputs ? reinterpret_cast<Address>(inputs[i]) : 0);
  }
  for (size_t i = 0; i < outputs().size(); ++i) {
    const Shape shape = invocation.shape_of(outputs()[i]), there = shape_of(out[i].dims);
    if (shape != there)
      throw std::invalid_argument(outputs()[i].name + " would have the shape " + cuda::text(shape) +
                                  ", and has memory for " + cuda::text(there));
    invocation.output(outputs()[i], shape, results ? reinterpret_cast<Address>(results[i]) : 0);
  }
  return invocation;
}

}  // namespace mythos::tensorrt
