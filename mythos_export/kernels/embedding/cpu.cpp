// Rows of a matrix on CPU; of a block-wise one, one lane of each id's tile.
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/ops.h"

namespace mythos {
namespace {

template <Format F>
void blockwise_row(const Kernels& kernels, const Weights& weights, size_t row, size_t dim, float* y) {
  constexpr FormatTraits format = format_of(F);
  constexpr size_t group = format.group();
  const size_t lane = row % kTileRows;
  const Weights tile = weights.row(row - lane);
  float scales[kTileRows];
  for (size_t d = 0; d < dim; ++d) {
    if (d % kBlock == 0) kernels.widen(tile.scales + d / kBlock * kTileRows, scales, kTileRows);
    const uint8_t stored = static_cast<const uint8_t*>(tile.data)[d / group * kLine + lane * kQuad + d % kQuad];
    const int q = F == int4 ? (stored >> (d % group < kQuad ? 0 : 4) & 15) - format.zero : static_cast<int8_t>(stored);
    y[d] = static_cast<float>(q) * scales[lane];
  }
}

}  // namespace

void embedding(const Kernels& kernels, const Embedding& op) {
  for (size_t i = 0; i < op.n; ++i) {
    const int64_t id = op.ids[i];
    if (id < 0 || id >= static_cast<int64_t>(op.rows)) {
      throw std::invalid_argument("ids[" + std::to_string(i) + "] is " + std::to_string(id) + "; there are rows 0 to " +
                                  std::to_string(static_cast<int64_t>(op.rows) - 1));
    }
    const size_t row = static_cast<size_t>(id);
    float* const y = op.y + i * op.dim;
    switch (op.weights.format) {
      case f32:
        std::memcpy(y, op.weights.row(row).data, op.dim * sizeof(float));
        break;
      case f16:
        kernels.widen(static_cast<const uint16_t*>(op.weights.row(row).data), y, op.dim);
        break;
      case int8:
        blockwise_row<int8>(kernels, op.weights, row, op.dim, y);
        break;
      case int4:
        blockwise_row<int4>(kernels, op.weights, row, op.dim, y);
    }
  }
}

}  // namespace mythos
