#include "plugins.hpp"

#include <dlfcn.h>

#include <cstdint>
#include <filesystem>
#include <mutex>

#include "mythos_runtime.hpp"

namespace mythos {
namespace fs = std::filesystem;

// nvinfer1::IPluginRegistry as TensorRT-RTX 1.7 and TensorRT 11 have it, up to what is called here: no package has the
// headers of TensorRT-RTX. In TensorRT 10 functions stand before these that are gone since.
//
// In no unnamed namespace: there a compiler knows all classes, sees that none of them derives from this one, and calls none
// of its functions.
class RtxRegistry {
 public:
  virtual ~RtxRegistry() = default;
  virtual void set_error_recorder(void*) noexcept = 0;
  virtual void* error_recorder() const noexcept = 0;
  virtual bool is_parent_search_enabled() const = 0;
  virtual void set_parent_search_enabled(bool) = 0;
  virtual void* load_library(const char* path) noexcept = 0;
};

namespace {

constexpr const char* kLibrary = "libmythos_tensorrt_plugins.so";
constexpr const char* kRtx = "libtensorrt_rtx.so.1";
constexpr const char* kElsewhere = "; the same bundle runs here with --backend onnxruntime";

constexpr std::int32_t kKnown = 107;  // TensorRT-RTX 1.7, whose patches count in hundredths

}  // namespace

std::string beside_this_code(const char* name) {
  Dl_info info{};
  std::error_code error;
  if (!dladdr(reinterpret_cast<void*>(&beside_this_code), &info) || !info.dli_fname) return "";
  const fs::path here = fs::canonical(info.dli_fname, error).parent_path();
  if (error) return "";  // a bare name would be looked for anywhere
  for (const fs::path& folder : {here, here.parent_path()})
    if (fs::is_regular_file(folder / name, error)) return (folder / name).string();
  return "";
}

std::string plugin_library(const std::string& label) {
  const std::string path = beside_this_code(kLibrary);
  if (!path.empty()) return path;
  throw BackendMissing(label + " calls plug-ins, and " + kLibrary + " is not beside this program: make native builds it, "
                       "the wheel of mythos-runtime has it; or export the model again without --plugins" + kElsewhere);
}

std::string plugin_refusal() {
  const std::string path = beside_this_code(kLibrary);
  void* const library = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_NOW);  // the one that TensorRT has loaded
  const auto ask = library ? reinterpret_cast<std::size_t (*)(char*, std::size_t)>(dlsym(library, "mythos_plugin_error"))
                           : nullptr;
  char words[2000];
  return ask && ask(words, sizeof words) ? std::string(": ") + words : std::string();
}

void load_rtx_plugins(const std::string& label) {
  static std::mutex mutex;
  static bool loaded = false;
  const std::lock_guard<std::mutex> lock(mutex);
  plugin_refusal();  // from now on this thread asks for reasons
  if (loaded) return;
  const std::string path = plugin_library(label);
  void* const rtx = dlopen(kRtx, RTLD_NOW | RTLD_NOLOAD);
  const auto version = rtx ? reinterpret_cast<std::int32_t (*)()>(dlsym(rtx, "getInferLibVersion")) : nullptr;
  const auto registry = rtx ? reinterpret_cast<RtxRegistry* (*)()>(dlsym(rtx, "getPluginRegistry")) : nullptr;
  if (!version || !registry)
    throw BackendMissing(label + " calls plug-ins, and ONNX Runtime has not loaded " + kRtx + ", which is to take them" +
                         kElsewhere);
  if (version() / 100 != kKnown)
    throw BackendMissing(label + " calls plug-ins, which this program can give to TensorRT-RTX 1.7, and this one says that "
                         "it is " + std::to_string(version()) + kElsewhere);
  RtxRegistry* const found = registry();
  if (!found || !found->load_library(path.c_str()))
    throw BackendMissing(label + " calls plug-ins, and this TensorRT-RTX does not take " + path + kElsewhere);
  loaded = true;
}

}  // namespace mythos
