// The core: which graphs it takes, who is due, what lags and what is forked.
#include <algorithm>
#include <functional>

#include "batch.hpp"
#include "../check.hpp"
#include "counting.hpp"
#include "engine/row_cache.hpp"
#include "row_ports.hpp"

namespace {

using namespace mythos::engine;

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

}  // namespace

void sequences_and_rows() {
  row_graphs_are_held_to_the_spec();
  a_call_takes_who_waited_and_who_has_the_fewest_rows();
  for (const std::int64_t most_loops : {1, 3}) rows_lag_until_a_later_position_needs_them(most_loops);
  a_fork_that_fails_leaves_nothing();
}
