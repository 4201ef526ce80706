#include "cpu/kernels.h"

#if defined(__aarch64__)
#include "cpu/simd_neon.h"
// The instruction set's registers come first: the kernels are written over them.
#include "cpu/kernels_impl.h"

namespace mythos {

const Kernels* neon_kernels() {
  static constexpr Kernels kernels = table("neon");
  return &kernels;
}

}  // namespace mythos
#else
namespace mythos {

const Kernels* neon_kernels() { return nullptr; }  // another architecture

}  // namespace mythos
#endif
