#include "counting.hpp"

#include <algorithm>
#include <string>

#include "../check.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

float& value(const States& states, const char* name, std::int64_t line) {
  return *reinterpret_cast<float*>(states.array(name).row(line));
}

}  // namespace

std::shared_ptr<const LoopSpec> counting_spec() {
  const Dim B{0, "B"}, T{0, "T"};
  LoopSpec spec;
  spec.vocab_size = kVocabulary, spec.max_seq_len = 200, spec.trained_loops = kLoops, spec.max_output_tokens = 100;
  spec.caches = {{"layers", 2, false, 1, "float32", 1}, {"loop", 1, true, 1, "float32", 0}};
  spec.state = {{"h", "float32", {B, T, {1, ""}}, "encoded", {}, {}},
                {"answer", "float32", {B, T, {1, ""}}, "zeros", {}, {}},
                {"halted", "bool", {B, T}, "zeros", {}, {}},
                {"depth", "int32", {B, T}, "zeros", {}, {}},
                {"stays", "float32", {B, T}, "ones", {}, {}}};
  spec.graphs = row_ports(spec);
  return std::make_shared<const LoopSpec>(spec);
}

Lines Counting::enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans&, const Tables&) {
  values_.assign(ids.begin(), ids.end());
  return states.begin(ids, values_.data(), initial);
}

std::int64_t Counting::step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) {
  ++calls;
  if (calls == fails_at) throw BackendFailed("planted");
  check(!lines.empty() && static_cast<std::int64_t>(lines.size()) <= most_rows, "a call takes some rows, not too many");
  check(static_cast<std::int64_t>(tables.size()) <= most_loops, "and not too many loops");
  Spans each = spans;
  std::int64_t ran = 0;
  for (bool stops = false; !stops && ran < static_cast<std::int64_t>(tables.size()); ++ran) {
    one(states, lines, each, tables[static_cast<std::size_t>(ran)]);
    auto line = lines.begin();
    for (Span& span : each) {
      line += span.rows(), ++span.depth;
      stops = stops || (states.halted(*(line - 1)) && !span.sequence->job->whole);
    }
  }
  return ran;
}

const float* Counting::leave(States& states, const Lines& lines, const std::vector<bool>& early,
                             const std::vector<std::int64_t>& pick, const Spans&, const Tables&) {
  const float* const answers = states.answers(lines, early);
  values_.assign(pick.size() * kVocabulary, 0);
  for (std::size_t i = 0; i < pick.size(); ++i) {
    const auto id = static_cast<std::int64_t>(answers[pick[i]]);
    values_[i * kVocabulary + static_cast<std::size_t>((id + 1) % kVocabulary)] = 1;
  }
  return values_.data();
}

void Counting::one(States& states, const Lines& lines, const Spans& spans, const Tables& tables) {
  auto line = lines.begin();
  for (std::size_t i = 0; i < spans.size(); ++i)
    for (std::int64_t position = spans[i].first; position <= spans[i].last; ++position, ++line) {
      const float id = value(states, "h", *line);
      entry(*tables[i], position) = id + 1;
      for (std::int64_t before = 0; before <= position; ++before)
        check(entry(*tables[i], before) > 0, "every earlier position has its entry at depth " + std::to_string(spans[i].depth));
      auto& depth = *reinterpret_cast<std::int32_t*>(states.array(kDepth).row(*line));
      if (!states.halted(*line)) ++depth, value(states, "answer", *line) = id;
      const bool halts = depth >= static_cast<std::int32_t>(id) || spans[i].depth + 1 == spans[i].sequence->limit;
      *states.array(kHalted).row(*line) = states.halted(*line) || halts;
    }
}

float& Counting::entry(const Table& table, std::int64_t position) const {
  char* page = loop_->page(0, table[static_cast<std::size_t>(position / kPage)]);
  return reinterpret_cast<float*>(page)[position % kPage];
}

std::unique_ptr<Core> counting_core(std::int64_t loop_pages, std::int64_t most_loops) {
  const auto spec = counting_spec();
  Memory memory{std::make_unique<PagedCache>(2, 50, 1, "float32"), std::make_unique<PagedCache>(1, loop_pages, 1, "float32"),
                std::make_unique<States>(*spec, 400)};
  memory.loop->freed = [loop = memory.loop.get()](std::int64_t page) {
    std::fill_n(loop->page(0, page), loop->page_bytes(), char{0});
  };
  auto graphs = std::make_unique<Counting>(spec, memory.loop.get(), most_loops);
  return std::make_unique<Core>(std::move(graphs), std::move(memory));
}

bool idle(const Core& core) {
  return core.around->free() == core.around->pages() && core.loop->free() == core.loop->pages() &&
         core.states->free() == core.states->lines() && core.sequences.empty();
}

}  // namespace mythos::engine
