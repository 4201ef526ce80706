// What the loop carries of every position that has not run all depths: one line of each tensor per position (states.py).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/sequence.hpp"
#include "mythos_spec.hpp"

namespace mythos::engine {

inline constexpr const char *kHalted = "halted", *kDepth = "depth", *kEncoded = "encoded", *kToken = "token";

class States {
 public:
  struct Array {  // [lines, ...] of one tensor
    Bytes memory;
    std::int64_t row_bytes = 0;
    char* row(std::int64_t line) const { return memory.get() + line * row_bytes; }
  };

  // The spec's states are those of `row_contradiction`.
  States(const LoopSpec& spec, std::int64_t lines);

  std::int64_t lines() const { return lines_; }
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  std::int64_t nbytes() const;
  const Array& array(const std::string& name) const { return arrays_.at(name); }
  // Of a line: whether its position has halted, and the loops that contributed to it.
  bool halted(std::int64_t line) const { return *halted_->row(line) != 0; }
  std::int32_t depth(std::int64_t line) const;
  // Have at least so many lines (CapacityError).
  void grow(std::int64_t lines);

  // Lines for new positions, by their ids, with the state before the first loop: encoded [count, D], and what was drawn
  // [count, D], null where nothing is (OutOfStates: there are not as many).
  Lines begin(const std::vector<std::int64_t>& ids, const float* encoded, const float* initial);
  // Lines with the same values, for a fork (OutOfStates).
  Lines copy(const Lines& lines);
  // The lines are nobody's any more.
  void end(Lines::const_iterator first, Lines::const_iterator last);

  // Bytes of one line of all tensors.
  static std::int64_t line_bytes(const LoopSpec& spec);

  std::vector<float> threshold;   // by line, where a position halts; NaN: nowhere before its cap
  std::vector<std::int32_t> cap;  // by line, the loop with which it halts at the latest
  std::function<void(std::int64_t)> freed;  // called with a line that is nobody's any more (tests fill it with NaN)
  std::int64_t peak = 0;                    // the most lines that were in use at a time

 private:
  Lines take(std::int64_t count);

  std::vector<StateTensor> tensors_;
  std::map<std::string, Array> arrays_;
  const Array* halted_;
  std::int64_t lines_;
  std::vector<std::int64_t> free_;
};

}  // namespace mythos::engine
