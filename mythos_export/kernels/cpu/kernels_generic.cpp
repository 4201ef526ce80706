#include "cpu/simd_generic.h"
// The instruction set's registers come first: the kernels are written over them.
#include "cpu/kernels_impl.h"

namespace mythos {

const Kernels* generic_kernels() {
  static constexpr Kernels kernels = table("generic");
  return &kernels;
}

}  // namespace mythos
