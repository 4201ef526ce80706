// The operators of the ONNX domain "mythos" as ONNX Runtime custom operators of its CUDA provider, on the Triton kernels
// that a bundle of target cuda brings compiled. Built, not executed on a GPU.
//
//   options = onnxruntime.SessionOptions()
//   options.add_session_config_entry("mythos.kernels", "BUNDLE/kernels")
//   options.register_custom_ops_library("libmythos_cuda_ops.so")
//
// No operator is known here: kernels.json says which there are, what they take and which kernels to launch. The library
// is linked neither to ONNX Runtime nor to CUDA: calls go through the table that RegisterCustomOps is given, and through
// the driver that is opened with the first launch.
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/call.h"
#include "onnxruntime_api.h"

#ifndef MYTHOS_PROVIDER  // tests build it for the CPU, with a stand-in for the driver
#define MYTHOS_PROVIDER "CUDAExecutionProvider"
#endif

namespace mythos::cuda {
namespace {

constexpr const char* kFolderEntry = "mythos.kernels";
constexpr const char* kDomain = "mythos";
constexpr const char* kPortableDomain = "mythos.portable";  // of formats that the CPU library has no kernels for
constexpr const char* kOnlyPortable = "fp8";

ONNXTensorElementDataType onnx_type(const std::string& type) {
  if (type == "fp32") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  if (type == "fp16") return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
  if (type == "bf16") return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
  if (type == "i64") return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  if (type == "i32") return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
  if (type == "i8") return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
  if (type == "u8") return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  if (type == "i1") return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
  throw std::invalid_argument("a tensor of the type " + type);
}

// What the sessions on one folder have in common.
struct Kernels {
  Program program;
  std::unique_ptr<Launcher> launcher;
};

// An operator in one precision and format of weights, as ONNX Runtime asks for it.
struct Operator : OrtCustomOp {
  std::shared_ptr<Kernels> kernels;
  const Signature* signature;
  std::string format;
  std::vector<const Tensor*> inputs;
  std::vector<ONNXTensorElementDataType> input_types, output_types;

  Operator(std::shared_ptr<Kernels> of, const Call& call);
};

const Operator& self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

// What goes wrong in there becomes ONNX Runtime's error.
template <class F>
OrtStatusPtr guarded(const Operator& op, F work) {
  try {
    work();
    return nullptr;
  } catch (const std::exception& error) {
    const std::string words = std::string("mythos.") + op.signature->name + " on a GPU: " + error.what();
    return Ort::Status(words.c_str(), ORT_FAIL).release();
  }
}

// A node of a session.
class Instance {
 public:
  Instance(const Operator& op, const Ort::ConstKernelInfo& info) : op_(op) {
    for (const auto& [name, real] : op.signature->attributes)
      attributes_[name] = real ? Value::of_float(info.GetAttribute<float>(name.c_str()))
                               : Value::of(info.GetAttribute<int64_t>(name.c_str()));
    for (const Call& call : op.kernels->program.calls)
      if (call.signature == op.signature && call.format == op.format &&
          std::all_of(call.attributes.begin(), call.attributes.end(),
                      [&](const auto& known) { return attributes_.at(known.first).integer == known.second; }))
        calls_.push_back(&call);
  }

  OrtStatusPtr run(OrtKernelContext* raw) const {
    return guarded(op_, [&] { compute(Ort::KernelContext(raw)); });
  }

 private:
  void compute(const Ort::KernelContext& context) const {
    Invocation invocation(attributes_);
    std::vector<const Call*> calls = calls_;
    for (size_t i = 0; i < op_.inputs.size(); ++i) {
      const Tensor& tensor = *op_.inputs[i];
      const Ort::ConstValue value = context.GetInput(i);
      const Shape shape = value.GetTensorTypeAndShapeInfo().GetShape();
      invocation.input(tensor, shape, reinterpret_cast<Address>(value.GetTensorRawData()));
      calls.erase(std::remove_if(calls.begin(), calls.end(),
                                 [&](const Call* call) { return !fits(*call, tensor.name, shape); }),
                  calls.end());
      if (calls.empty()) {
        throw std::invalid_argument(tensor.name + " has the shape " + text(shape) + ", and no kernels in " +
                                    op_.kernels->program.folder + " are for it: export the model again");
      }
    }
    for (size_t i = 0; i < op_.signature->outputs.size(); ++i) {
      const Tensor& tensor = op_.signature->outputs[i];
      const Shape shape = invocation.shape_of(tensor);
      Ort::UnownedValue value = context.GetOutput(i, shape.data(), shape.size());
      invocation.output(tensor, shape, reinterpret_cast<Address>(value.GetTensorMutableRawData()));
    }
    invocation.launch(*op_.kernels->launcher, *calls.front(), context.GetGPUComputeStream());
  }

