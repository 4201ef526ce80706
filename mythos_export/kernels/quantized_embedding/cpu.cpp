// Rows of a block-wise quantised matrix on CPU: one lane of each id's tile.
#include <stdexcept>
#include <string>

#include "cpu/ops.h"

namespace mythos {

void embedding(const Kernels& kernels, const Embedding& op) {
  constexpr size_t kTile = 16, kBlock = 32;
  for (size_t i = 0; i < op.n; ++i) {
    const int64_t id = op.ids[i];
    if (id < 0 || id >= static_cast<int64_t>(op.rows)) {
      throw std::invalid_argument("ids[" + std::to_string(i) + "] is " + std::to_string(id) + "; there are rows 0 to " +
                                  std::to_string(static_cast<int64_t>(op.rows) - 1));
    }
    const size_t row = static_cast<size_t>(id), lane = row % kTile;
    const Weights tile = op.weights.row(row - lane);
    float scales[kTile];
    for (size_t d = 0; d < op.dim; ++d) {
      if (d % kBlock == 0) kernels.widen(tile.scales + d / kBlock * kTile, scales, kTile);
      const auto* bytes = static_cast<const uint8_t*>(tile.data) + d * (tile.format == q4 ? 8 : 16);
      const int q = tile.format == q4 ? (bytes[lane % 8] >> (lane < 8 ? 0 : 4) & 15) - 8 : static_cast<int8_t>(bytes[lane]);
      op.y[i * op.dim + d] = static_cast<float>(q) * scales[lane];
    }
  }
}

}  // namespace mythos
