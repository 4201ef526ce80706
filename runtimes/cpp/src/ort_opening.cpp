#include "ort_opening.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include "ort_library.hpp"
#include "plugins.hpp"
#include "text.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

constexpr const char* kCudaLibrary = "libmythos_cuda_ops.so";
constexpr const char* kRtx = "NvTensorRTRTXExecutionProvider";
// That a thread looks for work within a call before it sleeps (ort_opening.py).
constexpr const char* kSpinMicroseconds = "50";

Ort::Env& environment() {
  static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "mythos");
  return env;
}

bool available(const char* provider) {
  const auto all = Ort::GetAvailableProviders();
  return std::find(all.begin(), all.end(), provider) != all.end();
}

// Whether MYTHOS_CUDA_OPS asks for the bundle's kernels on CUDA.
bool wants_cuda_ops() {
  const char* variable = std::getenv("MYTHOS_CUDA_OPS");
  const std::string way = variable ? variable : "0";
  if (way != "0" && way != "1")
    throw RequestError("MYTHOS_CUDA_OPS is " + py_repr(way) + ", expected 0 or 1, or nothing at all");
  return way == "1";
}

// The library that launches the kernels in a folder of the bundle; empty to run the portable bodies.
std::string find_cuda_library(const fs::path& kernels, const std::string& choice) {
  if (choice != "auto" && choice != "none")
    throw RequestError("the operator library " + choice + " is for the CPU, and this session is on CUDA: take provider='cpu', "
                       "or name no library");
  if (!wants_cuda_ops() || choice == "none") return "";
  std::error_code error;
  if (!fs::is_regular_file(kernels / "kernels.json", error))
    throw BackendMissing("MYTHOS_CUDA_OPS is 1, but " + kernels.parent_path().string() + " has no kernels: export it with "
                         "--target cuda");
  const std::string path = beside_this_code(kCudaLibrary);
  if (path.empty())
    throw BackendMissing(std::string("MYTHOS_CUDA_OPS is 1, but ") + kCudaLibrary + " is not beside this program: make native "
                         "builds it on Linux, the wheel of mythos-runtime has it");
  return path;
}

[[noreturn]] void load_error(const std::string& file, const Ort::Exception& error, const std::string& library) {
  const std::string text = first_line(error);
  for (const char* sign : {"not a registered function/op", "TypeInferenceError", "NOT_IMPLEMENTED"})
    if (text.find(sign) != text.npos)
      throw BackendMissing(file + " uses an operator that this ONNX Runtime cannot run (" + text + "); it is not " +
                           (library.empty() ? "in it, and no operator library is loaded"
                                            : "in " + library + ", nor has the file a body for it") +
                           ": build the library of native operators and name it in MYTHOS_OP_LIBRARY, or export the "
                           "model again");
  throw BundleError(file + " cannot be loaded by ONNX Runtime: " + text);
}

void add_operators(Ort::SessionOptions& settings, const std::string& library) {
  try {
    settings.RegisterCustomOpsLibrary(library.c_str());
  } catch (const Ort::Exception& error) {
    throw BackendMissing("the operator library " + library + " cannot be loaded by this ONNX Runtime: " +
                         first_line(error) + "; rebuild it on this machine, or run without it (op_library=None)");
  }
}

bool add_cuda(Ort::SessionOptions& settings, bool required) {
  if (!available(kCuda)) {
    if (required)
      throw BackendMissing("CUDA was asked for, but this ONNX Runtime is built without it: pip uninstall onnxruntime, "
                           "then pip install onnxruntime-gpu (the two must not be installed together)");
    return false;
  }
  try {
    const OrtApi& api = Ort::GetApi();
    OrtCUDAProviderOptionsV2* made = nullptr;
    Ort::ThrowOnError(api.CreateCUDAProviderOptions(&made));
    const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> chosen(
        made, api.ReleaseCUDAProviderOptions);
    // By default float32 would be multiplied in TF32, whose 10 bits of a fraction are not enough for equal depths.
    const char *key = "use_tf32", *value = "0";
    Ort::ThrowOnError(api.UpdateCUDAProviderOptions(chosen.get(), &key, &value, 1));
    settings.AppendExecutionProvider_CUDA_V2(*chosen);
    return true;
  } catch (const Ort::Exception&) {
    if (!required) return false;
    throw BackendMissing("CUDA was asked for, but ONNX Runtime fell back to CPUExecutionProvider: its CUDA provider did "
                         "not start; check the NVIDIA driver and the CUDA and cuDNN versions that this onnxruntime-gpu "
                         "wants");
  }
}

}  // namespace

