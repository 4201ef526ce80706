// Stands in for an ONNX Runtime with TensorRT-RTX's provider, and for that TensorRT-RTX: it is the real ONNX Runtime, whose
// table says that it has the provider, and no session of which opens, because a plug-in refuses the engine.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstdlib>

#include "tensorrt/api.h"

namespace {

void* plugins = nullptr;

class Registry {  // as plugins.cpp has it
 public:
  virtual ~Registry() = default;
  virtual void set_error_recorder(void*) noexcept {}
  virtual void* error_recorder() const noexcept { return nullptr; }
  virtual bool is_parent_search_enabled() const { return true; }
  virtual void set_parent_search_enabled(bool) {}
  virtual void* load_library(const char* path) noexcept { return plugins = dlopen(path, RTLD_NOW); }
};

OrtApi table;

OrtStatus* ORT_API_CALL providers(char*** names, int* count) noexcept {
  static char name[] = "NvTensorRTRTXExecutionProvider";
  static char* all[] = {name};
  *names = all;
  *count = 1;
  return nullptr;
}
OrtStatus* ORT_API_CALL release(char**, int) noexcept { return nullptr; }
OrtStatus* ORT_API_CALL append(OrtSessionOptions*, const char*, const char* const*, const char* const*, size_t) noexcept {
  return nullptr;
}
OrtStatus* ORT_API_CALL create(const OrtEnv*, const ORTCHAR_T*, const OrtSessionOptions*, OrtSession**) noexcept {
  using Creators = nvinfer1::IPluginCreatorInterface* const* (*)(std::int32_t&);
  if (plugins) {
    std::int32_t count = 0;
    auto* const creator = reinterpret_cast<Creators>(dlsym(plugins, "getCreators"))(count)[0];
    const nvinfer1::PluginFieldCollection none{};
    static_cast<nvinfer1::IPluginCreatorV3One*>(creator)->createPlugin("x", &none, nvinfer1::TensorRTPhase::kRUNTIME);
  }
  return table.CreateStatus(ORT_FAIL, "Could not deserialize engine");
}

const OrtApiBase& real() {
  static const OrtApiBase* const base =
      reinterpret_cast<const OrtApiBase* (*)()>(dlsym(dlopen(std::getenv("REAL"), RTLD_NOW), "OrtGetApiBase"))();
  return *base;
}
const OrtApi* ORT_API_CALL api_of(std::uint32_t version) noexcept {
  table = *real().GetApi(version);
  table.GetAvailableProviders = providers;
  table.ReleaseAvailableProviders = release;
  table.SessionOptionsAppendExecutionProvider = append;
  table.CreateSession = create;
  return &table;
}

}  // namespace

extern "C" {
const OrtApiBase* ORT_API_CALL OrtGetApiBase() noexcept {
  static const OrtApiBase base{api_of, real().GetVersionString};
  return &base;
}
std::int32_t getInferLibVersion() { return 10700; }
void* getPluginRegistry() {
  static Registry registry;
  return &registry;
}
}
