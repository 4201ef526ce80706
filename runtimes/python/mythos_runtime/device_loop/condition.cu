// The condition of a loop, set on the device: one thread, at the end of an iteration.
//
// condition.fatbin is this file: nvcc -fatbin -o condition.fatbin condition.cu -gencode arch=compute_80,code=sm_80
//   -gencode arch=compute_90,code=sm_90 -gencode arch=compute_100,code=sm_100 -gencode arch=compute_120,code=sm_120
#include <cuda_runtime.h>

extern "C" __global__ void set_condition(cudaGraphConditionalHandle handle, const bool* goes_on) {
  cudaGraphSetConditional(handle, *goes_on ? 1u : 0u);
}
