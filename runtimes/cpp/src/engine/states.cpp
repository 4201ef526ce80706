#include "engine/states.hpp"

#include <algorithm>
#include <cstring>

#include "ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::int64_t kLimitBytes = sizeof(float) + sizeof(std::int32_t);  // threshold and cap of a line

std::int64_t row_bytes(const StateTensor& tensor) {
  auto bytes = static_cast<std::int64_t>(dtype_size(tensor.dtype));
  for (const Dim& dim : tensor.dims)
    if (dim.symbol.empty() && __builtin_mul_overflow(bytes, dim.size, &bytes))
      throw CapacityError("a line of the state " + tensor.name + " is larger than any memory");
  return bytes;
}

// The position's id: what layers that read the tokens look up at every loop.
const StateTensor kTokens{kToken, "int64", {{0, "B"}, {0, "T"}}, "", {}, {}};

}  // namespace

const void* one_of(const std::string& dtype) {
  static const float wide = 1;
  static const std::uint16_t half = 0x3C00, brain = 0x3F80;
  static const std::int64_t whole = 1;  // little-endian: the first bytes are the shorter ones
  if (dtype == "float32") return &wide;
  if (dtype == "float16") return &half;
  return dtype == "bfloat16" ? static_cast<const void*>(&brain) : &whole;
}

States::States(const LoopSpec& spec, std::int64_t lines, const MakeLines& make)
    : tensors_(spec.state), spent_(spec.exit.spent), lines_(lines), make_(make) {
  const auto add = [&](const std::string& name, const StateTensor& tensor) {
    Array& array = arrays_[name];
    array.row_bytes = row_bytes(tensor);
    array.memory = make(lines, array.row_bytes, "states");
  };
  for (const StateTensor& tensor : tensors_) add(tensor.name, tensor);
  add(kEncoded, tensors_[0]);
  add(kToken, kTokens);
  halted_ = &arrays_.at(kHalted);
  threshold.resize(static_cast<std::size_t>(lines));
  cap.resize(static_cast<std::size_t>(lines));
  for (std::int64_t line = lines; line-- > 0;) free_.push_back(line);
}

void States::grow(std::int64_t lines) {
  if (lines <= lines_) return;
  for (auto& [name, array] : arrays_) {
    std::unique_ptr<LinePool> memory = make_(lines, array.row_bytes, "states");
    if (free() < lines_) memory->copy({0}, *array.memory, {0}, lines_);
    array.memory = std::move(memory);
  }
  threshold.resize(static_cast<std::size_t>(lines));
  cap.resize(static_cast<std::size_t>(lines));
  Lines more;
  for (std::int64_t line = lines; line-- > lines_;) more.push_back(line);
  free_.insert(free_.begin(), more.begin(), more.end());
  lines_ = lines;
}

std::int64_t States::nbytes() const {
  std::int64_t bytes = lines_ * kLimitBytes;
  for (const auto& [name, array] : arrays_) bytes += lines_ * array.row_bytes;
  return bytes;
}

std::int32_t States::depth(std::int64_t line) const {
  std::int32_t depth;
  std::memcpy(&depth, arrays_.at(kDepth).row(line), sizeof depth);
  return depth;
}

Lines States::take(std::int64_t count) {
  if (count > free()) throw OutOfStates();
  Lines lines(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<std::size_t>(count));
  peak = std::max(peak, lines_ - free());
  return lines;
}

Lines States::begin(const std::vector<std::int64_t>& ids, const float* encoded, const float* initial) {
  const auto count = static_cast<std::int64_t>(ids.size());
  const Lines lines = take(count);
  const auto fill = [&](const Array& array, const void* rows) {
    for (std::int64_t i = 0; i < count; ++i)
      std::memcpy(array.row(lines[static_cast<std::size_t>(i)]), static_cast<const char*>(rows) + i * array.row_bytes,
                  static_cast<std::size_t>(array.row_bytes));
  };
  fill(arrays_.at(kEncoded), encoded);
  fill(arrays_.at(kToken), ids.data());
  for (const StateTensor& tensor : tensors_) {
    const Array& array = arrays_.at(tensor.name);
    const std::size_t size = dtype_size(tensor.dtype), bytes = static_cast<std::size_t>(array.row_bytes);
    if (tensor.start == "noise" || tensor.start == "initial")
      fill(array, initial);
    else if (tensor.start == "encoded")
      fill(array, encoded);
    else
      for (const std::int64_t line : lines) {
        std::memset(array.row(line), 0, bytes);
        for (std::size_t at = 0; tensor.start == "ones" && at < bytes; at += size)
          std::memcpy(array.row(line) + at, one_of(tensor.dtype), size);
      }
  }
  return lines;
}

Lines States::copy(const Lines& lines) {
  const Lines copies = take(static_cast<std::int64_t>(lines.size()));
  for (const auto& [name, array] : arrays_) array.memory->copy(copies, *array.memory, lines, 1);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto from = static_cast<std::size_t>(lines[i]), to = static_cast<std::size_t>(copies[i]);
    threshold[to] = threshold[from], cap[to] = cap[from];
  }
  return copies;
}

const float* States::answers(const Lines& lines, const std::vector<bool>& early) {
  const Array &answer = arrays_.at(tensors_[1].name), &h = arrays_.at(tensors_[0].name);
  const std::size_t width = static_cast<std::size_t>(answer.row_bytes) / sizeof(float);
  answers_.resize(lines.size() * width);
  for (std::size_t row = 0; row < lines.size(); ++row) {
    float* const left = &answers_[row * width];
    std::memcpy(left, answer.row(lines[row]), static_cast<std::size_t>(answer.row_bytes));
    if (!spent_ || !early[row] || halted(lines[row])) continue;
    const float rest = std::max(1 - *reinterpret_cast<const float*>(arrays_.at(*spent_).row(lines[row])), 0.0f);
    const auto* state = reinterpret_cast<const float*>(h.row(lines[row]));
    for (std::size_t i = 0; i < width; ++i) left[i] += rest * state[i];
  }
  return answers_.data();
}

void States::end(Lines::const_iterator first, Lines::const_iterator last) {
  free_.insert(free_.end(), first, last);
  if (freed) std::for_each(first, last, freed);
}

std::int64_t States::line_bytes(const LoopSpec& spec) {
  std::int64_t bytes = kLimitBytes + row_bytes(kTokens);
  if (__builtin_add_overflow(bytes, row_bytes(spec.state[0]), &bytes)) throw CapacityError("a line of the states is too large");
  for (const StateTensor& tensor : spec.state)
    if (__builtin_add_overflow(bytes, row_bytes(tensor), &bytes)) throw CapacityError("a line of the states is too large");
  return bytes;
}

}  // namespace mythos::engine
