#include "ort_library.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"
#include "session.hpp"

namespace fs = std::filesystem;

namespace {

using Getter = const OrtApiBase*(ORT_API_CALL*)();

// ONNX Runtime reports its use to Microsoft unless it finds this variable when it starts: the call of its API that
// switches that off comes after its first report (docs/security.md). Set while this code is loaded, since later a program
// may have threads, whose getenv() a setenv() disturbs. What is there already stays.
[[maybe_unused]] const int kNoTelemetry = setenv("ORT_DISABLE_TELEMETRY", "1", 0);

// site-packages/mythos_runtime/native/lib/libmythos_runtime.so and site-packages/onnxruntime/capi/libonnxruntime.so.1.x.y
std::string of_the_python_package(const fs::path& here) {
  std::string found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(here / "../../../onnxruntime/capi", error))
    if (entry.path().filename().string().rfind("libonnxruntime.so.1", 0) == 0)
      found = std::max(found, entry.path().string());
  return found;
}

std::vector<std::string> candidates() {
  if (const char* named = std::getenv("MYTHOS_ONNXRUNTIME")) return {named};
  std::vector<std::string> found;
  Dl_info info{};
  std::error_code error;
  if (dladdr(reinterpret_cast<void*>(&of_the_python_package), &info) && info.dli_fname) {
    const fs::path here = fs::canonical(info.dli_fname, error).parent_path();
    const std::string beside = (here / "libonnxruntime.so.1").string();
    if (fs::exists(beside, error)) found.push_back(beside);
    const std::string packaged = of_the_python_package(here);
    if (!packaged.empty()) found.push_back(packaged);
  }
#ifdef MYTHOS_ONNXRUNTIME_LIBRARY
  if (fs::exists(MYTHOS_ONNXRUNTIME_LIBRARY, error)) found.push_back(MYTHOS_ONNXRUNTIME_LIBRARY);
#endif
  found.push_back("libonnxruntime.so.1");
  return found;
}

const OrtApiBase& open() {
  std::string said;
  for (const std::string& path : candidates()) {
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // for as long as the process lives
    void* const symbol = library ? dlsym(library, "OrtGetApiBase") : nullptr;
    if (symbol) return *reinterpret_cast<Getter>(symbol)();
    said += (said.empty() ? "" : "; ") + std::string(dlerror());
  }
  throw mythos::BackendMissing("ONNX Runtime was not found (" + said +
                               "): pip install onnxruntime, or name its libonnxruntime.so.1 in MYTHOS_ONNXRUNTIME");
}

}  // namespace

const OrtApiBase& mythos::onnxruntime() {
  static const OrtApiBase& opened = open();
  return opened;
}

const char* mythos::onnxruntime_version() { return onnxruntime().GetVersionString(); }
