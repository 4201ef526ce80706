// The three row graphs in ONNX Runtime, with buffers that stay bound from call to call (graphs.py, part.py).
//
// A call of a small model takes less than the binding of its tensors would. So every graph has buffers for the most rows
// that it takes, and a binding for each number of rows that came: views of the same memory, made once. The caches are
// bound as input and output both, which appends in place; in a Loop they are inputs alone, and are written to.
//
// What happens around a call takes as long as a loop of a small model does. So where the bundle has the step in a Loop, rows
// that stay together run several loops in one call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/memory.hpp"
#include "engine/scheduler.hpp"
#include "ort.hpp"

namespace mythos::engine {

using Tables = std::vector<const Table*>;  // a span's, for each
using LoopTables = std::vector<Tables>;            // of each loop that a call may run
// By its name, with the spec's ports. Of kLoops null where there is none, or none can be run.
using OpenGraph = std::function<std::shared_ptr<OrtSession>(const std::string&)>;

// What the engine runs. Tests put something else in its place.
class Graphs {
 public:
  Graphs(std::shared_ptr<const LoopSpec> spec, std::int64_t most_rows, std::int64_t most_loops = 1)
      : spec(std::move(spec)), most_rows(most_rows), most_loops(most_loops) {}
  virtual ~Graphs() = default;
  // Appends to this memory's pages from now on.
  virtual void bind(const Memory& memory) = 0;
  // Lines of state for the spans' new tokens [r], with what stands before the loop; `initial` is what was drawn [r, D], where
  // anything is (OutOfStates: there are not as many lines).
  virtual Lines enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans& spans,
                      const Tables& tables) = 0;
  // One loop of the spans' rows, each at its span's depth, or several, for as many as there are `tables` at most; `lines` [r]
  // are their states, which it replaces. The loops that ran: none follows one in which the last row of a span halts, unless that
  // runs every depth (`Job::whole`).
  virtual std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) = 0;
  // Logits [w, V] of those of the spans' rows that `pick` [w] counts; `lines` [r] are their states, and `early` [r] says which
  // leave before their last loop (`States::answers`). Valid until the next call.
  virtual const float* leave(States& states, const Lines& lines, const std::vector<bool>& early,
                             const std::vector<std::int64_t>& pick, const Spans& spans, const Tables& tables) = 0;

  const std::shared_ptr<const LoopSpec> spec;
  const std::int64_t most_rows;  // of a call
  std::int64_t most_loops;       // of a call of the step
};

// The width of the tables of a call: few sizes, for each is bound anew.
std::int64_t blocks_of(const Spans& spans);
// Says where the rows of a call stand: position and span [rows], and a table of [spans or more, blocks], as far as it is read.
void put_place(const Spans& spans, const Tables& tables, std::int64_t blocks, std::int64_t* position, std::int64_t* span,
               std::int64_t* table);
void put_tables(const Spans& spans, const Tables& tables, std::int64_t blocks, std::int64_t* table);
// Says of every row [r] which loop it runs first.
void put_depths(const Spans& spans, std::int64_t* loop);
// Says of every row [r] whether a loop, the `ahead`-th behind the one at its span's depth, is its last, and where it halts;
// `threshold` is null where the model lacks the knob.
void put_knobs(const States& states, const Lines& lines, const Spans& spans, bool* last, float* threshold, std::int64_t ahead = 0);
// Says of every row [r] whether other rows are due where it halts: whether it is the last of its span, and that does not run
// every depth anyway.
void put_stops(const Spans& spans, bool* stops);

// A row graph, its buffers and its bindings.
class Part {
 public:
  Part(Ports ports, std::int64_t slot, std::shared_ptr<OrtSession> session, std::int64_t most_rows,
       std::int64_t most_positions);
  // Appends to these pages: one buffer of them for each port of a cache, from `slot` on.
  void bind(const PagedCache* cache);
  // Where a port's tensor begins; null where the graph has none of that role.
  char* data(const std::string& role, const std::string& group = "") const;
  // Runs the graph on what stands in the inputs' buffers, over rows of these spans (BackendFailed).
  void run(const Spans& spans, const LoopTables& tables, std::int64_t rows, std::int64_t wanted = 0);
  // Gives large buffers back to the system, about as far as the calls since the last time have touched them. Nothing that
  // stands in them is needed any more.
  void rest();
  std::int64_t most_loops() const { return most_loops_; }  // of a call; more than one of the step in a Loop
  // The tables of a loop in a call of these spans, and the loops of it that there are tables for.
  std::pair<std::int64_t, std::int64_t> tables_of(const Spans& spans) const;

 private:
  using Sizes = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t>;  // rows, tables, their blocks, answers

  struct Buffer {
    Bytes memory;
    std::size_t bytes = 0;
  };

  Ort::IoBinding make(const Sizes& sizes) const;

  std::shared_ptr<OrtSession> session_;
  Ports ports_;
  std::int64_t most_rows_, slot_, most_loops_ = 1, most_tables_ = 0;  // the numbers that tables have room for
  bool paged_ = false;
  std::map<std::string, Buffer> memory_;  // by the port's name
  std::int64_t touched_ = 0;              // rows of them, since they rested
  std::int64_t *position_ = nullptr, *span_ = nullptr, *tables_ = nullptr;  // null where the graph has no cache
  std::map<std::string, char*> caches_;
  std::int64_t pages_ = 0;  // of a cache
  std::map<Sizes, Ort::IoBinding> bindings_;
  std::vector<Sizes> order_;  // in which the bindings were used
};

class RowGraphs : public Graphs {
 public:
  // `memory`: whose pages the graphs append to. `most_rows` of a call, `most_positions` of a sequence.
  RowGraphs(std::shared_ptr<const LoopSpec> spec, const OpenGraph& open, const Memory& memory, std::int64_t most_rows,
            std::int64_t most_positions);

  void bind(const Memory& memory) override;
  Lines enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans& spans,
              const Tables& tables) override;
  std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) override;
  const float* leave(States& states, const Lines& lines, const std::vector<bool>& early, const std::vector<std::int64_t>& pick,
                     const Spans& spans, const Tables& tables) override;

 private:
  struct Carried {  // a state, and where it goes in and comes out
    std::string name;
    char *in, *out;
  };
  Part enter_, step_, leave_;
  std::vector<Carried> carried_;
  char *encoded_, *tokens_;  // of the step; tokens are null where the graph does not read them
  std::int64_t* loop_;
  bool* last_;
  float* threshold_;  // null where the model lacks the knob
  std::int64_t *loops_, *ran_, *spans_;  // null where the step is in no Loop
  bool* stops_;
};

}  // namespace mythos::engine
