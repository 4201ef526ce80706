// Rows of a matrix on CPU; of a block-wise one, one lane of each id's tile.
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/ops.h"

namespace mythos {
namespace {

void blockwise_row(const Kernels& kernels, const Weights& weights, size_t row, size_t dim, float* y) {
  const FormatTraits format = format_of(weights.format);
  const size_t lane = row % kTileRows, bytes = format.input_bytes();
  const Weights tile = weights.row(row - lane);
  float scales[kTileRows];
  for (size_t d = 0; d < dim; ++d) {
    if (d % kBlock == 0) kernels.widen(tile.scales + d / kBlock * kTileRows, scales, kTileRows);
    const uint8_t* const at = static_cast<const uint8_t*>(tile.data) + d * bytes;
    const int q = weights.format == int4 ? (at[lane % bytes] >> (lane < bytes ? 0 : 4) & 15) - format.zero
                                         : static_cast<int8_t>(at[lane]);
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
      case int4:
        blockwise_row(kernels, op.weights, row, op.dim, y);
    }
  }
}

}  // namespace mythos
