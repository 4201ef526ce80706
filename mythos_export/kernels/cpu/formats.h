// How weights are stored: the table of mythos_model/formats.py, which explains it, for C++.
// tests/mythos_export/kernels/test_formats.py holds the two together.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mythos {

enum Format : uint8_t { f32, f16, int8, int4 };
constexpr size_t kFormats = 4;

using Scale = uint16_t;      // a float16
constexpr size_t kQuad = 4;  // bytes of a row that lie side by side, in tiles

struct FormatTraits {
  const char* name;  // as the operators' attribute `format` has it
  size_t bits;       // of an element, without scales
  size_t block;      // inputs that share a scale; 1 where there are none
  size_t tile;       // rows that are beside each other: rows can only be addressed at multiples of this
  int zero;          // what is stored for a weight of 0

  constexpr size_t group() const { return 8 * kQuad / bits; }  // inputs of a row that lie side by side
};

constexpr FormatTraits format_of(Format f) {
  constexpr FormatTraits traits[kFormats] = {
      {"plain", 32, 1, 1, 0}, {"plain", 16, 1, 1, 0}, {"int8", 8, 32, 16, 0}, {"int4", 4, 32, 16, 8}};
  return traits[f];
}

// What the block-wise kernels share.
constexpr size_t kBlock = format_of(int8).block, kTileRows = format_of(int8).tile;
static_assert(format_of(int4).block == kBlock && format_of(int4).tile == kTileRows);
static_assert(sizeof(Scale) == 2 && format_of(int8).group() == 4 && format_of(int4).group() == 8);
// What a tile holds of one group of inputs: kQuad bytes of each row, one cache line.
constexpr size_t kLine = kQuad * kTileRows;
static_assert(kLine == 64 && kBlock % format_of(int4).group() == 0, "a block of a tile is whole cache lines");

}  // namespace mythos
