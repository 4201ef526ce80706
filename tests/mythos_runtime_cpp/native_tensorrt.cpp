// Stand-ins for libnvinfer and libcudart on a machine without a GPU, and a program that opens an engine with them.
#include <NvInfer.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <iostream>
#include <string>
#include <thread>

#include "session.hpp"

// Takes a library as a TensorRT does, and has its first plug-in refuse an engine without fields.
class Registry : public nvinfer1::IPluginRegistry {
 public:
  ~Registry() noexcept override = default;
  bool registerCreator(nvinfer1::IPluginCreator&, const char*) noexcept override { return false; }
  nvinfer1::IPluginCreator* const* getPluginCreatorList(std::int32_t*) const noexcept override { return nullptr; }
  nvinfer1::IPluginCreator* getPluginCreator(const char*, const char*, const char*) noexcept override { return nullptr; }
  void setErrorRecorder(nvinfer1::IErrorRecorder*) noexcept override {}
  nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool deregisterCreator(const nvinfer1::IPluginCreator&) noexcept override { return false; }
  bool isParentSearchEnabled() const override { return true; }
  void setParentSearchEnabled(bool) override {}
  PluginLibraryHandle loadLibrary(const char* path) noexcept override {
    using Creators = nvinfer1::IPluginCreatorInterface* const* (*)(std::int32_t&);
    void* const library = dlopen(path, RTLD_NOW);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    if (!library || known_.load()) return nullptr;  // it takes a library once
    std::int32_t count = 0;
    auto* const creator = reinterpret_cast<Creators>(dlsym(library, "getCreators"))(count)[0];
    known_ = creator;
    const nvinfer1::PluginFieldCollection none{};
    static_cast<nvinfer1::IPluginCreatorV3One*>(creator)->createPlugin("x", &none, nvinfer1::TensorRTPhase::kRUNTIME);
    return library;
  }
  void deregisterLibrary(PluginLibraryHandle) noexcept override {}
  bool registerCreator(nvinfer1::IPluginCreatorInterface&, const char*) noexcept override { return false; }
  nvinfer1::IPluginCreatorInterface* const* getAllCreators(std::int32_t*) const noexcept override { return nullptr; }
  nvinfer1::IPluginCreatorInterface* getCreator(const char*, const char*, const char*) noexcept override {
    return known_;
  }
  bool deregisterCreator(const nvinfer1::IPluginCreatorInterface&) noexcept override { return false; }
  nvinfer1::IPluginResource* acquirePluginResource(const char*, nvinfer1::IPluginResource*) noexcept override {
    return nullptr;
  }
  std::int32_t releasePluginResource(const char*) noexcept override { return 0; }
  nvinfer1::IPluginCreatorInterface* const* getAllCreatorsRecursive(std::int32_t*) noexcept override { return nullptr; }

 private:
  std::atomic<nvinfer1::IPluginCreatorInterface*> known_{nullptr};
};

extern "C" {
nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
  static Registry registry;
  return &registry;
}
void* createInferRuntime_INTERNAL(void*, std::int32_t) noexcept { return nullptr; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = DEVICES;
  return DEVICES ? cudaSuccess : cudaErrorNoDevice;
}
const char* cudaGetErrorString(cudaError_t error) { return error == cudaErrorNoDevice ? "no device" : "no error"; }
cudaError_t cudaMalloc(void**, std::size_t) { return cudaErrorNoDevice; }
cudaError_t cudaFree(void*) { return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void*, const void*, std::size_t, cudaMemcpyKind, cudaStream_t) { return cudaErrorNoDevice; }
cudaError_t cudaStreamCreate(cudaStream_t*) { return cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
}

namespace mythos {  // of spec.cpp: an engine without ports asks for neither
std::string Port::words() const { return name; }
const Port& Ports::of(const std::string&, const std::string&) const { return inputs.at(0); }
}  // namespace mythos

int main(int, char** arguments) {
  std::string said[2];
  const auto open = [&](std::string& words) {
    try {
      mythos::open_native_tensorrt(arguments[1], mythos::Ports{}, arguments[2]);
    } catch (const std::exception& error) {
      words = error.what();
    }
  };
  std::thread other(open, std::ref(said[1]));  // sessions may open at once
  open(said[0]);
  other.join();
  std::cout << said[0] << "\n" << said[1] << "\n";
  return said[0].empty() || said[1].empty() ? 0 : 3;
}
