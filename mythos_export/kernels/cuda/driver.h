// The few calls of the CUDA driver that a launch needs. The driver is opened when it is first asked for (dlopen), so that
// this builds and loads on machines without one. Not executed on a GPU yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mythos::cuda {

using Address = std::uint64_t;

// One start of a kernel; every argument is a pointer, a number of 32 bits or one of 64, in 8 bytes of its own.
struct Launch {
  void* function;
  unsigned grid[3];
  unsigned threads, shared_bytes;
  std::vector<std::uint64_t> arguments;
};

class Driver {
 public:
  // That of this process, in whatever context is current on the calling thread. Throws std::runtime_error where there
  // is none.
  static const Driver& get();

  // The current context: what is loaded into one runs in no other.
  void* context() const;
  // Of the current context's GPU, 86 for 8.6.
  int capability() const;
  // Loads a cubin into the current context and allows its kernel that much dynamic shared memory. The driver is not told
  // where the image ends: hold it to its hash before.
  void* function(const std::string& image, const std::string& entry, unsigned shared_bytes) const;
  // Memory that may be used by what is put into the stream from now on; `free` gives it back once the stream is there.
  Address allocate(size_t size, void* stream) const;
  void free(Address address, void* stream) const;
  // From one place of the device's memory to another.
  void copy(Address to, Address from, size_t size, void* stream) const;
  void launch(const Launch& launch, void* stream) const;

 private:
  Driver();
  void check(int status, const char* call) const;

  int (*ctx_get_current_)(void**);
  int (*ctx_get_device_)(int*);
  int (*device_get_attribute_)(int*, int, int);
  int (*module_load_data_)(void**, const void*);
  int (*module_get_function_)(void**, void*, const char*);
  int (*func_set_attribute_)(void*, int, int);
  int (*mem_alloc_async_)(Address*, size_t, void*);
  int (*mem_free_async_)(Address, void*);
  int (*memcpy_async_)(Address, Address, size_t, void*);
  int (*launch_kernel_)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**,
                        void**);
  int (*get_error_string_)(int, const char**);
};

}  // namespace mythos::cuda
