// Lines of a cache in int8 as operators see them: the integers of all parts, and behind them a scale of each, a
// bfloat16, the low byte first (mythos_model/cache_lines.py).
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels.h"

namespace mythos {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a scale's bytes are copied as they lie in memory");

// The parts of a line: the first is `first` wide, all others `rest`. No part: lines are not int8.
struct Parts {
  size_t count = 0, first = 0, rest = 0;

  size_t begin(size_t part) const { return part ? first + (part - 1) * rest : 0; }
  size_t of(size_t column) const { return column < first ? 0 : 1 + (column - first) / rest; }
  size_t bytes() const { return begin(count) + count * sizeof(uint16_t); }
};

// A line of floats as bytes.
inline void pack_line(const Kernels& kernels, const Parts& parts, const float* x, int8_t* line) {
  int8_t* scale = line + parts.begin(parts.count);
  for (size_t part = 0; part < parts.count; ++part, scale += sizeof(uint16_t)) {
    const size_t begin = parts.begin(part);
    const uint16_t stored = kernels.round_part(x + begin, parts.begin(part + 1) - begin, line + begin);
    std::memcpy(scale, &stored, sizeof stored);
  }
}

// Columns `column` .. column + n - 1 of a line as floats.
inline void unpack_line(const Kernels& kernels, const Parts& parts, const int8_t* line, size_t column, size_t n,
                        float* y) {
  const int8_t* const scales = line + parts.begin(parts.count);
  for (const size_t end = column + n; column < end;) {
    const size_t part = parts.of(column), count = std::min(parts.begin(part + 1), end) - column;
    uint16_t stored;
    std::memcpy(&stored, scales + part * sizeof stored, sizeof stored);
    kernels.unpack_part(line + column, stored, y, count);
    column += count, y += count;
  }
}

}  // namespace mythos
