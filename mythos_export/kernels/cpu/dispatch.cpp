#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <cstdlib>
#include <sstream>
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

const Kernels* usable_vnni() {
#if defined(__x86_64__)
  if (usable_avx512() && __builtin_cpu_supports("avx512vnni")) return vnni_kernels();
#endif
  return nullptr;
}

const Kernels* usable_neon_dot() {
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotProduct = 1ul << 20;  // HWCAP_ASIMDDP
  if (getauxval(AT_HWCAP) & kDotProduct) return neon_dot_kernels();
#elif defined(__aarch64__) && defined(__APPLE__)
  return neon_dot_kernels();  // every one has it
#endif
  return nullptr;
}

struct Choice {
  const char* name;
  const Kernels* (*usable)();
};
// The best first; every 64-bit ARM processor can run NEON.
constexpr Choice kChoices[] = {{"avx512vnni", usable_vnni}, {"avx512", usable_avx512}, {"avx2", usable_avx2},
                               {"neondot", usable_neon_dot}, {"neon", neon_kernels}, {"generic", generic_kernels}};

}  // namespace

const Kernels& select_kernels() {
  const char* env = std::getenv("MYTHOS_OPS_ISA");
  const std::string wanted = env ? env : "";
  const Kernels* found = nullptr;
  bool known = wanted.empty();
  for (const Choice& choice : kChoices) {
    if (found || !(wanted.empty() || wanted == choice.name)) continue;
    known = true;
    found = choice.usable();
  }
  if (!known)
    throw std::runtime_error("MYTHOS_OPS_ISA is '" + wanted +
                             "'; it can be generic, avx2, avx512, avx512vnni, neon or neondot, or be left unset");
  if (!found)
    throw std::runtime_error("MYTHOS_OPS_ISA is '" + wanted + "', which this processor or this build lacks; unset it");
  return *found;
}

std::string describe() {
  std::ostringstream out;
  const char* separator = "";
  out << R"({"formats": [)";
  for (const Format f : {f32, f16, int8, int4}) {
    const FormatTraits format = format_of(f);
    out << separator << R"({"name": ")" << format.name << R"(", "bits": )" << format.bits << R"(, "block": )"
        << format.block << R"(, "tile": )" << format.tile << R"(, "zero": )" << format.zero << R"(, "scale_bits": )"
        << (format.block > 1 ? 8 * sizeof(Scale) : 0) << "}";
    separator = ", ";
  }
  out << R"(], "key_block": )" << kKeyBlock << R"(, "deep": )" << kDeep << R"(, "isas": {)";
  separator = "";
  for (const Choice& choice : kChoices) {
    const Kernels* const kernels = choice.usable();
    if (!kernels) continue;
    const Tiles& tiles = kernels->tiles;
    out << separator << '"' << kernels->isa << R"(": {"width": )" << tiles.width << R"(, "rows": )" << tiles.rows
        << R"(, "strip": )" << tiles.strip << R"(, "columns": )" << tiles.columns << R"(, "panel_rows": )"
        << tiles.panel_rows << R"(, "panel_depth": )" << tiles.panel_depth << R"(, "rounded_rows": )" << tiles.rounded_rows << "}";
    separator = ", ";
  }
  out << "}}";
  return out.str();
}

}  // namespace mythos
