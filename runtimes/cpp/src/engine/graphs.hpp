// The three row graphs in ONNX Runtime, with buffers that stay bound from call to call (graphs.py).
//
// A call of a small model takes less than the binding of its tensors would. So every graph has buffers for the most rows
// that it takes, and a binding for each number of rows that came: views of the same memory, made once. The caches are
// bound as input and output both, which appends in place.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/scheduler.hpp"
#include "ort.hpp"

namespace mythos::engine {

using Tables = std::vector<const Table*>;  // a span's, for each

// What the engine runs. Tests put something else in its place.
class Graphs {
 public:
  Graphs(std::shared_ptr<const LoopSpec> spec, std::int64_t most_rows) : spec(std::move(spec)), most_rows(most_rows) {}
  virtual ~Graphs() = default;
  // What stands before the loop, [r, D], of the spans' new tokens [r]; valid until the next call.
  virtual const float* enter(const std::vector<std::int64_t>& ids, const Spans& spans, const Tables& tables) = 0;
  // One loop of the spans' rows, each at its span's depth; `lines` [r] are their states, which it replaces.
  virtual void step(const States& states, const Lines& lines, const Spans& spans, const Tables& tables) = 0;
  // Logits [w, V] of those rows that `pick` [w] counts; `lines` [r] are the states of the spans' rows. Valid until the next
  // call.
  virtual const float* leave(const States& states, const Lines& lines, const std::vector<std::int64_t>& pick,
                             const Spans& spans, const Tables& tables) = 0;

  const std::shared_ptr<const LoopSpec> spec;
  const std::int64_t most_rows;  // of a call
};

// A graph and its buffers: flat memory by port, of which a tensor is the beginning.
class BoundGraph {
 public:
  // `caches`: by the port's name, where the pages lie and how many there are. `most`: the largest value of each symbol.
  BoundGraph(std::shared_ptr<OrtSession> session, const Ports& ports, std::map<std::string, std::pair<char*, std::int64_t>> caches,
             const Symbols& most);
  // Where a port's tensor begins; null where the graph has none of that role.
  char* data(const std::string& role, const std::string& group = "") const;
  // Runs it on what stands in the inputs' buffers, of these sizes (BackendFailed).
  void run(const Symbols& sizes);

 private:
  Ort::IoBinding bind(const Symbols& sizes) const;

  std::shared_ptr<OrtSession> session_;
  Ports ports_;
  std::map<std::string, std::pair<char*, std::int64_t>> caches_;
  std::map<std::string, Bytes> memory_;
  std::vector<std::string> symbols_;
  std::map<std::vector<std::int64_t>, Ort::IoBinding> bindings_;
  std::vector<std::vector<std::int64_t>> order_;  // in which the bindings were made
};

class RowGraphs : public Graphs {
 public:
  // `open`: a graph by its name, with the ports of the spec. `around` (null where there is none) and `loop`: the caches whose
  // pages the graphs append to. `most_rows` of a call, `most_positions` of a sequence.
  RowGraphs(std::shared_ptr<const LoopSpec> spec, const std::function<std::shared_ptr<OrtSession>(const std::string&)>& open,
            const PagedCache* around, const PagedCache* loop, std::int64_t most_rows, std::int64_t most_positions);

  const float* enter(const std::vector<std::int64_t>& ids, const Spans& spans, const Tables& tables) override;
  void step(const States& states, const Lines& lines, const Spans& spans, const Tables& tables) override;
  const float* leave(const States& states, const Lines& lines, const std::vector<std::int64_t>& pick, const Spans& spans,
                     const Tables& tables) override;

 private:
  struct Part {  // a row graph
    BoundGraph graph;
    bool has_cache;
  };
  Part part(const std::string& name, std::shared_ptr<OrtSession> session, const PagedCache* cache,
            std::int64_t most_positions) const;
  void run(Part& part, const Spans& spans, const Tables& tables, std::int64_t rows, std::int64_t wanted);

  Part enter_, step_, leave_;
};

}  // namespace mythos::engine
