// In place of the CUDA driver, for tests on a machine without a GPU: memory is the host's, the code of a kernel is its
// name, and each launch is handed to a function of the test's. What CUDA refuses is refused. Contexts are numbered, each
// on a GPU of its own.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace {

struct Module {
  std::string image;
  int context;
};

struct Function {
  Module module;
  std::string entry;
  unsigned shared_allowed = 48 << 10;
};

using OnLaunch = int (*)(const char* image, const char* entry, const unsigned* grid, unsigned threads, unsigned shared,
                         void* stream, void** parameters);

OnLaunch on_launch = nullptr;
int context = 0;  // the current one
std::map<int, int> capabilities;
std::set<void*> blocks;
size_t copied = 0;
constexpr int kInvalid = 1;

}  // namespace

extern "C" {

// Stand in for a GPU of this compute capability; `launched` returns 0, or an error of the driver.
void stand_in(int of_capability, OnLaunch launched) {
  capabilities[context] = of_capability;
  on_launch = launched;
}
// Makes that context, 0 to begin with, the current one.
void stand_in_context(int number) { context = number; }
// Blocks of memory that were not given back.
size_t stand_in_held() { return blocks.size(); }
// Bytes that were copied since it was last asked.
size_t stand_in_copied() { return std::exchange(copied, 0); }

int cuCtxGetCurrent(void** current) {
  *current = reinterpret_cast<void*>(static_cast<intptr_t>(context + 1));
  return 0;
}
int cuCtxGetDevice(int* device) {
  *device = context;
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (attribute != 75 && attribute != 76) return kInvalid;
  *value = attribute == 75 ? capabilities[device] / 10 : capabilities[device] % 10;
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  *module = new Module{static_cast<const char*>(image), context};  // as long as the process, as a module is
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* entry) {
  *function = new Function{*static_cast<Module*>(module), entry};
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute != 8) return kInvalid;
  static_cast<Function*>(function)->shared_allowed = static_cast<unsigned>(value);
  return 0;
}
int cuMemAllocAsync(uint64_t* address, size_t size, void*) {
  void* block = std::aligned_alloc(256, (size + 255) / 256 * 256);
  if (!size || !block) return kInvalid;
  std::memset(block, 0xFF, size);  // NaN, as any float
  blocks.insert(block);
  *address = reinterpret_cast<uint64_t>(block);
  return 0;
}
int cuMemFreeAsync(uint64_t address, void*) {
  void* block = reinterpret_cast<void*>(address);
  if (!blocks.erase(block)) return kInvalid;
  std::free(block);
  return 0;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t size, void*) {
  if (!size || to == from) return kInvalid;  // nobody has to ask for that
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), size);
  copied += size;
  return 0;
}
int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void* stream, void** parameters, void** extra) {
  const auto& of = *static_cast<Function*>(function);
  const bool blocks_fit = x && y && z && x <= 0x7FFFFFFF && y <= 65535 && z <= 65535;
  if (!blocks_fit || !threads || threads > 1024 || threads_y != 1 || threads_z != 1 || extra) return kInvalid;
  if (shared > of.shared_allowed || of.module.context != context || !on_launch) return kInvalid;
  const unsigned grid[] = {x, y, z};
  return on_launch(of.module.image.c_str(), of.entry.c_str(), grid, threads, shared, stream, parameters);
}
int cuGetErrorString(int status, const char** text) {
  *text = status == kInvalid ? "invalid argument" : "failed in the test";
  return 0;
}

}  // extern "C"
