// Stand-ins for libnvinfer and libcudart on a machine without a GPU, and a program that opens an engine with them.
#include <cuda_runtime_api.h>

#include <iostream>

#include "session.hpp"

extern "C" {
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

namespace mythos {  // of spec.cpp, which reads JSON: an engine without ports asks for neither
std::string Port::words() const { return name; }
const Port& Ports::of(const std::string&, const std::string&) const { return inputs.at(0); }
}  // namespace mythos

int main(int, char** arguments) {
  try {
    mythos::open_native_tensorrt(arguments[1], mythos::Ports{});
  } catch (const mythos::BackendMissing& error) {
    std::cout << error.what() << "\n";
    return 3;
  }
  return 0;
}
