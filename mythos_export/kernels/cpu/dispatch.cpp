#include <cstdlib>
#include <stdexcept>

#include "cpu/kernels.h"

namespace mythos {
namespace {

// The processor must have the instructions and the operating system must save the registers; the builtins ask for both.
const Kernels* usable_avx2() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    return avx2_kernels();
#endif
  return nullptr;
}

const Kernels* usable_avx512() {
#if defined(__x86_64__)
  if (usable_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return avx512_kernels();
#endif
  return nullptr;
}

}  // namespace

const Kernels& select_kernels() {
  const char* env = std::getenv("MYTHOS_OPS_ISA");
  const std::string wanted = env ? env : "";
  const Kernels* found = nullptr;
  if (wanted.empty()) {
    found = usable_avx512();
    if (!found) found = usable_avx2();
    if (!found) found = generic_kernels();
  } else if (wanted == "generic") {
    found = generic_kernels();
  } else if (wanted == "avx2") {
    found = usable_avx2();
  } else if (wanted == "avx512") {
    found = usable_avx512();
  } else {
    throw std::runtime_error("MYTHOS_OPS_ISA is '" + wanted + "'; it can be generic, avx2 or avx512, or be left unset");
  }
  if (!found)
    throw std::runtime_error("MYTHOS_OPS_ISA is '" + wanted + "', which this processor or this build lacks; unset it");
  return *found;
}

}  // namespace mythos
