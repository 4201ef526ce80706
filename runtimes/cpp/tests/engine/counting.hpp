// A model without graphs, for tests of the engine's parts: its token `id` halts after id loops, and is followed by id + 1 (0
// behind the last).
#pragma once

#include <memory>
#include <vector>

#include "engine/core.hpp"

namespace mythos::engine {

constexpr std::int64_t kVocabulary = 10, kLoops = 4;

std::shared_ptr<const LoopSpec> counting_spec();

// Its calls, which hold what they are given to the contract.
class Counting : public Graphs {
 public:
  Counting(std::shared_ptr<const LoopSpec> spec, PagedCache* loop, std::int64_t most_loops)
      : Graphs(std::move(spec), 64, most_loops), loop_(loop) {}
  void bind(const Memory&) override {}
  Lines enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans&, const Tables&) override;
  std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) override;
  const float* leave(States& states, const Lines& lines, const std::vector<bool>& early, const std::vector<std::int64_t>& pick,
                     const Spans&, const Tables&) override;

  int calls = 0, fails_at = 0;  // of the step; with this one it fails

 private:
  void one(States& states, const Lines& lines, const Spans& spans, const Tables& tables);
  float& entry(const Table& table, std::int64_t position) const;

  PagedCache* loop_;
  std::vector<float> values_;
};

// A core over it, in whose free pages nothing is found again.
std::unique_ptr<Core> counting_core(std::int64_t loop_pages, std::int64_t most_loops = 1);
bool idle(const Core& core);

}  // namespace mythos::engine