void require_api() {
  // Once, whichever thread is first: what it sets is read by all.
  static const OrtApi* const api = [] {
    const OrtApi* const found = onnxruntime().GetApi(ORT_API_VERSION);
    if (found) Ort::InitApi(found);
    return found;
  }();
  if (!api)
    throw BackendMissing("this program was built with headers of ONNX Runtime's API " + std::to_string(ORT_API_VERSION) +
                         ", but the library that was loaded is " + onnxruntime().GetVersionString() +
                         ": install onnxruntime 1." + std::to_string(ORT_API_VERSION) + " or newer");
}

Inference open_inference(const std::string& file, const LoadOptions& options, Role role) {
  Inference made;
  made.provider = kCpu;
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
  settings.DisableCpuMemArena();  // malloc is faster for the many small tensors of a decoded token
  settings.DisableMemPattern();   // it keeps one for every new set of shapes, without end, and saves no time
  if (options.threads) settings.SetIntraOpNumThreads(*options.threads);
  settings.AddConfigEntry("session.force_spinning_stop", "1");
  settings.AddConfigEntry("session.intra_op.spin_duration_us", kSpinMicroseconds);
  const bool plugins = role == Role::kEngineOfPlugins, engine = role == Role::kEngine || plugins;
  if (engine) {
    settings.AppendExecutionProvider("NvTensorRtRtx", {});
    if (plugins) load_rtx_plugins(file);  // into what the provider has brought
    made.provider = kRtx;
  } else if (options.provider != "cpu" && add_cuda(settings, options.provider == "cuda")) {
    made.provider = kCuda;
  }
  if (!engine && role != Role::kLines) {
    const bool on_cpu = made.provider == kCpu;
    const std::string kernels = fs::path(file).parent_path() / "kernels";
    made.library = on_cpu ? find_op_library(options.op_library) : find_cuda_library(kernels, options.op_library);
    if (!made.library.empty() && !on_cpu) settings.AddConfigEntry("mythos.kernels", kernels.c_str());
    if (!made.library.empty()) add_operators(settings, made.library);
  }
  try {
    made.session = Ort::Session(environment(), file.c_str(), settings);
  } catch (const Ort::Exception& error) {
    if (const std::string reason = plugins ? plugin_refusal() : ""; !reason.empty())
      throw BundleError(file + " cannot be loaded" + reason);
    load_error(file, error, made.library);
  }
  return made;
}

std::string not_taken(bool on_cpu, const std::string& choice) {
  if (choice != "auto") return "";
  if (on_cpu) return wants_cuda_ops() ? " (MYTHOS_CUDA_OPS is for CUDA alone)" : "";
  const char* named = std::getenv("MYTHOS_OP_LIBRARY");
  return named && std::string(named) != "none" ? " (MYTHOS_OP_LIBRARY is for the CPU alone)" : "";
}

bool rows_on_cuda(const LoadOptions& options) {
  if (!wants_cuda_ops() || options.provider == "cpu" || options.op_library != "auto") return false;
  require_api();
  return options.provider == "cuda" || available(kCuda);
}

std::string find_op_library(const std::string& choice) {
  const char* variable = std::getenv("MYTHOS_OP_LIBRARY");
  const std::string named = choice != "auto" ? choice : variable ? variable : "";
  if (named == "none") return "";
  if (named.empty()) return beside_this_code("libmythos_ops.so");
  const std::string path = plain_path(fs::absolute(named).string());
  std::error_code error;
  if (!fs::is_regular_file(path, error))
    throw BackendMissing("the operator library " + path + " does not exist; build it, or run without one");
  return path;
}

std::string first_line(const Ort::Exception& error) {
  constexpr const char* kNames[] = {"SUCCESS", "FAIL", "INVALID_ARGUMENT", "NO_SUCHFILE", "NO_MODEL", "ENGINE_ERROR",
                                    "RUNTIME_EXCEPTION", "INVALID_PROTOBUF", "MODEL_LOADED", "NOT_IMPLEMENTED",
                                    "INVALID_GRAPH", "EP_FAIL"};
  const int code = error.GetOrtErrorCode();
  const bool known = code >= 0 && code < static_cast<int>(std::size(kNames));
  std::string text = "[ONNXRuntimeError] : " + std::to_string(code) + " : " + (known ? kNames[code] : "UNKNOWN") +
                     " : " + error.what();
  return text.substr(0, std::min<std::size_t>(text.find('\n'), 500));
}

std::string missing_for_rtx() {
  require_api();
  if (available(kRtx)) return "";
  std::string have;
  for (const std::string& provider : Ort::GetAvailableProviders()) have += (have.empty() ? "" : ", ") + provider;
  return "a TensorRT-RTX engine needs an ONNX Runtime built with " + std::string(kRtx) + " and an NVIDIA GPU; this one (" +
         onnxruntime().GetVersionString() + ") has " + have;
}

}  // namespace mythos
