// Calls plug-ins as TensorRT does, for tests and for measurements without one: through virtual functions alone. Sizes,
// which are expressions to a TensorRT, are plain numbers here. With -DMYTHOS_NVINFER it is compiled against TensorRT's
// own headers.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tensorrt/api.h"

namespace {

namespace trt = nvinfer1;

class Size : public trt::IDimensionExpr {
 public:
  explicit Size(std::int64_t value) : known_(value) { mImpl = &known_; }

 private:
  struct Known : trt::apiv::VDimensionExpr {
    explicit Known(std::int64_t value) : value(value) {}
    bool isConstant() const override { return true; }
    std::int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    std::int64_t value;
  } known_;
};

class Sizes : public trt::IExprBuilder {
 public:
  Sizes() : of_(*this) { mImpl = &of_; }
  const trt::IDimensionExpr* make(std::int64_t value) {
    made_.push_back(std::make_unique<Size>(value));
    return made_.back().get();
  }

 private:
  struct Of : trt::apiv::VExprBuilder {
    explicit Of(Sizes& sizes) : sizes(sizes) {}
    const trt::IDimensionExpr* constant(std::int64_t value) override { return sizes.make(value); }
    const trt::IDimensionExpr* operation(trt::DimensionOperation op, const trt::IDimensionExpr& first,
                                         const trt::IDimensionExpr& second) override {
      const std::int64_t a = first.getConstantValue(), b = second.getConstantValue();
      switch (op) {
        case trt::DimensionOperation::kSUM: return sizes.make(a + b);
        case trt::DimensionOperation::kPROD: return sizes.make(a * b);
        case trt::DimensionOperation::kMAX: return sizes.make(std::max(a, b));
        case trt::DimensionOperation::kMIN: return sizes.make(std::min(a, b));
        case trt::DimensionOperation::kSUB: return sizes.make(a - b);
        case trt::DimensionOperation::kEQUAL: return sizes.make(a == b);
        case trt::DimensionOperation::kLESS: return sizes.make(a < b);
        case trt::DimensionOperation::kFLOOR_DIV: return sizes.make(a / b);
        case trt::DimensionOperation::kCEIL_DIV: return sizes.make((a + b - 1) / b);
      }
      return nullptr;
    }
    const trt::IDimensionExpr* declareSizeTensor(std::int32_t, const trt::IDimensionExpr&,
                                                 const trt::IDimensionExpr&) override {
      return nullptr;
    }
    Sizes& sizes;
  } of_;
  std::vector<std::unique_ptr<Size>> made_;
};

using Creators = trt::IPluginCreatorInterface* const* (*)(std::int32_t&);

std::vector<trt::IPluginCreatorV3One*> creators_of(void* library) {
  const auto get = reinterpret_cast<Creators>(dlsym(library, "getCreators"));
  if (!get) return {};
  std::int32_t count = 0;
  trt::IPluginCreatorInterface* const* all = get(count);
  std::vector<trt::IPluginCreatorV3One*> found;
  for (std::int32_t i = 0; i < count; ++i)
    if (!std::strcmp(all[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE"))
      found.push_back(static_cast<trt::IPluginCreatorV3One*>(all[i]));
  return found;
}

template <class T>
T& capability(void* plugin, trt::PluginCapabilityType type) {
  return *static_cast<T*>(static_cast<trt::IPluginV3*>(plugin)->getCapabilityInterface(type));
}
trt::IPluginV3OneBuild& build_of(void* plugin) {
  return capability<trt::IPluginV3OneBuild>(plugin, trt::PluginCapabilityType::kBUILD);
}
trt::IPluginV3OneRuntime& runtime_of(void* plugin) {
  return capability<trt::IPluginV3OneRuntime>(plugin, trt::PluginCapabilityType::kRUNTIME);
}

}  // namespace

extern "C" {

// A tensor of a call: its type and format by TensorRT's numbers, its shape, its address.
struct CallerTensor {
  std::int32_t type, format, rank;
  std::int64_t shape[8];
  void* data;
};

void* caller_open(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) std::fprintf(stderr, "%s\n", dlerror());
  return library;
}

// A line for each creator: namespace, name, version, and the names of its fields.
void caller_creators(void* library, char* words, std::size_t size) {
  std::string all;
  for (trt::IPluginCreatorV3One* creator : creators_of(library)) {
    const std::string name = creator->getPluginName(), version = creator->getPluginVersion();
    all += std::string(creator->getPluginNamespace()) + " " + name + " " + version;
    const trt::PluginFieldCollection* names = creator->getFieldNames();
    for (std::int32_t i = 0; i < names->nbFields; ++i) all += std::string(" ") + names->fields[i].name;
    all += "\n";
  }
  std::snprintf(words, size, "%s", all.c_str());
}

std::size_t caller_error(void* library, char* words, std::size_t size) {
  const auto ask = reinterpret_cast<std::size_t (*)(char*, std::size_t)>(dlsym(library, "mythos_plugin_error"));
  return ask ? ask(words, size) : 0;
}

void* caller_create(void* library, const char* op, const trt::PluginField* fields, std::int32_t count,
                    std::int32_t phase) {
  trt::PluginFieldCollection collection;
  collection.nbFields = count;
  collection.fields = fields;
  for (trt::IPluginCreatorV3One* creator : creators_of(library))
    if (!std::strcmp(creator->getPluginName(), op))
      return creator->createPlugin("node", &collection, static_cast<trt::TensorRTPhase>(phase));
  return nullptr;
}
void* caller_clone(void* plugin) { return static_cast<trt::IPluginV3*>(plugin)->clone(); }
void* caller_attach(void* plugin) { return runtime_of(plugin).attachToContext(nullptr); }
void caller_delete(void* plugin) { delete static_cast<trt::IPluginV3*>(plugin); }

const trt::PluginField* caller_fields(void* plugin, std::int32_t* count) {
  const trt::PluginFieldCollection* fields = runtime_of(plugin).getFieldsToSerialize();
  *count = fields->nbFields;
  return fields->fields;
}

// The outputs' types and shapes, behind the inputs. Returns what the plug-in does.
int caller_outputs(void* plugin, CallerTensor* tensors, std::int32_t inputs, std::int32_t outputs) {
  Sizes sizes;
  std::vector<trt::DimsExprs> given(static_cast<std::size_t>(inputs)), made(static_cast<std::size_t>(outputs));
  std::vector<trt::DataType> types, of(static_cast<std::size_t>(outputs));
  for (std::int32_t i = 0; i < inputs; ++i) {
    trt::DimsExprs& dims = given[static_cast<std::size_t>(i)];
    dims.nbDims = tensors[i].rank;
    for (std::int32_t d = 0; d < dims.nbDims; ++d) dims.d[d] = sizes.make(tensors[i].shape[d]);
    types.push_back(static_cast<trt::DataType>(tensors[i].type));
  }
  trt::IPluginV3OneBuild& build = build_of(plugin);
  int wrong = build.getOutputDataTypes(of.data(), outputs, types.data(), inputs);
  if (!wrong) wrong = build.getOutputShapes(given.data(), inputs, nullptr, 0, made.data(), outputs, sizes);
  if (wrong) return wrong;
  for (std::int32_t i = 0; i < outputs; ++i) {
    CallerTensor& tensor = tensors[inputs + i];
    const trt::DimsExprs& dims = made[static_cast<std::size_t>(i)];
    tensor.type = static_cast<std::int32_t>(of[static_cast<std::size_t>(i)]);
    tensor.rank = dims.nbDims;
    for (std::int32_t d = 0; d < dims.nbDims; ++d) tensor.shape[d] = dims.d[d]->getConstantValue();
  }
  return 0;
}

static std::vector<trt::PluginTensorDesc> described(const CallerTensor* tensors, std::int32_t count) {
  std::vector<trt::PluginTensorDesc> all(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].dims.nbDims = tensors[i].rank;
    std::copy(tensors[i].shape, tensors[i].shape + 8, all[i].dims.d);
    all[i].type = static_cast<trt::DataType>(tensors[i].type);
    all[i].format = static_cast<trt::TensorFormat>(tensors[i].format);
  }
  return all;
}
static std::vector<trt::DynamicPluginTensorDesc> open_described(const CallerTensor* tensors, std::int32_t count) {
  std::vector<trt::DynamicPluginTensorDesc> all;
  for (const trt::PluginTensorDesc& one : described(tensors, count)) all.push_back({one, one.dims, one.dims, one.dims});
  return all;
}

bool caller_supports(void* plugin, std::int32_t position, const CallerTensor* tensors, std::int32_t inputs,
                     std::int32_t outputs) {
  const auto all = open_described(tensors, inputs + outputs);
  return build_of(plugin).supportsFormatCombination(position, all.data(), inputs, outputs);
}
int caller_configure(void* plugin, const CallerTensor* tensors, std::int32_t inputs, std::int32_t outputs) {
  const auto all = open_described(tensors, inputs + outputs);
  return build_of(plugin).configurePlugin(all.data(), inputs, all.data() + inputs, outputs);
}
// `enqueue` after `onShapeChange`; returns what is not 0.
int caller_run(void* plugin, const CallerTensor* tensors, std::int32_t inputs, std::int32_t outputs, void* stream) {
  const auto all = described(tensors, inputs + outputs);
  std::vector<const void*> from;
  std::vector<void*> to;
  for (std::int32_t i = 0; i < inputs; ++i) from.push_back(tensors[i].data);
  for (std::int32_t i = 0; i < outputs; ++i) to.push_back(tensors[inputs + i].data);
  trt::IPluginV3OneRuntime& runtime = runtime_of(plugin);
  const trt::PluginTensorDesc* results = all.data() + inputs;
  if (const int wrong = runtime.onShapeChange(all.data(), inputs, results, outputs)) return wrong;
  return runtime.enqueue(all.data(), results, from.data(), to.data(), nullptr, static_cast<cudaStream_t>(stream));
}

}  // extern "C"
