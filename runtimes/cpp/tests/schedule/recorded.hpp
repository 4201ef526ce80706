// What the graphs of a schedule are called with.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/core.hpp"
#include "row_ports.hpp"

namespace mythos::engine {

// The graphs, with a record of what they ran: [graph, [[sequence, depth, first, last], ...]]. Sequences are counted from the
// first that a schedule opens.
class Recorded : public Graphs {
 public:
  explicit Recorded(std::unique_ptr<Graphs> graphs)
      : Graphs(graphs->spec, graphs->most_rows, graphs->most_loops), graphs_(std::move(graphs)) {}
  void bind(const Memory& memory) override { graphs_->bind(memory); }
  Lines enter(States& states, const std::vector<std::int64_t>& ids, const float* initial,
              const Spans& spans, const Tables& tables) override {
    note(kEnter, spans);
    return graphs_->enter(states, ids, initial, spans, tables);
  }
  std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) override {
    const std::int64_t ran = graphs_->step(states, lines, spans, tables);
    Spans each = spans;
    for (std::int64_t loop = 0; loop < ran; ++loop) {
      note(kStep, each);
      for (auto& span : each) ++span.depth;
    }
    return ran;
  }
  const float* leave(States& states, const Lines& lines, const std::vector<bool>& early,
                     const std::vector<std::int64_t>& pick, const Spans& spans, const Tables& tables) override {
    note(kLeave, spans);
    const float* logits = graphs_->leave(states, lines, early, pick, spans, tables);
    if (broken < 0) return logits;
    broken_.assign(logits, logits + pick.size() * static_cast<std::size_t>(spec->vocab_size));
    for (std::size_t i = 0; i < spans.size(); ++i)  // one answer per span, as the engine asks
      if (spans[i].sequence->number - first_ == broken) broken_[i * static_cast<std::size_t>(spec->vocab_size) + 3] = NAN;
    return broken_.data();
  }

  void reset(std::int64_t opened) {
    trace = nlohmann::json::array();
    first_ = opened, broken = -1;
  }

  nlohmann::json trace;
  std::int64_t broken = -1;  // the sequence whose logits hold NaN

 private:
  std::unique_ptr<Graphs> graphs_;
  void note(const char* graph, const Spans& spans) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& span : spans) list.push_back({span.sequence->number - first_, span.depth, span.first, span.last});
    trace.push_back({graph, std::move(list)});
  }
  std::int64_t first_ = 0;
  std::vector<float> broken_;
};

}  // namespace mythos::engine
