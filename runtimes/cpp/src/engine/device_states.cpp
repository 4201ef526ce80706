// States on a device (ort_device/memory.py).
#include <algorithm>
#include <cstring>

#include "engine/device_graphs.hpp"
#include "ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::size_t kMostFrames = 128;
constexpr auto kNumber = static_cast<std::int64_t>(sizeof(std::int64_t));

bool is_drawn(const StateTensor& tensor) { return tensor.start == "noise" || tensor.start == "initial"; }

}  // namespace

DeviceStates::DeviceStates(const LoopSpec& spec, std::int64_t lines, std::shared_ptr<LineGraphs> graphs)
    : States(spec, lines, LineGraphs::pools(graphs)), graphs_(std::move(graphs)), halted_(static_cast<std::size_t>(lines)),
      depth_(static_cast<std::size_t>(lines)) {
  for (const StateTensor& tensor : tensors_) {
    if ((tensor.start == "encoded" || is_drawn(tensor)) && tensor.dtype != "float32")
      throw BundleError("the state " + tensor.name + " is " + tensor.dtype + ", expected float32; export the model again");
    const bool ones = tensor.start == "ones";
    if (ones || tensor.start == "zeros") constant_[tensor.name] = graphs_->constant(tensor.name, ones);
  }
}

void DeviceStates::grow(std::int64_t lines) {
  if (lines <= this->lines()) return;
  beginnings_.clear();
  leavings_.clear();
  States::grow(lines);
  halted_.resize(static_cast<std::size_t>(lines));
  depth_.resize(static_cast<std::size_t>(lines));
}

Lines DeviceStates::begin(const std::vector<std::int64_t>& ids, const float* encoded, const float* initial) {
  const auto count = static_cast<std::int64_t>(ids.size());
  const Lines lines = take(count);
  Frame& frame = beginning(count, const_cast<char*>(reinterpret_cast<const char*>(encoded)));  // which is only read
  std::copy(lines.begin(), lines.end(), frame.numbers.here<std::int64_t>("lines"));
  std::copy(ids.begin(), ids.end(), frame.numbers.here<std::int64_t>(kToken));
  for (const StateTensor& tensor : tensors_)
    if (is_drawn(tensor))
      std::memcpy(frame.numbers.here<char>(tensor.name), initial, static_cast<std::size_t>(count * array(tensor.name).row_bytes));
  frame.numbers.cross();
  frame.bound.run();
  for (const StateTensor& tensor : tensors_)
    for (const std::int64_t line : lines) {
      if (tensor.name == kHalted) halted_[static_cast<std::size_t>(line)] = tensor.start == "ones";
      if (tensor.name == kDepth) depth_[static_cast<std::size_t>(line)] = tensor.start == "ones";
    }
  return lines;
}

// For as many rows, which stand at that place.
DeviceStates::Frame& DeviceStates::beginning(std::int64_t count, char* encoded) {
  const auto found = beginnings_.find({count, encoded});
  if (found != beginnings_.end()) return found->second;
  if (beginnings_.size() >= kMostFrames) beginnings_.clear();
  Numbers::Sizes sizes{{"lines", count * kNumber}, {kToken, count * kNumber}};
  for (const StateTensor& tensor : tensors_)
    if (is_drawn(tensor)) sizes.emplace_back(tensor.name, count * array(tensor.name).row_bytes);
  Numbers numbers(graphs_->device, sizes);
  Addresses rows{{kEncoded, encoded}, {kToken, numbers.there(kToken)}};
  for (const StateTensor& tensor : tensors_)
    rows[tensor.name] = is_drawn(tensor)                ? numbers.there(tensor.name)
                        : tensor.start == "encoded" ? encoded
                                                    : constant_.at(tensor.name).get();
  Bound bound = graphs_->putting(*this, numbers.there("lines"), count, rows);
  return beginnings_.emplace(std::pair(count, encoded), Frame{std::move(numbers), std::move(bound)}).first->second;
}

Lines DeviceStates::copy(const Lines& lines) {
  const Lines copies = States::copy(lines);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto from = static_cast<std::size_t>(lines[i]), to = static_cast<std::size_t>(copies[i]);
    halted_[to] = halted_[from], depth_[to] = depth_[from];
  }
  return copies;
}

const float* DeviceStates::answers(const Lines& lines, const std::vector<bool>& early) {
  const auto count = static_cast<std::int64_t>(lines.size());
  Frame& frame = leaving(count);
  std::copy(lines.begin(), lines.end(), frame.numbers.here<std::int64_t>("lines"));
  std::copy(early.begin(), early.end(), frame.numbers.here<bool>("early"));
  frame.numbers.cross();
  frame.bound.run();
  const bool rests = spent_ && std::find(early.begin(), early.end(), true) != early.end();
  if (rests) graphs_->resting(frame.numbers.there("early"), count).run();
  return reinterpret_cast<const float*>((rests ? graphs_->answered : graphs_->rows.at(tensors_[1].name)).get());
}

DeviceStates::Frame& DeviceStates::leaving(std::int64_t count) {
  const auto found = leavings_.find(count);
  if (found != leavings_.end()) return found->second;
  if (leavings_.size() >= kMostFrames) leavings_.clear();
  Numbers numbers(graphs_->device, {{"lines", count * kNumber}, {"early", count}});
  Bound bound = graphs_->taking(*this, numbers.there("lines"), count);
  return leavings_.emplace(count, Frame{std::move(numbers), std::move(bound)}).first->second;
}

void DeviceStates::saw(const Lines& lines, const std::vector<char>& halted, const std::vector<std::int32_t>& depth) {
  for (std::size_t row = 0; row < lines.size(); ++row) {
    halted_[static_cast<std::size_t>(lines[row])] = halted[row] != 0;
    depth_[static_cast<std::size_t>(lines[row])] = depth[row];
  }
}

}  // namespace mythos::engine