  const Operator& op_;
  std::vector<const Call*> calls_;  // that have the node's attributes
  Names attributes_;
};

Operator::Operator(std::shared_ptr<Kernels> of, const Call& call)
    : OrtCustomOp{}, kernels(std::move(of)), signature(call.signature), format(call.format) {
  inputs = inputs_of(call);
  for (const Tensor* tensor : inputs) input_types.push_back(onnx_type(type_of(call, *tensor)));
  for (const Tensor& tensor : signature->outputs) output_types.push_back(onnx_type(type_of(call, tensor)));

  version = ORT_API_VERSION;
  GetName = [](const OrtCustomOp* op) { return self(op).signature->name.c_str(); };
  GetExecutionProviderType = [](const OrtCustomOp*) { return MYTHOS_PROVIDER; };
  GetInputTypeCount = [](const OrtCustomOp* op) { return self(op).input_types.size(); };
  GetInputType = [](const OrtCustomOp* op, size_t i) { return self(op).input_types[i]; };
  GetOutputTypeCount = [](const OrtCustomOp* op) { return self(op).output_types.size(); };
  GetOutputType = [](const OrtCustomOp* op, size_t i) { return self(op).output_types[i]; };
  GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };  // the device's
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return 1; };
  CreateKernelV2 = [](const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
    return guarded(self(op), [&] { *kernel = new Instance(self(op), Ort::ConstKernelInfo(info)); });
  };
  KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatusPtr {
    return static_cast<const Instance*>(kernel)->run(context);
  };
  KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
}

// What stays for as long as the library: sessions keep pointing to it.
struct Registered {
  std::shared_ptr<Kernels> kernels;
  std::vector<std::unique_ptr<Operator>> operators;
  Ort::CustomOpDomain domain{kDomain}, portable{kPortableDomain};
  bool has_domain = false, has_portable = false;
};

Registered& registered(const std::string& folder) {
  static std::mutex mutex;
  // Never destroyed: a session that is static itself may outlive the library's own statics, and points to these.
  static auto& known = *new std::map<std::string, std::unique_ptr<Registered>>;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& found = known[folder + "\n" + read_file(folder + "/kernels.json")];  // of a bundle exported again, another one
  if (found) return *found;
  auto made = std::make_unique<Registered>();
  made->kernels = std::make_shared<Kernels>();
  read_program(folder, made->kernels->program);
  made->kernels->launcher =
      std::make_unique<Launcher>(std::shared_ptr<const Program>(made->kernels, &made->kernels->program));
  std::set<std::pair<std::string, std::string>> added;
  for (const Call& call : made->kernels->program.calls) {
    if (!added.emplace(call.signature->name, call.format).second) continue;
    made->operators.push_back(std::make_unique<Operator>(made->kernels, call));
    const bool portable = call.format == kOnlyPortable;
    (portable ? made->portable : made->domain).Add(made->operators.back().get());
    (portable ? made->has_portable : made->has_domain) = true;
  }
  found = std::move(made);
  return *found;
}

std::string folder_of(const OrtSessionOptions* options) {
  const OrtApi& api = Ort::GetApi();
  int there = 0;
  Ort::ThrowOnError(api.HasSessionConfigEntry(options, kFolderEntry, &there));
  if (!there) {
    throw std::invalid_argument(std::string("the session has no entry ") + kFolderEntry +
                                ": add_session_config_entry with the folder of the bundle's kernels, before this");
  }
  size_t size = 0;
  Ort::ThrowOnError(api.GetSessionConfigEntry(options, kFolderEntry, nullptr, &size));
  std::string folder(size, '\0');
  Ort::ThrowOnError(api.GetSessionConfigEntry(options, kFolderEntry, folder.data(), &size));
  folder.resize(size - 1);  // the end is counted
  return std::filesystem::absolute(folder).string();  // kernels are read from there later, wherever the process is then
}

}  // namespace
}  // namespace mythos::cuda

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                                            const OrtApiBase* base) {
  if (OrtStatus* const older = mythos::take_api(base)) return older;
  try {
    using namespace mythos::cuda;
    Registered& ready = registered(folder_of(options));
    Ort::UnownedSessionOptions session(options);
    if (ready.has_domain) session.Add(ready.domain);
    if (ready.has_portable) session.Add(ready.portable);
  } catch (const std::exception& error) {
    return Ort::Status(error.what(), ORT_FAIL).release();
  }
  return nullptr;
}
