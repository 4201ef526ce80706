// The engine's parts without a model: pages, who is due, and requests over graphs that only count. `ctest` runs it.
#include <algorithm>
#include <functional>
#include <iostream>
#include <limits>

#include "batch.hpp"
#include "engine/engine.hpp"
#include "engine/opening.hpp"
#include "engine/row_cache.hpp"
#include "row_ports.hpp"

namespace {

using namespace mythos::engine;

int failures = 0;

void check(bool good, const std::string& what) {
  if (good) return;
  std::cerr << "FAILED: " << what << "\n";
  ++failures;
}

template <typename Kind>
void refuses(const std::function<void()>& work, const std::string& text) {
  try {
    work();
    check(false, "no error where one says: " + text);
  } catch (const Kind& error) {
    check(std::string(error.what()).find(text) != std::string::npos, std::string(error.what()) + "; expected " + text);
  }
}

constexpr std::int64_t kVocabulary = 10, kLoops = 4;

// A model whose token `id` halts after id loops, and is followed by id + 1 (10 by 0).
std::shared_ptr<const mythos::LoopSpec> counting_spec() {
  const mythos::Dim B{0, "B"}, T{0, "T"};
  mythos::LoopSpec spec;
  spec.vocab_size = kVocabulary, spec.max_seq_len = 200, spec.trained_loops = kLoops, spec.max_output_tokens = 100;
  spec.caches = {{"layers", 2, false, 1, "float32", 1}, {"loop", 1, true, 1, "float32", 0}};
  spec.state = {{"h", "float32", {B, T, {1, ""}}, "encoded", {}, {}},
                {"answer", "float32", {B, T, {1, ""}}, "zeros", {}, {}},
                {"halted", "bool", {B, T}, "zeros", {}, {}},
                {"depth", "int32", {B, T}, "zeros", {}, {}},
                {"stays", "float32", {B, T}, "ones", {}, {}}};
  spec.graphs = mythos::row_ports(spec);
  return std::make_shared<const mythos::LoopSpec>(spec);
}

class Counting : public Graphs {
 public:
  Counting(std::shared_ptr<const mythos::LoopSpec> spec, PagedCache* loop, std::int64_t most_loops)
      : Graphs(std::move(spec), 64, most_loops), loop_(loop) {}
  void bind(const Memory&) override {}

