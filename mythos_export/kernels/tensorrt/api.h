// What the plug-ins use of TensorRT's C++ interface (NvInferRuntime.h), declared here so that they are built where no
// TensorRT is. Nothing of it is linked: an application and its TensorRT meet the plug-ins through virtual functions
// alone, whose order is what counts. It is the same in TensorRT 10.0 to 11.1 and in TensorRT-RTX 1.7, so that one
// library serves all of them; what is not (loggers, the registry) is not used. A test compiles the plug-ins and their
// caller against the public headers, too (MYTHOS_NVINFER), and mixes what came of both.
//
// Names, numbers and layouts are those of TensorRT's headers (Apache License 2.0, NVIDIA CORPORATION & AFFILIATES).
#pragma once

#ifdef MYTHOS_NVINFER
#include <NvInferRuntime.h>
#else

#include <cstddef>
#include <cstdint>

struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : std::int32_t {
  kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5, kBF16 = 7, kINT64 = 8
};
enum class TensorFormat : std::int32_t { kLINEAR = 0 };
enum class DimensionOperation : std::int32_t {
  kSUM = 0, kPROD = 1, kMAX = 2, kMIN = 3, kSUB = 4, kEQUAL = 5, kLESS = 6, kFLOOR_DIV = 7, kCEIL_DIV = 8
};
enum class PluginFieldType : std::int32_t {
  kFLOAT16 = 0, kFLOAT32 = 1, kFLOAT64 = 2, kINT8 = 3, kINT16 = 4, kINT32 = 5, kCHAR = 6, kUNKNOWN = 8, kINT64 = 10
};
enum class TensorRTPhase : std::int32_t { kBUILD = 0, kRUNTIME = 1 };
enum class PluginCapabilityType : std::int32_t { kCORE = 0, kBUILD = 1, kRUNTIME = 2 };
enum class APILanguage : std::int32_t { kCPP = 0, kPYTHON = 1 };

struct Dims {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};
struct PluginTensorDesc {
  Dims dims;
  DataType type;
  TensorFormat format;
  float scale;
};
struct DynamicPluginTensorDesc {
  PluginTensorDesc desc;
  Dims min, max, opt;
};
struct PluginField {
  const char* name = nullptr;
  const void* data = nullptr;
  PluginFieldType type = PluginFieldType::kUNKNOWN;
  std::int32_t length = 0;
};
struct PluginFieldCollection {
  std::int32_t nbFields = 0;
  const PluginField* fields = nullptr;
};
struct InterfaceInfo {
  const char* kind;
  std::int32_t major, minor;
};

// -- sizes that are not known yet: objects of TensorRT's --

class IDimensionExpr;

namespace apiv {
struct VRoot {
  virtual ~VRoot() noexcept = default;
};
struct VDimensionExpr : VRoot {
  virtual bool isConstant() const = 0;
  virtual std::int64_t getConstantValue() const = 0;
  virtual bool isSizeTensor() const = 0;
};
struct VExprBuilder : VRoot {
  virtual const IDimensionExpr* constant(std::int64_t value) = 0;
  virtual const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) = 0;
  virtual const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&, const IDimensionExpr&) = 0;
};
}  // namespace apiv

class INoCopy {
 protected:
  INoCopy() = default;
  virtual ~INoCopy() = default;
  INoCopy(const INoCopy&) = delete;
  INoCopy& operator=(const INoCopy&) = delete;
};
class IDimensionExpr : public INoCopy {
 public:
  bool isConstant() const noexcept { return mImpl->isConstant(); }
  std::int64_t getConstantValue() const noexcept { return mImpl->getConstantValue(); }

 protected:
  apiv::VDimensionExpr* mImpl;
};
class IExprBuilder : public INoCopy {
 public:
  const IDimensionExpr* constant(std::int64_t value) noexcept { return mImpl->constant(value); }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& a, const IDimensionExpr& b) noexcept {
    return mImpl->operation(op, a, b);
  }

 protected:
  apiv::VExprBuilder* mImpl;
};
struct DimsExprs {
  std::int32_t nbDims;
  const IDimensionExpr* d[Dims::MAX_DIMS];
};

// -- what a plug-in is --

class IPluginResourceContext;
class IVersionedInterface {
 public:
  virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
  virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
  virtual ~IVersionedInterface() noexcept = default;
};
namespace v_1_0 {  // as the types are called in there
class IPluginCapability : public IVersionedInterface {};
class IPluginCreatorInterface : public IVersionedInterface {};
class IPluginV3 : public IVersionedInterface {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN", 1, 0}; }
  virtual IPluginCapability* getCapabilityInterface(PluginCapabilityType) noexcept = 0;
  virtual IPluginV3* clone() noexcept = 0;
};
class IPluginV3OneCore : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_CORE", 1, 0}; }
  virtual const char* getPluginName() const noexcept = 0;
  virtual const char* getPluginVersion() const noexcept = 0;
  virtual const char* getPluginNamespace() const noexcept = 0;
};
class IPluginV3OneBuild : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 1, 0}; }
  virtual std::int32_t configurePlugin(const DynamicPluginTensorDesc*, std::int32_t, const DynamicPluginTensorDesc*,
                                       std::int32_t) noexcept = 0;
  virtual std::int32_t getOutputDataTypes(DataType*, std::int32_t, const DataType*, std::int32_t) const noexcept = 0;
  virtual std::int32_t getOutputShapes(const DimsExprs*, std::int32_t, const DimsExprs*, std::int32_t, DimsExprs*,
                                       std::int32_t, IExprBuilder&) noexcept = 0;
  virtual bool supportsFormatCombination(std::int32_t, const DynamicPluginTensorDesc*, std::int32_t,
                                         std::int32_t) noexcept = 0;
  virtual std::int32_t getNbOutputs() const noexcept = 0;
  virtual std::size_t getWorkspaceSize(const DynamicPluginTensorDesc*, std::int32_t, const DynamicPluginTensorDesc*,
                                       std::int32_t) const noexcept {
    return 0;
  }
  virtual std::int32_t getValidTactics(std::int32_t*, std::int32_t) noexcept { return 0; }
  virtual std::int32_t getNbTactics() noexcept { return 0; }
  virtual const char* getTimingCacheID() noexcept { return nullptr; }
  virtual std::int32_t getFormatCombinationLimit() noexcept { return 100; }
  virtual const char* getMetadataString() noexcept { return nullptr; }
};
class IPluginV3OneRuntime : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_RUNTIME", 1, 0}; }
  virtual std::int32_t setTactic(std::int32_t) noexcept { return 0; }
  virtual std::int32_t onShapeChange(const PluginTensorDesc*, std::int32_t, const PluginTensorDesc*,
                                     std::int32_t) noexcept = 0;
  virtual std::int32_t enqueue(const PluginTensorDesc*, const PluginTensorDesc*, const void* const*, void* const*,
                               void*, cudaStream_t) noexcept = 0;
  virtual IPluginV3* attachToContext(IPluginResourceContext*) noexcept = 0;
  virtual const PluginFieldCollection* getFieldsToSerialize() noexcept = 0;
};
class IPluginCreatorV3One : public IPluginCreatorInterface {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
  virtual IPluginV3* createPlugin(const char*, const PluginFieldCollection*, TensorRTPhase) noexcept = 0;
  virtual const PluginFieldCollection* getFieldNames() noexcept = 0;
  virtual const char* getPluginName() const noexcept = 0;
  virtual const char* getPluginVersion() const noexcept = 0;
  virtual const char* getPluginNamespace() const noexcept = 0;
};
}  // namespace v_1_0
using namespace v_1_0;

}  // namespace nvinfer1
#endif
