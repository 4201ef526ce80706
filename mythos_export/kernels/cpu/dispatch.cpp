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

}  // namespace

const Kernels& select_kernels() {
  const char* env = std::getenv("MYTHOS_OPS_ISA");
  const std::string wanted = env ? env : "";
  const Kernels* found = nullptr;
  if (wanted.empty()) {
    found = usable_avx512();
    if (!found) found = usable_avx2();
    if (!found) found = neon_kernels();  // which every 64-bit ARM processor can run
    if (!found) found = generic_kernels();
  } else if (wanted == "generic") {
    found = generic_kernels();
  } else if (wanted == "avx2") {
    found = usable_avx2();
  } else if (wanted == "avx512") {
    found = usable_avx512();
  } else if (wanted == "neon") {
    found = neon_kernels();
  } else {
    throw std::runtime_error("MYTHOS_OPS_ISA is '" + wanted + "'; it can be generic, avx2, avx512 or neon, or be left unset");
  }
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
  out << R"(], "key_block": )" << kKeyBlock << R"(, "isas": {)";
  separator = "";
  for (const Kernels* kernels : {generic_kernels(), usable_avx2(), usable_avx512(), neon_kernels()}) {
    if (!kernels) continue;
    const Tiles& tiles = kernels->tiles;
    out << separator << '"' << kernels->isa << R"(": {"width": )" << tiles.width << R"(, "rows": )" << tiles.rows
        << R"(, "strip": )" << tiles.strip << R"(, "columns": )" << tiles.columns << R"(, "panel_rows": )"
        << tiles.panel_rows << R"(, "panel_depth": )" << tiles.panel_depth << "}";
    separator = ", ";
  }
  out << "}}";
  return out.str();
}

}  // namespace mythos
