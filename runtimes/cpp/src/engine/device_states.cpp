// States on a device (ort_device/memory.py).
#include "engine/device_graphs.hpp"

namespace mythos::engine {

DeviceStates::DeviceStates(const LoopSpec& spec, std::int64_t lines, std::shared_ptr<LineGraphs> graphs)
    : States(spec, lines, LineGraphs::pools(std::move(graphs))), halted_(static_cast<std::size_t>(lines)),
      depth_(static_cast<std::size_t>(lines)) {}

void DeviceStates::grow(std::int64_t lines) {
  if (lines <= this->lines()) return;
  States::grow(lines);
  halted_.resize(static_cast<std::size_t>(lines));
  depth_.resize(static_cast<std::size_t>(lines));
}

Lines DeviceStates::fresh(std::int64_t count) {
  Lines lines = take(count);
  for (const StateTensor& tensor : tensors_)
    for (const std::int64_t line : lines) {
      if (tensor.name == kHalted) halted_[static_cast<std::size_t>(line)] = tensor.start == "ones";
      if (tensor.name == kDepth) depth_[static_cast<std::size_t>(line)] = tensor.start == "ones";
    }
  return lines;
}

Lines DeviceStates::copy(const Lines& lines) {
  const Lines copies = States::copy(lines);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto from = static_cast<std::size_t>(lines[i]), to = static_cast<std::size_t>(copies[i]);
    halted_[to] = halted_[from], depth_[to] = depth_[from];
  }
  return copies;
}

void DeviceStates::saw(const Lines& lines, const std::int32_t* seen) {
  for (const std::int64_t line : lines) {
    halted_[static_cast<std::size_t>(line)] = *seen++ != 0;
    depth_[static_cast<std::size_t>(line)] = *seen++;
  }
}

}  // namespace mythos::engine
