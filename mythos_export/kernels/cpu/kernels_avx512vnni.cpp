#include "cpu/kernels.h"

#if defined(__x86_64__) && defined(__AVX512VNNI__)
#include "cpu/simd_avx512.h"
// The instruction set's registers come first: the kernels are written over them.
#include "cpu/kernels_impl.h"

namespace mythos {

const Kernels* vnni_kernels() {
  static constexpr Kernels kernels = table("avx512vnni");
  return &kernels;
}

}  // namespace mythos
#else
namespace mythos {

const Kernels* vnni_kernels() { return nullptr; }  // another architecture

}  // namespace mythos
#endif
