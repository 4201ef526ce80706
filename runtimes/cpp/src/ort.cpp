// The onnxruntime backend (ort.py): past buffers are handed over as they are, outputs are read where they come.
#include "ort.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>

#include "ort_library.hpp"
#include "plugins.hpp"
#include "text.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

constexpr const char* kCuda = "CUDAExecutionProvider";
constexpr const char* kCudaLibrary = "libmythos_cuda_ops.so";
constexpr const char* kRtx = "NvTensorRTRTXExecutionProvider";
// That a thread looks for work within a call before it sleeps (ort.py).
constexpr const char* kSpinMicroseconds = "50";

const std::map<std::string, ONNXTensorElementDataType> kTypes{
    {"bool", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},       {"int32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {"int8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},     {"float16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {"bfloat16", ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16}, {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}};

std::string type_name(ONNXTensorElementDataType type) {
  for (const auto& [name, value] : kTypes)
    if (value == type) return name;
  return "None";  // as Python says it of a type outside the contract
}

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

Ort::Env& environment() {
  static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "mythos");
  return env;
}

// The first line, in the form that ONNX Runtime's Python binding gives it.
std::string words(const Ort::Exception& error) {
  constexpr const char* kNames[] = {"SUCCESS", "FAIL", "INVALID_ARGUMENT", "NO_SUCHFILE", "NO_MODEL", "ENGINE_ERROR",
                                    "RUNTIME_EXCEPTION", "INVALID_PROTOBUF", "MODEL_LOADED", "NOT_IMPLEMENTED",
                                    "INVALID_GRAPH", "EP_FAIL"};
  const int code = error.GetOrtErrorCode();
  const bool known = code >= 0 && code < static_cast<int>(std::size(kNames));
  std::string text = "[ONNXRuntimeError] : " + std::to_string(code) + " : " + (known ? kNames[code] : "UNKNOWN") +
                     " : " + error.what();
  return text.substr(0, std::min<std::size_t>(text.find('\n'), 500));
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

// What the environment asks for and such a session does not have.
std::string not_taken(bool on_cpu, const std::string& choice) {
  if (choice != "auto") return "";
  if (on_cpu) return wants_cuda_ops() ? " (MYTHOS_CUDA_OPS is for CUDA alone)" : "";
  const char* named = std::getenv("MYTHOS_OP_LIBRARY");
  return named && std::string(named) != "none" ? " (MYTHOS_OP_LIBRARY is for the CPU alone)" : "";
}

[[noreturn]] void load_error(const std::string& file, const Ort::Exception& error, const std::string& library) {
  const std::string text = words(error);
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
                         words(error) + "; rebuild it on this machine, or run without it (op_library=None)");
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

Ort::Value tensor_in(const Ort::MemoryInfo& memory, void* data, const std::string& dtype,
                     const std::vector<std::int64_t>& shape) {
  std::size_t bytes = dtype_size(dtype);
  for (const std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
  return Ort::Value::CreateTensor(memory, data, bytes, shape.data(), shape.size(), kTypes.at(dtype));
}

template <typename Call>
void guarded(const Call& call, bool plugins) {
  try {
    call();
  } catch (const Ort::Exception& error) {
    throw BackendFailed("ONNX Runtime could not finish the call: " + words(error) + (plugins ? plugin_refusal() : ""));
  } catch (const std::bad_alloc&) {
    throw BackendFailed("ONNX Runtime could not finish the call: out of memory");
  }
}

}  // namespace

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

OrtSession::OrtSession(const std::string& file, const Ports& ports, const LoadOptions& options, Role role,
                       std::shared_ptr<const Linked> weights)
    : session_(nullptr), ports_(ports), memory_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)),
      there_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)), weights_(std::move(weights)),
      plugins_(role == Role::kEngineOfPlugins) {
  Ort::SessionOptions settings;
  settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_ERROR);
  settings.DisableCpuMemArena();  // malloc is faster for the many small tensors of a decoded token
  settings.DisableMemPattern();   // it keeps one for every new set of shapes, without end, and saves no time
  if (options.threads) settings.SetIntraOpNumThreads(*options.threads);
  settings.AddConfigEntry("session.force_spinning_stop", "1");
  settings.AddConfigEntry("session.intra_op.spin_duration_us", kSpinMicroseconds);
  const bool engine = role == Role::kEngine || plugins_;
  std::string provider = "CPUExecutionProvider", library;
  if (engine) {
    settings.AppendExecutionProvider("NvTensorRtRtx", {});
    if (plugins_) load_rtx_plugins(file);  // into what the provider has brought
    provider = kRtx;
  } else if (options.provider != "cpu" && add_cuda(settings, options.provider == "cuda")) {
    provider = kCuda;
    there_ = Ort::MemoryInfo("Cuda", OrtDeviceAllocator, 0, OrtMemTypeDefault);
  }
  on_cpu = provider == "CPUExecutionProvider";
  if (!engine && role != Role::kLines) {
    const std::string kernels = fs::path(file).parent_path() / "kernels";
    library = on_cpu ? find_op_library(options.op_library) : find_cuda_library(kernels, options.op_library);
    if (!library.empty() && !on_cpu) settings.AddConfigEntry("mythos.kernels", kernels.c_str());
    if (!library.empty()) add_operators(settings, library);
  }
  try {
    session_ = Ort::Session(environment(), file.c_str(), settings);
  } catch (const Ort::Exception& error) {
    if (const std::string reason = plugins_ ? plugin_refusal() : ""; !reason.empty())
      throw BundleError(file + " cannot be loaded" + reason);
    load_error(file, error, library);
  }
  compare(file, ports_.inputs, true);
  compare(file, ports_.outputs, false);
  if (!linked_.empty() && provider == kCuda)
    throw BackendMissing(file + " has its weights in files outside of the bundle, which are mapped on the CPU alone: take "
                                "provider='cpu', or export the model without --weights link");
  for (const Port& port : ports_.inputs) input_names_.push_back(port.name.c_str());
  for (const auto& [name, value] : linked_) input_names_.push_back(name.c_str());
  for (const Port& port : ports_.outputs) output_names_.push_back(port.name.c_str());
  description = std::string("onnxruntime ") + onnxruntime().GetVersionString() + ", " + provider + ", " +
                (options.threads ? std::to_string(*options.threads) : "all") + " threads, " +
                (library.empty() ? "portable operators" : "native operators of " + fs::path(library).filename().string());
  runs_rows = !engine && (on_cpu || !library.empty());
  if (!on_cpu && !library.empty()) description += " on the bundle's kernels (built, not executed)";
  if (!engine) description += not_taken(on_cpu, options.op_library);
  if (!engine) operators = library.empty() ? "portable" : "native";
}

