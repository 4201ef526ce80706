// The tensorrt backend. Not executed yet: no machine of this project has run an engine.
//
// A TensorRT-RTX engine runs inside ONNX Runtime, through the EPContext graph that the exporter writes beside it
// (engines/NAME.ep_context.onnx). An engine of full TensorRT needs the native session, which is compiled where NvInfer.h
// was found (MYTHOS_TENSORRT). The manifest says which engine is which (mythos_runtime/tensorrt: details.engines).
#include <dlfcn.h>

#include <algorithm>
#include <memory>

#include "fields.hpp"
#include "plugins.hpp"
#include "session.hpp"

namespace mythos {
namespace {

struct EngineFile {
  std::string file, library;
  bool plugins = false;
  std::vector<std::int64_t> sms;  // compute capabilities, 86 for 8.6; empty: not known
};

std::vector<EngineFile> engines_of(const Manifest& manifest) {
  std::vector<EngineFile> found;
  for (const Target& target : manifest.targets) {
    std::vector<std::string> listed;
    for (const std::string& path : target.files)
      if (path.size() > 7 && path.compare(path.size() - 7, 7, ".engine") == 0) listed.push_back(path);
    Fields details(*target.details, "manifest.json", "targets[" + target.name + "].details");
    if (!details.peek("engines")) {
      for (const std::string& path : listed) found.push_back({path, "tensorrt_rtx", false, {}});
      continue;
    }
    details.each("engines", [&](Fields item) {
      const std::string file = item.text("file");
      EngineFile engine{file, item.choice("library", {"tensorrt_rtx", "tensorrt"}), false, {}};
      bool known = false;
      for (const std::string& path : listed) known = known || path == engine.file;
      if (!known) throw item.fail("file", "an engine among the target's files", file);
      for (const Json& number : item.listed("sm")) {
        std::int64_t sm = 0;
        if (!number.as_int64(sm)) throw item.fail("sm", "a list of compute capabilities, such as [80, 86]", number);
        engine.sms.push_back(sm);
      }
      if (const Json* plugins = item.peek("plugins")) {
        if (plugins->kind != Json::Kind::boolean) throw item.fail("plugins", "true or false", *plugins);
        engine.plugins = plugins->boolean;
      }
      found.push_back(engine);
    });
  }
  return found;
}

// Of the first GPU, asked of the driver; 0 where there is none.
std::int64_t compute_capability() {
  const std::unique_ptr<void, int (*)(void*)> driver(dlopen("libcuda.so.1", RTLD_NOW), dlclose);
  if (!driver) return 0;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver.get(), "cuInit"));
  const auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver.get(), "cuDeviceGetAttribute"));
  constexpr int kMajor = 75, kMinor = 76;
  int major = 0, minor = 0;
  if (!init || !attribute || init(0) || attribute(&major, kMajor, 0) || attribute(&minor, kMinor, 0)) return 0;
  return 10 * major + minor;
}

// The engine that holds code for this machine's GPU; without one the first, whose session then says what is missing.
const EngineFile& choose_engine(const std::vector<EngineFile>& found) {
  const std::int64_t capability = compute_capability();
  std::string built;
  for (const EngineFile& engine : found) {
    if (!capability || engine.sms.empty() || std::count(engine.sms.begin(), engine.sms.end(), capability)) return engine;
    built += (built.empty() ? "" : "; ") + engine.file + " for";
    for (std::size_t i = 0; i < engine.sms.size(); ++i) built += (i ? ", " : " ") + std::to_string(engine.sms[i]);
  }
  throw BackendMissing("this GPU has compute capability " + std::to_string(capability) +
                       ", the bundle has engines for others (" + built + "); export again with --sm " +
                       std::to_string(capability));
}

}  // namespace

std::unique_ptr<Session> open_tensorrt(const Bundle& bundle, const LoadOptions& options) {
  const std::vector<EngineFile> found = engines_of(bundle.manifest);
  if (found.empty())
    throw BundleError("this bundle has no TensorRT engine; export the model again with --target tensorrt");
  const EngineFile& engine = choose_engine(found);
  if (engine.library == "tensorrt") {
#ifdef MYTHOS_HAVE_TENSORRT
    return open_native_tensorrt(plain_path(bundle.folder + "/" + engine.file), bundle.manifest.spec->ports(),
                                engine.plugins ? plugin_library(engine.file) : std::string());
#else
    throw BackendMissing(engine.file + " is an engine of full TensorRT, and this program was built without it "
                         "(NvInfer.h was not found): install TensorRT's C++ headers and build again with "
                         "-DMYTHOS_TENSORRT=ON; the same bundle runs here with --backend onnxruntime");
#endif
  }
  const std::string wrapper = engine.file.substr(0, engine.file.size() - 7) + ".ep_context.onnx";
  const std::string lack = missing_for_rtx();
  if (!lack.empty()) throw BackendMissing(lack + "; the same bundle runs here with --backend onnxruntime");
  if (!bundle.manifest.lists(wrapper))
    throw BundleError("the engine " + engine.file + " has no " + wrapper + " beside it, through which ONNX Runtime loads "
                      "it; export the model again");
  return open_onnxruntime(plain_path(bundle.folder + "/" + wrapper), bundle.manifest.spec->ports(), options,
                          engine.plugins ? Wraps::kEngineOfPlugins : Wraps::kEngine);
}

}  // namespace mythos
