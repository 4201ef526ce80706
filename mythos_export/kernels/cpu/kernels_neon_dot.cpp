#include "cpu/kernels.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "cpu/simd_neon.h"
// The instruction set's registers come first: the kernels are written over them.
#include "cpu/kernels_impl.h"

namespace mythos {

const Kernels* neon_dot_kernels() {
  static constexpr Kernels kernels = table("neondot");
  return &kernels;
}

}  // namespace mythos
#else
namespace mythos {

const Kernels* neon_dot_kernels() { return nullptr; }  // another architecture

}  // namespace mythos
#endif