Ort::Value OrtSession::tensor(void* data, const std::string& dtype, const std::vector<std::int64_t>& shape) const {
  return tensor_in(memory_, data, dtype, shape);
}

Ort::Value OrtSession::tensor_there(void* data, const std::string& dtype, const std::vector<std::int64_t>& shape) const {
  return tensor_in(there_, data, dtype, shape);
}

std::shared_ptr<char> OrtSession::allocate_there(std::size_t bytes, const std::function<void()>& refused) {
  auto allocator = std::make_shared<Ort::Allocator>(session_, there_);
  char* memory = nullptr;
  try {
    memory = static_cast<char*>(allocator->Alloc(bytes));
  } catch (const std::exception&) {  // which is how some of its allocators say that there is none
  }
  if (!memory) refused();
  return {memory, [allocator, session = shared_from_this()](char* given) { allocator->Free(given); }};
}

std::vector<Tensor> OrtSession::run(const std::vector<Tensor>& inputs) {
  std::vector<Tensor> outputs;
  guarded([&] {
    std::vector<Ort::Value> values;
    for (const Tensor& input : inputs)  // ONNX Runtime takes a mutable pointer for what it only reads
      values.push_back(tensor(const_cast<void*>(input.data), input.dtype, input.shape));
    for (const auto& [name, value] : linked_) {
      const Linked::Tensor& weight = weights_->tensors().at(name);
      values.push_back(tensor(weight.data, weight.dtype, weight.shape));
    }
    std::vector<Ort::Value> results = session_.Run(Ort::RunOptions{nullptr}, input_names_.data(), values.data(),
                                                   values.size(), output_names_.data(), output_names_.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
      auto value = std::make_shared<Ort::Value>(std::move(results[i]));
      const auto info = value->GetTensorTypeAndShapeInfo();
      const void* data = value->GetTensorRawData();
      outputs.push_back({ports_.outputs[i].name, type_name(info.GetElementType()), info.GetShape(), data, value});
    }
  }, plugins_);
  return outputs;
}

