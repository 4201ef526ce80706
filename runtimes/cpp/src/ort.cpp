// The onnxruntime backend (ort.py): past buffers are handed over as they are, outputs are read where they come.
#include "ort.hpp"

#include <filesystem>
#include <map>
#include <memory>

#include "ort_library.hpp"
#include "plugins.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

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
    throw BackendFailed("ONNX Runtime could not finish the call: " + first_line(error) + (plugins ? plugin_refusal() : ""));
  } catch (const std::bad_alloc&) {
    throw BackendFailed("ONNX Runtime could not finish the call: out of memory");
  }
}

}  // namespace

OrtSession::OrtSession(const std::string& file, const Ports& ports, const LoadOptions& options, Role role,
                       std::shared_ptr<const Linked> weights)
    : session_(nullptr), ports_(ports), memory_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)),
      there_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)), weights_(std::move(weights)),
      plugins_(role == Role::kEngineOfPlugins) {
  auto [session, provider, library] = open_inference(file, options, role);
  session_ = std::move(session);
  const bool engine = role == Role::kEngine || plugins_;
  on_cpu = provider == kCpu;
  if (provider == kCuda) there_ = Ort::MemoryInfo("Cuda", OrtDeviceAllocator, 0, OrtMemTypeDefault);
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

std::unique_ptr<OrtSession> open_graph(const std::string& file, const Ports& ports, const LoadOptions& options,
                                       Role role, std::shared_ptr<const Linked> weights) {
  require_api();
  try {
    return std::make_unique<OrtSession>(file, ports, options, role, std::move(weights));
  } catch (const Ort::Exception& error) {
    throw BackendMissing("ONNX Runtime could not start: " + first_line(error));
  }
}

std::unique_ptr<Session> open_onnxruntime(const std::string& file, const Ports& ports, const LoadOptions& options,
                                          Wraps wraps, std::shared_ptr<const Linked> weights) {
  const Role role = wraps == Wraps::kNothing ? Role::kModel : wraps == Wraps::kEngine ? Role::kEngine : Role::kEngineOfPlugins;
  return open_graph(file, ports, options, role, std::move(weights));
}

}  // namespace mythos
