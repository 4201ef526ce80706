// Requests: what is refused, what a full memory does, and ticks that fail.
#include <algorithm>
#include <map>

#include "../check.hpp"
#include "counting.hpp"
#include "engine/engine.hpp"

namespace {

using namespace mythos::engine;

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
  mythos::Request endless = request(1, 1, {});
  endless.stop = {{}};
  refuses<mythos::RequestError>([&] { engine.submit(endless); }, "a stop sequence is empty");
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

// Fails once, at the token with this number, counted over all requests.
class Failing : public Speculation {
 public:
  Failing(std::int64_t drafts, std::int64_t number) : Speculation(kLoops), number(number), drafts_(drafts) {}
  std::pair<std::int64_t, std::int64_t> choose(std::int64_t, std::int64_t room) override { return {2, std::min(drafts_, room)}; }
  void went(std::int64_t) override {
    if (--number == 0) throw mythos::BackendFailed("planted");
  }
  std::int64_t number;

 private:
  std::int64_t drafts_;
};

// And who had no answer by then begins anew, where the failure is forgotten, too, since one who was there has left.
void what_was_chosen_before_the_rest_of_its_leave_failed_is_told(std::int64_t drafts, bool stays) {
  const auto core = counting_core(100);
  Failing failing(drafts, 5);
  mythos::EngineOptions options;
  options.patience = 1;
  mythos::engine::Engine engine(*core, options, &failing);
  std::vector<std::shared_ptr<const mythos::Running>> running;
  for (std::int64_t id = 0; id < 3; ++id) {
    mythos::Request request;
    request.prompt = {id}, request.max_new_tokens = 6;
    running.push_back(engine.submit(request));
  }
  std::map<std::shared_ptr<const mythos::Running>, Ids> told;
  const auto tick = [&] {
    for (const mythos::Token& token : engine.tick()) told[token.running].push_back(token.id);
    for (const auto& each : running) check(told[each] == each->tokens, "every token is told");
  };
  while (failing.number > 0) tick();
  check(engine.waiting() > 0, "who had no answer is sent back");
  if (stays)
    refuses<mythos::BackendFailed>(tick, "planted");
  else
    engine.cancel(running[0]);
  for (int ticks = 0; engine.busy() && ticks < 1000; ++ticks) tick();
  check(!engine.busy(), "every request ends");
  for (std::int64_t id = stays ? 0 : 1; id < 3; ++id) {
    const mythos::Running& each = *running[static_cast<std::size_t>(id)];
    for (std::int64_t k = 0; k < 6; ++k) {
      const auto at = static_cast<std::size_t>(k);
      check(each.tokens.at(at) == id + k + 1 && each.depth.at(at) == std::clamp<std::int64_t>(id + k, 1, kLoops), "as without it");
    }
  }
  check(idle(*core), "nothing is left");
}

// One waits for memory until another ends, and those that ran are sent back, too.
void nobody_waits_for_ever_behind_a_leave_that_failed() {
  const auto core = counting_core(2 * kLoops);  // of three that run all loops, pages for two
  Failing failing(0, 1000);
  mythos::EngineOptions options;
  options.patience = 1;
  mythos::engine::Engine engine(*core, options, &failing);
  std::vector<std::shared_ptr<const mythos::Running>> running;
  for (std::int64_t id = 4; id < 7; ++id) {
    mythos::Request request;
    request.prompt = {id}, request.max_new_tokens = 3;
    running.push_back(engine.submit(request));
  }
  int ticks = 0;
  for (engine.tick(); engine.running() == 3 && ticks < 1000; ++ticks) engine.tick();
  check(engine.running() == 2 && engine.waiting() == 1 && running[0]->tokens.empty(), "one is sent back for want of pages");
  failing.number = 1;
  refuses<mythos::BackendFailed>([&] { for (; engine.busy() && ticks < 1000; ++ticks) engine.tick(); }, "planted");
  check(engine.running() == 0 && engine.waiting() == 3, "and the others with their leave");
  for (; engine.busy() && ticks < 1000; ++ticks) engine.tick();
  check(!engine.busy(), "every request ends");
  for (std::int64_t id = 4; id < 7; ++id)
    check(running[static_cast<std::size_t>(id - 4)]->tokens == Ids({id + 1, id + 2, id + 3}), "as without it");
  check(idle(*core), "nothing is left");
}

}  // namespace

void requests() {
  for (const std::int64_t most_loops : {1, 3}) {
    requests_without_states_run_what_lags(most_loops);
    requests_wait_for_pages_and_are_sent_back(most_loops);
  }
  what_a_tick_chose_before_it_failed_is_told();
  for (const std::int64_t drafts : {0, 3})
    for (const bool stays : {true, false}) what_was_chosen_before_the_rest_of_its_leave_failed_is_told(drafts, stays);
  nobody_waits_for_ever_behind_a_leave_that_failed();
}
