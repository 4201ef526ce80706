// A sequence as the engine sees it: what is cached of it at every depth, and what runs of it now (sequence.py).
//
// Invariants, with N the limit of the sequence and `filled` never increasing:
//
//   cache entries 0 .. filled[t]-1 are there at depth t
//   a position p with filled[t] <= p < filled[t-1] has run exactly the depths 0 .. t-1, so one state of it is enough
//   positions filled[N-1] .. length-1 have a state; the others have run everything, and their state is gone
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/pages.hpp"

namespace mythos::engine {

// What happens at the depths that a position did not run before it halted. lazy: they are run when a later position needs
// their entries. full: they are run at once. share: its deepest entry stands for them.
enum class Policy { lazy, full, share };

// Positions first..last on their way through the loop.
struct Job {
  std::int64_t first = 0, last = 0;
  std::int64_t stop = 0;   // depths to run at most; fewer than the sequence's limit for a draft
  std::int64_t depth = 0;  // whose rows are due
  bool whole = false;      // run them at every depth, whether they have halted or not
  bool answers = true;     // the layers behind the loop wait for them
};

// Make one with `Core::open`.
struct Sequence {
  Sequence(std::int64_t limit, float threshold, Policy policy, std::uint64_t state_seed, std::int64_t number = 0)
      : number(number), limit(limit), threshold(threshold), policy(policy), state_seed(state_seed),
        filled(static_cast<std::size_t>(limit), 0), loop(static_cast<std::size_t>(limit)) {}

  const std::int64_t number;  // in the order in which they were opened
  const std::int64_t limit;   // N, the most loops of its positions; fixed, as all of them have the same
  float threshold;           // where its positions halt, those that enter from now on
  const Policy policy;
  std::uint64_t state_seed;        // what its first states are drawn with, where the model draws them
  bool capped = false;        // a position may have a cap below the limit
  std::int64_t length = 0;    // positions that have entered
  std::int64_t answered = 0;  // positions whose entries behind the loop are there
  std::optional<Job> job;
  std::vector<std::int64_t> filled;  // per depth, see above
  Table around;
  std::vector<Table> loop;
  Lines lines;  // where the states of positions length - lines.size() .. length - 1 are

  // Positions that have run every depth, and those that have not.
  std::int64_t complete() const { return limit ? filled.back() : length; }
  std::int64_t lag() const { return length - complete(); }
  // Where the state of a position is that has one.
  std::int64_t line(std::int64_t position) const {
    return lines[static_cast<std::size_t>(position - length) + lines.size()];
  }
};

// Rows of one sequence at one depth, positions first..last.
struct Span {
  Sequence* sequence;
  std::int64_t depth, first, last;
  std::int64_t rows() const { return last - first + 1; }
};
using Spans = std::vector<Span>;

// Where the states of all the spans' rows are.
inline Lines lines_of(const Spans& spans) {
  Lines lines;
  for (const Span& span : spans)
    for (std::int64_t position = span.first; position <= span.last; ++position)
      lines.push_back(span.sequence->line(position));
  return lines;
}

}  // namespace mythos::engine