void OrtSession::run(const std::vector<Ort::Value>& inputs, std::vector<Ort::Value>& outputs) {
  guarded([&] {
    session_.Run(Ort::RunOptions{nullptr}, input_names_.data(), inputs.data(), inputs.size(), output_names_.data(),
                 outputs.data(), outputs.size());
  }, plugins_);
}

void OrtSession::run(const Ort::IoBinding& binding) {
  guarded([&] { session_.Run(Ort::RunOptions{nullptr}, binding); }, plugins_);
}

void OrtSession::bind_linked(Ort::IoBinding& binding) const {
  for (const auto& [name, value] : linked_) binding.BindInput(name.c_str(), value);
}

// Names, types and fixed sizes of the graph against the contract, so that a mismatch shows at load: caches and logits
// are allocated as the manifest says, so it must not say more than the graph.
void OrtSession::compare(const std::string& file, const std::vector<Port>& expected, bool inputs) {
  Ort::AllocatorWithDefaultOptions allocator;
  std::map<std::string, std::pair<std::string, std::vector<std::int64_t>>> values;
  const std::size_t count = inputs ? session_.GetInputCount() : session_.GetOutputCount();
  for (std::size_t i = 0; i < count; ++i) {
    const auto name = inputs ? session_.GetInputNameAllocated(i, allocator) : session_.GetOutputNameAllocated(i, allocator);
    const Ort::TypeInfo info = inputs ? session_.GetInputTypeInfo(i) : session_.GetOutputTypeInfo(i);
    if (inputs && weights_ && weights_->tensors().count(name.get())) {
      const Linked::Tensor& weight = weights_->tensors().at(name.get());
      linked_.emplace_back(name.get(), tensor(weight.data, weight.dtype, weight.shape));
      continue;
    }
    values[name.get()] = {"None", {}};
    if (info.GetONNXType() != ONNX_TYPE_TENSOR) continue;
    const auto tensor = info.GetTensorTypeAndShapeInfo();
    values[name.get()] = {type_name(tensor.GetElementType()), tensor.GetShape()};
  }
  for (const Port& port : expected) {
    const auto found = values.find(port.name);
    if (found == values.end())
      throw BundleError(file + " lacks the port " + port.words() + "; export the model again");
    const auto& [dtype, shape] = found->second;
    const std::string wanted = ", expected " + port.words() + "; export the model again";
    if (dtype != port.dtype) throw BundleError(file + ": the port " + port.name + " is " + dtype + wanted);
    if (shape.size() != port.dims.size())
      throw BundleError(file + ": the port " + port.name + " has " + std::to_string(shape.size()) + " dimensions" + wanted);
    for (std::size_t axis = 0; axis < shape.size(); ++axis)
      if (shape[axis] >= 0 && port.dims[axis].symbol.empty() && shape[axis] != port.dims[axis].size)
        throw BundleError(file + ": dimension " + std::to_string(axis) + " of the port " + port.name + " is " +
                          std::to_string(shape[axis]) + wanted);
    values.erase(found);
  }
  if (!values.empty())
    throw BundleError(file + " has the port " + values.begin()->first +
                      ", which this runtime does not know; update mythos_runtime");
}

bool rows_on_cuda(const LoadOptions& options) {
  if (!wants_cuda_ops() || options.provider == "cpu" || options.op_library != "auto") return false;
  require_api();
  return options.provider == "cuda" || available(kCuda);
}

std::unique_ptr<OrtSession> open_graph(const std::string& file, const Ports& ports, const LoadOptions& options,
                                       Role role, std::shared_ptr<const Linked> weights) {
  require_api();
  try {
    return std::make_unique<OrtSession>(file, ports, options, role, std::move(weights));
  } catch (const Ort::Exception& error) {
    throw BackendMissing("ONNX Runtime could not start: " + words(error));
  }
}

std::unique_ptr<Session> open_onnxruntime(const std::string& file, const Ports& ports, const LoadOptions& options,
                                          Wraps wraps, std::shared_ptr<const Linked> weights) {
  const Role role = wraps == Wraps::kNothing ? Role::kModel : wraps == Wraps::kEngine ? Role::kEngine : Role::kEngineOfPlugins;
  return open_graph(file, ports, options, role, std::move(weights));
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
