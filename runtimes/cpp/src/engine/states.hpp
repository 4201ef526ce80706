// What the loop carries of every position that has not run all depths: one line of each tensor per position (states.py).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/sequence.hpp"
#include "mythos_spec.hpp"

namespace mythos::engine {

// One element of a type that is one, [dtype_size].
const void* one_of(const std::string& dtype);

inline constexpr const char *kHalted = "halted", *kDepth = "depth", *kEncoded = "encoded", *kToken = "token";

class States {
 public:
  struct Array {  // [lines, ...] of one tensor
    std::unique_ptr<LinePool> memory;
    std::int64_t row_bytes = 0;
    char* row(std::int64_t line) const { return memory->data() + line * row_bytes; }
  };

  // The spec's states are those of `row_contradiction`. `make`: of the memory that they lie in.
  States(const LoopSpec& spec, std::int64_t lines, const MakeLines& make = host_lines);
  virtual ~States() = default;

  std::int64_t lines() const { return lines_; }
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  std::int64_t nbytes() const;
  const Array& array(const std::string& name) const { return arrays_.at(name); }
  // Of a line: whether its position has halted, and the loops that contributed to it.
  virtual bool halted(std::int64_t line) const { return *halted_->row(line) != 0; }
  virtual std::int32_t depth(std::int64_t line) const;
  // Have at least so many lines (CapacityError).
  virtual void grow(std::int64_t lines);

  // Lines for new positions, by their ids, with the state before the first loop: encoded [count, D], and what was drawn
  // [count, D], where anything is (OutOfStates: there are not as many).
  Lines begin(const std::vector<std::int64_t>& ids, const float* encoded, const float* initial);
  // Lines with the same values, for a fork (OutOfStates).
  virtual Lines copy(const Lines& lines);
  // What leaves the loop of these lines, [r, D]; valid until the next call. `early` [r]: which leave as if their last loop
  // had been their last: a sum takes what is left of 1 from the state.
  const float* answers(const Lines& lines, const std::vector<bool>& early);
  // The lines are nobody's any more.
  void end(Lines::const_iterator first, Lines::const_iterator last);

  // Bytes of one line of all tensors.
  static std::int64_t line_bytes(const LoopSpec& spec);

  std::vector<float> threshold;   // by line, where a position halts; NaN: nowhere before its cap
  std::vector<std::int32_t> cap;  // by line, the loop with which it halts at the latest
  std::function<void(std::int64_t)> freed;  // called with a line that is nobody's any more (tests fill it with NaN)
  std::int64_t peak = 0;                    // the most lines that were in use at a time

 protected:
  Lines take(std::int64_t count);

  std::vector<StateTensor> tensors_;
  std::map<std::string, Array> arrays_;
  std::optional<std::string> spent_;  // of an answer that is a weighted sum: the weights given so far

 private:
  const Array* halted_;
  std::int64_t lines_;
  MakeLines make_;
  std::vector<std::int64_t> free_;
  std::vector<float> answers_;
};

}  // namespace mythos::engine
