// Which rows the next call of the step graph takes: a function of the sequences alone, so that a schedule can be
// replayed, and read (scheduler.py).
//
// A position runs depth t if it, or a later position of its sequence, has not halted before: the later one will look for
// its entry. So the rows that are due for a job are those from the first without an entry at its depth up to its last
// position that is still going, one contiguous causal chunk with whatever lags behind it.
//
// Under the policy `share` the halted ones among them do not run: their entries are copied, and `going` is what is left.
#pragma once

#include <map>
#include <optional>

#include "engine/states.hpp"

namespace mythos::engine {

// The rows of a sequence's job at its depth, with whatever lags; none where the job is through.
std::optional<Span> due(Sequence& sequence, const States& states);
// What is left of a span without its halted rows.
Spans going(const Span& span, const States& states);

// Deals the rows of a call.
class Scheduler {
 public:
  explicit Scheduler(std::int64_t rows) : rows(rows) {}
  // As many of the due rows as a call takes: who had none in the last call comes first, then who has the fewest (a token
  // does not wait for a long prompt). The last one may be cut.
  Spans plan(const Spans& due);
  // A sequence has ended.
  void forget(const Sequence* sequence) { served_.erase(sequence); }

  std::int64_t rows;  // the most that a call takes

 private:
  std::int64_t tick_ = 0;
  std::map<const Sequence*, std::int64_t> served_;
};

}  // namespace mythos::engine
