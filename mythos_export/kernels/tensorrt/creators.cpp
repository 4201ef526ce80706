// The operators as TensorRT plug-ins (IPluginV3), on the Triton kernels that an engine holds compiled. Built into
// engines, not executed on a GPU.
//
//   registry->loadLibrary("libmythos_tensorrt_plugins.so")   // before a graph is parsed, or an engine is loaded
//
// The library is linked neither to TensorRT nor to CUDA: TensorRT asks it for creators, and the driver is opened with
// the first launch. Why something was refused, `mythos_plugin_error` tells (said.h).
#include <cstring>
#include <stdexcept>

#include "tensorrt/plugin.h"
#include "tensorrt/said.h"

namespace mythos::tensorrt {
namespace {

// Which there are, and the attributes of their nodes (`Operator.plugin` of op.py; a test holds this to it).
const std::vector<std::pair<const char*, std::vector<const char*>>> kOperators = {
    {"moe", {}},
    {"mla_attention", {"scale", "v_head_dim"}},
    {"gqa_attention", {"scale", "kv_heads"}},
    {"act_halting", {}}};

// Fields as TensorRT hands them over; one that is neither characters nor a number is none of ours.
Given given_by(const trt::PluginFieldCollection* collection) {
  Given given;
  for (std::int32_t i = 0; collection && i < collection->nbFields; ++i) {
    const trt::PluginField& field = collection->fields[i];
    if (!field.name || field.length < 0 || (field.length && !field.data))
      throw std::invalid_argument("a field without a name or without data");
    if (field.type == trt::PluginFieldType::kCHAR) {
      std::string text(static_cast<const char*>(field.data), static_cast<size_t>(field.length));
      if (!std::strcmp(field.name, kKernels) || !std::strcmp(field.name, kVariant)) text = text.c_str();
      given.texts[field.name] = std::move(text);
      continue;
    }
    const auto number = [&](auto value) {
      if (field.length < 1) throw std::invalid_argument(std::string(field.name) + " holds no number");
      std::memcpy(&value, field.data, sizeof value);
      return value;
    };
    cuda::Value& value = given.numbers[field.name];
    if (field.type == trt::PluginFieldType::kFLOAT32) value = cuda::Value::of_float(number(float()));
    else if (field.type == trt::PluginFieldType::kFLOAT64) value = cuda::Value::of_float(number(double()));
    else if (field.type == trt::PluginFieldType::kINT32) value = cuda::Value::of(number(std::int32_t()));
    else if (field.type == trt::PluginFieldType::kINT64) value = cuda::Value::of(number(std::int64_t()));
    else given.numbers.erase(field.name);
  }
  return given;
}

class Creator final : public trt::IPluginCreatorV3One {
 public:
  Creator(const char* op, const std::vector<const char*>& attributes) : op_(op) {
    for (const char* name : attributes) names_.push_back({name});
    names_.push_back({kVariant});
    names_.push_back({kKernels});
    collection_.nbFields = static_cast<std::int32_t>(names_.size());
    collection_.fields = names_.data();
  }

  trt::IPluginV3* createPlugin(const char*, const trt::PluginFieldCollection* fields,
                               trt::TensorRTPhase) noexcept override {
    return guarded<trt::IPluginV3*>(op_, nullptr, [&] { return new Plugin(node_of(op_, given_by(fields))); });
  }
  const trt::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return op_.c_str(); }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  std::string op_;
  std::vector<trt::PluginField> names_;
  trt::PluginFieldCollection collection_;
};

// Never destroyed: a registry that is static itself may outlive this library's own statics.
const std::vector<trt::IPluginCreatorInterface*>& creators() {
  static const auto& made = *[] {
    auto* all = new std::vector<trt::IPluginCreatorInterface*>;
    for (const auto& [op, attributes] : kOperators) all->push_back(new Creator(op, attributes));
    return all;
  }();
  return made;
}

}  // namespace
}  // namespace mythos::tensorrt

extern "C" {

// Asked by IPluginRegistry::loadLibrary.
__attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
  count = static_cast<std::int32_t>(mythos::tensorrt::creators().size());
  return mythos::tensorrt::creators().data();
}
__attribute__((visibility("default"))) void setLoggerFinder(void*) {}
}
