// A serialized engine in full TensorRT, the C++ twin of mythos_runtime/tensorrt/session.py. Compiled only where NvInfer.h is found.
//
// Built, not executed: no package that this project builds from ships the library. A test compiles it against the public
// headers of TensorRT 10.14 and links it with stand-ins; it was compiled against those of 10.16 and 11.1, too.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <fstream>
#include <iterator>
#include <map>
#include <mutex>

#include "plugins.hpp"
#include "session.hpp"

namespace mythos {
namespace {

namespace trt = nvinfer1;

void cuda(cudaError_t error) {
  if (error != cudaSuccess) throw BackendFailed(std::string("CUDA failed: ") + cudaGetErrorString(error));
}

class Quiet : public trt::ILogger {
  void log(Severity, const char*) noexcept override {}
};

const char* type_name(trt::DataType type) {
  switch (type) {
    case trt::DataType::kBOOL: return "bool";
    case trt::DataType::kINT32: return "int32";
    case trt::DataType::kINT64: return "int64";
    case trt::DataType::kHALF: return "float16";
    case trt::DataType::kBF16: return "bfloat16";
    case trt::DataType::kFLOAT: return "float32";
    default: return "None";
  }
}

// Device memory of one port, grown when needed and kept.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(memory_); }
  void* at_least(std::size_t bytes) {  // never null, which TensorRT refuses even for empty tensors
    bytes = bytes ? bytes : 1;
    if (bytes > size_) {
      cuda(cudaFree(memory_));
      memory_ = nullptr, size_ = 0;
      cuda(cudaMalloc(&memory_, bytes));
      size_ = bytes;
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  std::size_t size_ = 0;
};

struct Stream {
  Stream() { cuda(cudaStreamCreate(&handle)); }
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle = nullptr;
};

std::size_t bytes_of(const std::string& dtype, const std::vector<std::int64_t>& shape) {
  std::size_t bytes = dtype_size(dtype);
  for (const std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

trt::Dims dims_of(const std::vector<std::int64_t>& shape) {
  trt::Dims dims{};
  dims.nbDims = static_cast<std::int32_t>(shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) dims.d[i] = shape[i];
  return dims;
}

class NativeSession : public Session {
 public:
  NativeSession(const std::string& file, const Ports& ports, const std::string& plugins) : ports_(ports) {
    if (!plugins.empty()) load_plugins(file, plugins);
    std::ifstream stream(file, std::ios::binary);
    const std::string plan((std::istreambuf_iterator<char>(stream)), {});
    runtime_.reset(trt::createInferRuntime(logger_));
    engine_.reset(runtime_ ? runtime_->deserializeCudaEngine(plan.data(), plan.size()) : nullptr);
    if (!engine_) {
      if (const std::string reason = plugin_refusal(); !plugins.empty() && !reason.empty())
        throw BundleError(file + " cannot be loaded" + reason);
      throw BackendMissing(file + " cannot be loaded by TensorRT on this GPU: it was built for another GPU or another "
                           "version; export the model again with --target tensorrt for this machine");
    }
    for (const auto* ports : {&ports_.inputs, &ports_.outputs})
      for (const Port& port : *ports) check_port(file, port);
    context_.reset(engine_->createExecutionContext());
    if (!context_) throw BackendFailed(file + ": TensorRT could not make an execution context; is the GPU's memory full?");
    description = "tensorrt, " + file + ", " + std::to_string(engine_->getNbOptimizationProfiles()) + " profiles";
  }

  std::vector<Tensor> run(const std::vector<Tensor>& inputs) override {
    choose_profile(inputs);
    Symbols symbols;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Tensor& input = inputs[i];
      for (std::size_t d = 0; d < input.shape.size(); ++d)
        if (const std::string& symbol = ports_.inputs[i].dims[d].symbol; !symbol.empty())
          symbols[symbol] = input.shape[d];
      const char* name = input.name.c_str();
      if (!context_->setInputShape(name, dims_of(input.shape)))
        throw BackendFailed("TensorRT refuses the shape " + list_in_words(input.shape) + " for " + input.name);
      void* address = const_cast<void*>(input.data);
      if (!on_host(name)) {  // scalars that shape the graph stay on the host
        const std::size_t bytes = bytes_of(input.dtype, input.shape);
        address = buffers_[input.name].at_least(bytes);
        cuda(cudaMemcpyAsync(address, input.data, bytes, cudaMemcpyHostToDevice, stream_.handle));
      }
      bind(name, address);
    }
    std::vector<Tensor> outputs;
    for (const Port& port : ports_.outputs) {
      Tensor output{port.name, port.dtype, shape_of(port, symbols), nullptr, nullptr};
      const std::size_t bytes = bytes_of(port.dtype, output.shape);
      auto memory = std::make_shared<std::vector<char>>(bytes ? bytes : 1);
      output.data = memory->data();
      bind(port.name.c_str(), on_host(port.name.c_str()) ? memory->data() : buffers_[port.name].at_least(bytes));
      output.owner = memory;
      outputs.push_back(std::move(output));
    }
    if (!context_->enqueueV3(stream_.handle)) {
      const std::string reason = plugin_refusal();
      throw BackendFailed("TensorRT could not run the engine" + (reason.empty() ? "; its log says why" : reason));
    }
    for (const Tensor& output : outputs)
      if (!on_host(output.name.c_str())) {
        const std::size_t bytes = bytes_of(output.dtype, output.shape);
        cuda(cudaMemcpyAsync(const_cast<void*>(output.data), buffers_[output.name].at_least(bytes), bytes,
                             cudaMemcpyDeviceToHost, stream_.handle));
      }
    cuda(cudaStreamSynchronize(stream_.handle));  // until here the inputs' memory is in use
    return outputs;
  }

 private:
  // What an engine calls has to be known before it is loaded. The registry is the process's, and takes a library once.
  static void load_plugins(const std::string& file, const std::string& library) {
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    plugin_refusal();  // from now on this thread asks for reasons
    trt::IPluginRegistry* const registry = getPluginRegistry();
    if (registry->getCreator("moe", "1", "mythos")) return;
    if (registry->loadLibrary(library.c_str())) return;
    throw BackendMissing(file + " calls plug-ins, and this TensorRT does not take " + library);
  }

  void check_port(const std::string& file, const Port& port) const {
    bool known = false;
    for (std::int32_t i = 0; i < engine_->getNbIOTensors(); ++i) known = known || port.name == engine_->getIOTensorName(i);
    if (!known) throw BundleError(file + " lacks the port " + port.words() + "; export the model again");
    const std::string dtype = type_name(engine_->getTensorDataType(port.name.c_str()));
    if (dtype != port.dtype)
      throw BundleError(file + ": the port " + port.name + " is " + dtype + ", expected " + port.words() +
                        "; export the model again");
  }

  bool fits(const Tensor& input, std::int32_t profile) const {
    const char* name = input.name.c_str();
    const trt::Dims least = engine_->getProfileShape(name, profile, trt::OptProfileSelector::kMIN);
    const trt::Dims most = engine_->getProfileShape(name, profile, trt::OptProfileSelector::kMAX);
    if (least.nbDims != static_cast<std::int32_t>(input.shape.size())) return false;
    for (std::size_t i = 0; i < input.shape.size(); ++i)
      if (input.shape[i] < least.d[i] || input.shape[i] > most.d[i]) return false;
    return true;
  }

  // The narrowest profile that takes these shapes: decode before prefill for one token.
  void choose_profile(const std::vector<Tensor>& inputs) {
    std::int32_t best = -1;
    std::int64_t width = 0;
    for (std::int32_t profile = 0; profile < engine_->getNbOptimizationProfiles(); ++profile) {
      bool all = true;
      for (const Tensor& input : inputs) all = all && (input.shape.empty() || fits(input, profile));
      if (!all) continue;
      const trt::Dims most = engine_->getProfileShape(ports_.of("ids").name.c_str(), profile, trt::OptProfileSelector::kMAX);
      if (best < 0 || most.d[1] < width) best = profile, width = most.d[1];
    }
    if (best < 0) {
      std::string shapes;
      for (const Tensor& input : inputs)
        if (!input.shape.empty()) shapes += (shapes.empty() ? "" : ", ") + input.name + " " + list_in_words(input.shape);
      throw RequestError("no optimization profile of the engine takes " + shapes);
    }
    if (best == profile_) return;
    if (!context_->setOptimizationProfileAsync(best, stream_.handle))
      throw BackendFailed("TensorRT could not switch to its optimization profile " + std::to_string(best));
    cuda(cudaStreamSynchronize(stream_.handle));
    profile_ = best;
  }

  bool on_host(const char* name) const { return engine_->getTensorLocation(name) == trt::TensorLocation::kHOST; }
  void bind(const char* name, void* address) {
    if (!context_->setTensorAddress(name, address))
      throw BackendFailed(std::string("TensorRT refuses the memory given for ") + name);
  }

  Quiet logger_;  // in this order: the runtime must outlive the engine, the engine its context
  std::unique_ptr<trt::IRuntime> runtime_;
  std::unique_ptr<trt::ICudaEngine> engine_;
  std::unique_ptr<trt::IExecutionContext> context_;
  Stream stream_;
  std::map<std::string, Buffer> buffers_;
  Ports ports_;
  std::int32_t profile_ = -1;
};

}  // namespace

std::unique_ptr<Session> open_native_tensorrt(const std::string& file, const Ports& ports, const std::string& plugins) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0)
    throw BackendMissing(std::string("a TensorRT engine needs an NVIDIA GPU, and CUDA finds none here (") +
                         cudaGetErrorString(error) + ")");
  return std::make_unique<NativeSession>(file, ports, plugins);
}

}  // namespace mythos
