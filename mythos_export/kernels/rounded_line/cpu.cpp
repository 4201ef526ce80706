// mythos::rounded_line on CPU: each part rounded to integers and back, a few parts a task.
#include "cpu/ops.h"

namespace mythos {
namespace {

constexpr size_t kTaskParts = 64;

}  // namespace

void rounded_line(const Kernels& kernels, const Parallel& parallel, const RoundedLine& op) {
  parallel.each(ceil_div(op.parts, kTaskParts), op.parts * op.width, [&](size_t task) {
    Buffer<int8_t> integers(op.width);
    for (size_t part = task * kTaskParts; part < op.parts && part < (task + 1) * kTaskParts; ++part) {
      const size_t at = part * op.width;
      const uint16_t scale = kernels.round_part(op.x + at, op.width, integers.get());
      kernels.unpack_part(integers.get(), scale, op.y + at, op.width);
    }
  });
}

}  // namespace mythos
