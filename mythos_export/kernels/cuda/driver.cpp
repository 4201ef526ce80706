#include "cuda/driver.h"

#include <dlfcn.h>

#include <stdexcept>

namespace mythos::cuda {
namespace {

constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CUdevice_attribute
constexpr int kMaxDynamicSharedBytes = 8;                    // CUfunction_attribute
constexpr unsigned kSharedWithoutAsking = 48 << 10;

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function) throw std::runtime_error(std::string("this CUDA driver has no ") + name + ": install a newer one");
}

}  // namespace

const Driver& Driver::get() {
  static const Driver driver;
  return driver;
}

Driver::Driver() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) throw std::runtime_error(std::string("this needs an NVIDIA GPU with its driver (") + dlerror() + ")");
  find(library, "cuCtxGetCurrent", ctx_get_current_);
  find(library, "cuCtxGetDevice", ctx_get_device_);
  find(library, "cuDeviceGetAttribute", device_get_attribute_);
  find(library, "cuModuleLoadData", module_load_data_);
  find(library, "cuModuleGetFunction", module_get_function_);
  find(library, "cuFuncSetAttribute", func_set_attribute_);
  find(library, "cuMemAllocAsync", mem_alloc_async_);
  find(library, "cuMemFreeAsync", mem_free_async_);
  find(library, "cuMemcpyDtoDAsync_v2", memcpy_async_);
  find(library, "cuLaunchKernel", launch_kernel_);
  find(library, "cuGetErrorString", get_error_string_);
}

void* Driver::context() const {
  void* context;
  check(ctx_get_current_(&context), "cuCtxGetCurrent");
  return context;
}

int Driver::capability() const {
  int device, major, minor;
  check(ctx_get_device_(&device), "cuCtxGetDevice");
  check(device_get_attribute_(&major, kCapabilityMajor, device), "cuDeviceGetAttribute");
  check(device_get_attribute_(&minor, kCapabilityMinor, device), "cuDeviceGetAttribute");
  return 10 * major + minor;
}

void* Driver::function(const std::string& image, const std::string& entry, unsigned shared_bytes) const {
  void *module, *function;
  check(module_load_data_(&module, image.c_str()), "cuModuleLoadData");
  check(module_get_function_(&function, module, entry.c_str()), "cuModuleGetFunction");
  if (shared_bytes > kSharedWithoutAsking)
    check(func_set_attribute_(function, kMaxDynamicSharedBytes, static_cast<int>(shared_bytes)), "cuFuncSetAttribute");
  return function;
}

Address Driver::allocate(size_t size, void* stream) const {
  Address address;
  check(mem_alloc_async_(&address, size, stream), "cuMemAllocAsync");
  return address;
}

void Driver::free(Address address, void* stream) const { check(mem_free_async_(address, stream), "cuMemFreeAsync"); }

void Driver::copy(Address to, Address from, size_t size, void* stream) const {
  check(memcpy_async_(to, from, size, stream), "cuMemcpyDtoDAsync");
}

void Driver::launch(const Launch& launch, void* stream) const {
  std::vector<void*> arguments;
  for (const std::uint64_t& value : launch.arguments) arguments.push_back(const_cast<std::uint64_t*>(&value));
  check(launch_kernel_(launch.function, launch.grid[0], launch.grid[1], launch.grid[2], launch.threads, 1, 1,
                       launch.shared_bytes, stream, arguments.data(), nullptr),
        "cuLaunchKernel");
}

void Driver::check(int status, const char* call) const {
  if (status == 0) return;
  const char* text = nullptr;
  get_error_string_(status, &text);
  throw std::runtime_error(std::string(call) + " failed: " + (text ? text : "unknown error") + " (" +
                           std::to_string(status) + ")");
}

}  // namespace mythos::cuda
