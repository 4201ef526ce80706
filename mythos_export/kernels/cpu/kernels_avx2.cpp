#include "cpu/kernels.h"

#if defined(__x86_64__) && defined(__AVX2__)
#include "cpu/simd_avx2.h"
// The instruction set's registers come first: the kernels are written over them.
#include "cpu/kernels_impl.h"

namespace mythos {

const Kernels* avx2_kernels() {
  static constexpr Kernels kernels = table("avx2");
  return &kernels;
}

}  // namespace mythos
#else
namespace mythos {

const Kernels* avx2_kernels() { return nullptr; }  // another architecture

}  // namespace mythos
#endif
