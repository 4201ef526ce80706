// A node of the domain `mythos` as a plug-in of TensorRT's, or its copy in an execution context.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tensorrt/api.h"
#include "tensorrt/node.h"

namespace mythos::tensorrt {

namespace trt = nvinfer1;

constexpr const char* kNamespace = "mythos";
constexpr const char* kVersion = "1";

class Plugin final : public trt::IPluginV3,
                     public trt::IPluginV3OneCore,
                     public trt::IPluginV3OneBuild,
                     public trt::IPluginV3OneRuntime {
 public:
  explicit Plugin(std::shared_ptr<const Node> node);

  trt::IPluginCapability* getCapabilityInterface(trt::PluginCapabilityType type) noexcept override;
  trt::IPluginV3* clone() noexcept override;

  const char* getPluginName() const noexcept override { return op().c_str(); }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // -- while a network is built --
  std::int32_t getNbOutputs() const noexcept override { return static_cast<std::int32_t>(outputs().size()); }
  std::int32_t getOutputDataTypes(trt::DataType* types, std::int32_t count, const trt::DataType* of,
                                  std::int32_t given) const noexcept override;
  std::int32_t getOutputShapes(const trt::DimsExprs* inputs, std::int32_t given, const trt::DimsExprs* shape_inputs,
                               std::int32_t given_shapes, trt::DimsExprs* shapes, std::int32_t count,
                               trt::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(std::int32_t position, const trt::DynamicPluginTensorDesc* all, std::int32_t given,
                                 std::int32_t count) noexcept override;
  std::int32_t configurePlugin(const trt::DynamicPluginTensorDesc* in, std::int32_t given,
                               const trt::DynamicPluginTensorDesc* out, std::int32_t count) noexcept override;

  // -- while an engine runs --
  std::int32_t onShapeChange(const trt::PluginTensorDesc* in, std::int32_t given, const trt::PluginTensorDesc* out,
                             std::int32_t count) noexcept override;
  // Scratch memory comes from the stream's own pool and not from TensorRT's workspace: how much is needed does not grow
  // with every extent, so that what the largest shapes need is no bound.
  std::int32_t enqueue(const trt::PluginTensorDesc* in, const trt::PluginTensorDesc* out, const void* const* inputs,
                       void* const* results, void* workspace, cudaStream_t stream) noexcept override;
  trt::IPluginV3* attachToContext(trt::IPluginResourceContext*) noexcept override { return clone(); }
  const trt::PluginFieldCollection* getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  const std::string& op() const { return node_->call->signature->name; }
  const std::vector<cuda::Tensor>& outputs() const { return node_->call->signature->outputs; }
  void check_counts(std::int32_t given, std::int32_t count) const;
  void check_sizes(const cuda::Tensor& tensor, const cuda::Shape& shape) const;
  // Shapes, and addresses where there are, held to the operator and to each other.
  cuda::Invocation called(const trt::PluginTensorDesc* in, const trt::PluginTensorDesc* out, const void* const* inputs,
                          void* const* results) const;

  std::shared_ptr<const Node> node_;
  std::vector<trt::PluginField> fields_;
  trt::PluginFieldCollection collection_;
};

}  // namespace mythos::tensorrt