  Lines enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans&, const Tables&) override {
    values_.assign(ids.begin(), ids.end());
    return states.begin(ids, values_.data(), initial);
  }
  std::int64_t step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) override {
    ++calls;
    if (calls == fails_at) throw mythos::BackendFailed("planted");
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
  const float* leave(States& states, const Lines& lines, const std::vector<bool>& early, const std::vector<std::int64_t>& pick,
                     const Spans&, const Tables&) override {
    const float* const answers = states.answers(lines, early);
    values_.assign(pick.size() * kVocabulary, 0);
    for (std::size_t i = 0; i < pick.size(); ++i) {
      const auto id = static_cast<std::int64_t>(answers[pick[i]]);
      values_[i * kVocabulary + static_cast<std::size_t>((id + 1) % kVocabulary)] = 1;
    }
    return values_.data();
  }

  int calls = 0, fails_at = 0;

 private:
  void one(States& states, const Lines& lines, const Spans& spans, const Tables& tables) {
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
  static float& value(const States& states, const char* name, std::int64_t line) {
    return *reinterpret_cast<float*>(states.array(name).row(line));
  }
  float& entry(const Table& table, std::int64_t position) const {
    char* page = loop_->page(0, table[static_cast<std::size_t>(position / mythos::kPage)]);
    return reinterpret_cast<float*>(page)[position % mythos::kPage];
  }
  PagedCache* loop_;
  std::vector<float> values_;
};

// A core over the counting model, in whose free pages nothing is found again.
std::unique_ptr<Core> counting_core(std::int64_t loop_pages, std::int64_t most_loops = 1) {
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

void pages_are_shared_until_somebody_writes() {
  PagedCache cache(1, 4, 2, "float32");
  Table table;
  cache.extend(table, 0, mythos::kPage);  // two pages
  *cache.page(0, table[1]) = 7;
  Table twin = cache.fork(table, mythos::kPage + 1);
  cache.extend(twin, mythos::kPage + 1, mythos::kPage + 1);
  check(twin[0] == table[0] && twin[1] != table[1] && *cache.page(0, twin[1]) == 7, "a shared page is copied by its writer");
  cache.truncate(table, 0);
  check(cache.free() == 2 && table.empty(), "a table gives its pages back");
  refuses<OutOfPages>([&] { cache.extend(twin, 2 * mythos::kPage, 5 * mythos::kPage); }, "no page");
  check(twin.size() == 2 && cache.free() == 2, "and nothing was changed");
  cache.truncate(twin, 1);
  check(cache.free() == 3 && cache.peak == 3, "pages behind a length are given back");
}

void memory_is_dealt_to_whole_pages() {
  const auto spec = counting_spec();
  constexpr std::int64_t size = 1 << 20, lagging = 100, cached = 4 * (2 + kLoops), state = 4 * 4 + 1 + 4 + 8 + 8;
  const Memory memory = Memory::of(*spec, size, kLoops, lagging), all = Memory::of(*spec, size, kLoops, size);
  check(memory.longest() == (size - lagging * state) / (mythos::kPage * cached) * mythos::kPage, "what no state takes is pages");
  check(all.longest() == size / (mythos::kPage * (cached + state)) * mythos::kPage, "and a state is a position's, at most");
  check(memory.states->lines() == lagging && all.states->lines() == all.longest(), "states");
  for (const Memory* each : {&memory, &all}) check(each->nbytes() <= size && each->nbytes() > size * 9 / 10, "all of it");
  const Memory little = Memory::of(*spec, 32 * (cached + state), kLoops, lagging);
  check(little.longest() == 32 && little.states->lines() == 32, "one page and its states");
  refuses<mythos::CapacityError>([&] { Memory::of(*spec, 100, 1, lagging); }, "100 bytes hold no page of 32 positions");
  refuses<mythos::RequestError>([&] { Memory::of(*spec, size, 300, lagging); }, "1 to 256 loops, found 300");
  refuses<mythos::CapacityError>([] { PagedCache(1 << 30, 1 << 30, 1 << 20, "float32"); }, "does not give");
}

void the_largest_options_are_as_many_as_the_memory_holds() {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  check(saturated_sum(most, 1) == most && saturated_product(most / 2, 3) == most, "what no integer holds");
  check(saturated_sum(3, 4) == 7 && saturated_product(3, 4) == 12, "and what one does");
  mythos::EngineOptions options;
  options.memory = 1 << 20, options.max_lag = options.chunk = options.most_rows = options.most_running = most;
  options.prefixes = most;
  struct Opened {};
  // Behind the memory, which is dealt first, a graph is opened.
  const OpenGraph open = [](const std::string&) -> std::shared_ptr<mythos::OrtSession> { throw Opened{}; };
  try {
    make_core(counting_spec(), {open, {}}, options);
    check(false, "no graph was opened");
  } catch (const Opened&) {
  }
}

// A kept entry that lags gives its states, whoever is older.
void kept_sequences_that_lag_most_go_first() {
  Sequence older(1, 0, Policy::lazy, 0), lagging(1, 0, Policy::lazy, 0), other(1, 0, Policy::lazy, 0);
  lagging.lines.resize(9), other.lines.resize(9);
  std::vector<Sequence*> closed;
  Prefixes prefixes(3, [&](Sequence& sequence) { closed.push_back(&sequence); });
  const auto ids = [](std::int64_t id) { return Ids(static_cast<std::size_t>(mythos::kPage), id); };
  prefixes.keep(older, ids(0), ""), prefixes.keep(lagging, ids(1), ""), prefixes.keep(other, ids(2), "");
  check(!prefixes.drop_lagging(9) && closed.empty(), "none has more");
  check(prefixes.drop_lagging(8, &lagging) && closed.back() == &other, "one is spared");
  check(prefixes.drop_lagging(0) && closed.back() == &lagging && !prefixes.drop_lagging(0), "the other one");
  check(prefixes.drop() && closed.back() == &older && !prefixes.drop(), "for pages the oldest");
}

void row_graphs_are_held_to_the_spec() {
  mythos::LoopSpec spec = *counting_spec();
  check(mythos::row_contradiction(spec).empty(), "the spec holds together: " + mythos::row_contradiction(spec));
  const auto wrong = [&](const std::function<void(mythos::LoopSpec&)>& change, const std::string& text) {
    mythos::LoopSpec changed = spec;
    change(changed);
    const std::string problem = mythos::row_contradiction(changed);
    check(problem.find(text) != problem.npos, "'" + problem + "' should hold '" + text + "'");
  };
  wrong([](auto& s) { s.graphs["step"].inputs[1].dims[1].size = 2; }, "step: the inputs lack h float32 [R, 1]");
  wrong([](auto& s) { s.caches[0].slots = std::int64_t{1} << 31; }, "for which there are no ports");
  wrong([](auto& s) { s.caches.pop_back(); }, "no cache inside the loop");
  wrong([](auto& s) { s.state.resize(1); }, "fewer than two states");
  wrong([](auto& s) { s.state[4].start = "encoded"; }, "stays is not float32 of the size of h");
  wrong([](auto& s) { s.state[2].name = "done", s.graphs = mythos::row_ports(s); }, "does not carry halted");
}

void rows_lag_until_a_later_position_needs_them(std::int64_t most_loops) {
  auto core = counting_core(100, most_loops);
  Sequence& sequence = core->open(kLoops, 0.5f);
  const auto feed = [&](std::vector<std::int64_t> ids) {
    core->enter({{&sequence, std::move(ids)}});
    std::vector<Sequence*> done;
    const std::int64_t before = core->steps;
    while (done.empty()) done = core->step({&sequence});
    core->leave({{done[0]}});
    return core->steps - before;
  };
  check(feed({1, 1, 2}) == 2 && sequence.filled == std::vector<std::int64_t>({3, 3, 0, 0}), "two depths of the first three");
  check(feed({1}) == 1 && sequence.filled == std::vector<std::int64_t>({4, 3, 0, 0}) && sequence.lag() == 4, "one of the fourth");
  check(core->rows == 7 && core->late == 2, "positions that halted ran again for the third's sake");
  check(feed({4}) == 4 && sequence.filled == std::vector<std::int64_t>({5, 5, 5, 5}), "all that lagged catches up");
  check(sequence.lines.empty() && core->states->free() == core->states->lines(), "what has run everything has no state");
  Sequence& twin = core->fork(sequence);
  core->truncate(sequence, 2);
  check(sequence.filled[3] == 2 && twin.filled[3] == 5, "a truncation is of one sequence alone");
  core->close(sequence);
  core->close(twin);
  check(idle(*core), "nothing is left");
}

void a_fork_that_fails_leaves_nothing() {
  const auto pool = std::make_shared<Pool>(counting_core(100));
  {
    RowCache cache(pool, 1, 40, kLoops, Policy::lazy);
    mythos::Output out;
    cache.forward({1, 2, {1, 1}, {1, 1}}, 0.5f, 0, {}, out);  // they lag, so that a fork needs states
    Core& core = *pool->core;
    Sequence& greedy = core.open(kLoops, 0.5f);
    for (std::int64_t left; (left = core.states->free() - 1) > 0;)
      core.enter({{&greedy, std::vector<std::int64_t>(static_cast<std::size_t>(std::min<std::int64_t>(left, 60)), 1)}});
    refuses<OutOfPages>([&] { cache.fork({0}); }, "no state");
    check(core.sequences.size() == 2, "the sequences of a fork that failed are closed");
    core.close(greedy);
    const auto twin = cache.fork({0, 0});
    check(core.sequences.size() == 3 && twin->nbytes() == 2 * cache.nbytes(), "and the next one is whole");
  }
  check(idle(*pool->core), "nothing is left");
}

void what_a_tick_chose_before_it_failed_is_told() {
  const auto core = counting_core(100);
  auto& graphs = dynamic_cast<Counting&>(*core->graphs);
  mythos::Request brief, longer;
  brief.prompt = {1}, brief.max_new_tokens = 1, longer.prompt = {1, 4}, longer.max_new_tokens = 20;
  for (const bool alone : {false, true}) {
    mythos::EngineOptions options;
    options.patience = 0, options.loops_per_call = 1;
    mythos::engine::Engine engine(*core, options, nullptr);
    const auto first = engine.submit(brief);
    const auto second = alone ? nullptr : engine.submit(longer);
    engine.tick();
    graphs.fails_at = graphs.calls + 1;  // in the tick that answers the first
    std::vector<mythos::Token> told;
    if (alone) {
      const auto late = engine.submit(longer);
      told = engine.tick();
      engine.cancel(late);
      engine.submit(brief);
      engine.tick();  // whom it concerned is gone, and nobody else is told of it
    } else {
      told = engine.tick();
      refuses<mythos::BackendFailed>([&] { engine.tick(); }, "planted");
      engine.tick();
    }
    check(told.size() == 1 && told[0].running == first && first->finished == "length", "its token came");
    engine.close();
  }
  check(idle(*core), "nothing is left");
}

void what_is_given_back_holds_zeros_and_nothing_else_changes() {
  constexpr std::int64_t bytes = 3 << 20;
  for (const std::size_t from : {std::size_t{0}, std::size_t{1}, std::size_t{4095}})
    for (const std::size_t count : {std::size_t{1000}, std::size_t{1} << 20, std::size_t{(1 << 20) + 5}}) {
      const auto memory = mythos::engine::zeros({bytes}, "test");
      char* const data = memory.get();
      std::fill_n(data, bytes, char{1});
      mythos::engine::give_back(data + from, count);
      check(std::all_of(data, data + from, [](char each) { return each == 1; }), "what stands before it");
      check(std::all_of(data + from + count, data + bytes, [](char each) { return each == 1; }), "and behind it");
      const auto left = std::count(data + from, data + from + count, char{1});
      const auto zeros = std::count(data + from, data + from + count, char{0});
      check(left + zeros == static_cast<std::ptrdiff_t>(count), "nothing else is made of it");
#if defined(__linux__)
      check(count == 1000 ? left == 1000 : left < 2 * (64 << 10), "all but its ends, where that is worth a call");
#endif
    }
}

void a_call_takes_who_waited_and_who_has_the_fewest_rows() {
  Sequence one(1, 0, Policy::lazy, 0), two(1, 0, Policy::lazy, 0), three(1, 0, Policy::lazy, 0);
  Scheduler scheduler(10);
  const Spans due{{&one, 0, 0, 29}, {&two, 0, 5, 5}, {&three, 0, 0, 7}};
  const auto words = [](const Spans& spans) {
    std::string text;
    for (const Span& span : spans) text += std::to_string(span.first) + "-" + std::to_string(span.last) + " ";
    return text;
  };
  check(words(scheduler.plan(due)) == "5-5 0-7 0-0 ", "the fewest rows first, the last one cut");
  check(words(scheduler.plan({{&one, 0, 1, 29}, {&three, 0, 0, 7}})) == "0-7 1-2 ", "among the served, the fewest rows");
  check(words(scheduler.plan({{&one, 0, 3, 29}, {&two, 0, 5, 5}})) == "5-5 3-11 ", "who had none in the last call comes first");
}

// States for hardly more than one prompt: who finds none waits, or runs what it lags, and nobody begins anew.
void requests_without_states_run_what_lags(std::int64_t most_loops) {
  auto core = counting_core(7 * 3 * 4, most_loops);
  const Lines others = core->states->copy(Lines(static_cast<std::size_t>(core->states->lines() - 45), 0));
  core->states->peak = 0;
  mythos::engine::Engine engine(*core, {}, nullptr);
  std::vector<std::shared_ptr<const mythos::Running>> running;
  for (std::int64_t i = 0; i < 7; ++i) {
    mythos::Request request;
    request.prompt.assign(40, i % kVocabulary);
    request.max_new_tokens = 30;
    running.push_back(engine.submit(request));
  }
  for (int ticks = 0; engine.busy() && ticks < 20000; ++ticks) engine.tick();
  for (const auto& each : running) check(each->finished == "length" && each->tokens.size() == 30, "every request ends");
  check(core->opened == 7, "nobody was sent back");
  check(core->states->peak > core->states->lines() - 5, "the states were short");
  core->states->end(others.begin(), others.end());
  check(idle(*core), "nothing is left");
}

// Seven requests, three of which fit at a time.
void requests_wait_for_pages_and_are_sent_back(std::int64_t most_loops) {
  auto core = counting_core(3 * 4 * 3, most_loops);
  mythos::engine::Engine engine(*core, {}, nullptr);
  std::vector<std::shared_ptr<const mythos::Running>> running;
  for (std::int64_t i = 0; i < 7; ++i) {
    mythos::Request request;
    request.prompt.assign(40, i % kVocabulary);
    request.max_new_tokens = 30;
    running.push_back(engine.submit(request));
  }
  const auto request = [](std::size_t prompt, std::int64_t tokens, std::optional<std::int64_t> loops) {
    mythos::Request request;
    request.prompt.assign(prompt, 1), request.max_new_tokens = tokens, request.max_loops = loops;
    return request;
  };
  refuses<mythos::CapacityError>([&] { engine.submit(request(150, 60, {})); }, "209 positions exceeds the 200");
  refuses<mythos::CapacityError>([&] { engine.submit(request(100, 60, 40)); },
                                 "40 loops does not fit the engine's memory by itself");
  refuses<mythos::RequestError>([&] { engine.submit(request(1, 1, 257)); }, "at most 256, found 257");
  mythos::Request wrong = request(1, 1, {});
  wrong.halt_threshold = 0.5;
  refuses<mythos::RequestError>([&] { engine.submit(wrong); }, "has no halt_threshold");
  wrong = request(1, 1, {}), wrong.policy = "last";
  refuses<mythos::RequestError>([&] { engine.submit(wrong); }, "there is no cache policy 'last'");
  wrong = request(1, 1, {}), wrong.depths = {1};
  refuses<mythos::RequestError>([&] { engine.submit(wrong); }, "no position of this model halts by itself");
  int ticks = 0;
  for (; engine.busy() && ticks < 20000; ++ticks) {
    engine.tick();
    if (ticks == 30) engine.cancel(running[1]);
  }
  check(!engine.busy(), "every request ends");
  for (std::int64_t i = 0; i < 7; ++i) {
    const mythos::Running& each = *running[static_cast<std::size_t>(i)];
    check(each.finished == (i == 1 ? "cancelled" : "length"), "request " + std::to_string(i) + " ended: " + each.finished);
    for (std::size_t k = 0; k < each.tokens.size(); ++k) {
      const auto before = (i + static_cast<std::int64_t>(k)) % kVocabulary;  // the token that chose it
      check(each.tokens[k] == (before + 1) % kVocabulary, "its tokens");
      check(each.depth[k] == std::clamp<std::int64_t>(before, 1, kLoops), "its depths");
    }
  }
  check(idle(*core), "nothing is left");
}

}  // namespace

int main() {
  pages_are_shared_until_somebody_writes();
  memory_is_dealt_to_whole_pages();
  the_largest_options_are_as_many_as_the_memory_holds();
  kept_sequences_that_lag_most_go_first();
  row_graphs_are_held_to_the_spec();
  for (const std::int64_t most_loops : {1, 3}) {
    rows_lag_until_a_later_position_needs_them(most_loops);
    requests_without_states_run_what_lags(most_loops);
    requests_wait_for_pages_and_are_sent_back(most_loops);
  }
  a_fork_that_fails_leaves_nothing();
  what_a_tick_chose_before_it_failed_is_told();
  what_is_given_back_holds_zeros_and_nothing_else_changes();
  a_call_takes_who_waited_and_who_has_the_fewest_rows();
  std::cout << (failures ? "failed\n" : "passed\n");
  return failures != 0;
}
