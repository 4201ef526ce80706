// Exact lazy depth: sequences whose rows are packed, whatever depth they are at, and computed no deeper than needed
// (core.py).
//
//   Sequence& sequence = core.open(16, 0.99f);
//   core.enter({{&sequence, ids}});
//   while (core.step({&sequence}).empty()) {}
//   core.leave({{&sequence}})[0].logits             // [V] of the chunk's last position
//
// A chunk enters (the layers before the loop), its rows are stepped until all have halted, and it leaves (the layers
// behind the loop). A position that has halted lags at the depths it did not run, until a later one needs its entries
// there; then it runs them, as it would have. So nothing is approximated, and a row computes the same bits in any company.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/graphs.hpp"
#include "engine/memory.hpp"
#include "row_ports.hpp"

namespace mythos::engine {

// New tokens of a sequence.
struct Chunk {
  Sequence* sequence;
  std::vector<std::int64_t> ids;
  // Whether somebody wants their logits. Without, they are run when a later position needs them (with layers behind the
  // loop, which need every position's answer, at once).
  bool answers = true;
  std::vector<std::int32_t> caps = {};          // the loop with which each halts at the latest, 1 or more; none: the limit
  std::vector<bool> forced = {};                // which do not halt before
  std::optional<std::int64_t> depths = {};      // run no more of them: a draft, whose answer is an early one
  std::vector<float> initial = {};              // [n, S], the state before the first loop, of models that draw it; none: drawn
};

// A sequence whose job is through, and what is wanted of it.
struct Leaving {
  Sequence* sequence;
  bool every = false;  // the answers of all its positions, not only of the last
  // As if their last loop had been their last: of a draft (`Chunk::depths`). What the layers behind the loop cache then is
  // not what they will leave with: the same positions have to be run on (`Core::resume`), and to leave, or to be forgotten.
  bool early = false;
};

// What a chunk's positions came to: logits [V] and depth of the last one, or [n, V] and [n] of all.
struct Answer {
  std::vector<float> logits;
  std::vector<std::int32_t> depth;
};

// Sequences, their caches and the state of what lags.
class Core {
 public:
  // `max_lag`: positions that may lag before they are made to run all depths, in one chunk a depth: a bound on what a hard
  // token has to wait for. None: no bound.
  Core(std::unique_ptr<Graphs> graphs, Memory memory, std::optional<std::int64_t> max_lag = {});

  // Has at least so much memory (CapacityError).
  void reserve(const Room& room);
  // A sequence of at most `limit` loops a position. A model that draws its first state draws it with `state_seed`.
  Sequence& open(std::int64_t limit, float threshold, Policy policy = Policy::lazy, std::uint64_t state_seed = 0);
  // The most positions of a sequence that have a state at a time, where it is fed `chunk` at a time, and asked to `repay`
  // behind each; none: there is no bound. Without layers behind the loop, a prompt's positions wait at the first depth until
  // its last token enters.
  std::optional<std::int64_t> most_states(Policy policy, std::int64_t chunk) const;
  // Gives back everything that the sequence holds; what lags is dropped, never run.
  void close(Sequence& sequence);
  // A second sequence with the same entries, on the same pages, and a copy of each state (OutOfStates: nothing was changed).
  // `length`: of its first positions alone, with nothing to be done; none: all of it.
  Sequence& fork(const Sequence& sequence, std::optional<std::int64_t> length = {});
  // Forgets the positions from `length` on. Only between chunks.
  void truncate(Sequence& sequence, std::int64_t length) { cut(sequence, length); }

  // Takes new tokens in, together at most `most_rows`, and gives their sequences, which have none, a job (OutOfStates,
  // OutOfPages: nothing was computed).
  void enter(const std::vector<Chunk>& chunks);
  // By the number of a call's rows, the loops that it may run where the same rows are due loop after loop.
  using MostLoops = std::function<std::int64_t(std::int64_t)>;
  // One call of the step, or of the step in a Loop, over rows that are due of these; those whose jobs are through, to leave
  // (OutOfPages: no row that is due could run). What comes of a call of several loops is what as many calls would give, to the bit.
  std::vector<Sequence*> step(const std::vector<Sequence*>& sequences, const MostLoops& most = any_loops);
  static std::int64_t any_loops(std::int64_t) { return kMostLoops; }
  // Steps until the jobs of all are through.
  void run(const std::vector<Sequence*>& sequences);
  // Answers chunks whose jobs are through.
  std::vector<Answer> leave(const std::vector<Leaving>& leaving);
  // Runs the positions from `first` on to where they halt: drafts, as one chunk.
  void resume(Sequence& sequence, std::int64_t first);
  // Makes what lags run, where it is too much (`at_least` positions; none: `max_lag`): call it when nothing of the sequence
  // will be forgotten.
  void repay(Sequence& sequence, std::optional<std::int64_t> at_least = {});

  const LoopSpec& spec() const { return *graphs->spec; }

  const std::unique_ptr<Graphs> graphs;
  Memory memory;
  PagedCache *const around, *const loop;  // around the loop (null where the model has no layers there), and per depth
  States* const states;
  Scheduler scheduler;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::optional<std::int64_t> max_lag;
  const bool trailing;  // layers behind the loop keep entries, so that every position has to be answered
  std::int64_t opened = 0;  // sequences so far
  // Loops of rows, several of which may be one call of a graph; their rows, and those among them that had halted before.
  std::int64_t steps = 0, rows = 0, late = 0;

 private:
  void cut(Sequence& sequence, std::int64_t length);
  std::vector<float> initial(const std::vector<Chunk>& chunks) const;
  std::vector<Answer> answers(const std::vector<Leaving>& leaving, const Spans& spans);
  Spans with_pages(const Spans& spans);
  std::int64_t together(const Spans& planned, const Spans& waiting, const MostLoops& most_loops) const;
  std::int64_t deeper_pages(const Spans& spans, std::int64_t loops);
  void compute(const Spans& planned, std::int64_t loops);
  Spans shared(const Span& span) const;
  void release(Sequence& sequence);
};

}  // namespace mythos::engine
