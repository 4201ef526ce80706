// The C interface of the engine.
#include "mythos_engine.h"

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "c_guard.hpp"
#include "mythos_engine.hpp"

using mythos::c::guarded, mythos::c::require;

struct mythos_engine {
  explicit mythos_engine(mythos::Engine given) : engine(std::move(given)) {}

  mythos::Engine engine;
  std::map<std::uint64_t, std::shared_ptr<const mythos::Running>> running;  // those that have not ended, by number
  std::map<const mythos::Running*, std::uint64_t> numbers;
  std::uint64_t next = 0;

  void forget(std::uint64_t number) {
    const auto found = running.find(number);
    numbers.erase(found->second.get());
    running.erase(found);
  }
};

namespace {

const double kNone = std::numeric_limits<double>::quiet_NaN();

// A tick and what its pointers point to.
struct Tick : mythos_tick {
  std::vector<mythos::Token> chosen;
  std::vector<mythos_token> told;
  std::vector<std::shared_ptr<const mythos::Running>> lost;  // that ended without a token of this one
};

mythos::Budget budget_of(double loops_per_token, double latency_ms) {
  mythos::Budget budget;
  if (loops_per_token != 0 && !std::isnan(loops_per_token)) budget.loops_per_token = loops_per_token;
  if (latency_ms != 0 && !std::isnan(latency_ms)) budget.latency_ms = latency_ms;
  return budget;
}

mythos::EngineOptions engine_options(const mythos_engine_options* given) {
  const mythos_engine_options chosen = given ? *given : mythos_default_engine_options();
  mythos::EngineOptions options;
  options.memory = chosen.memory;
  if (chosen.max_loops != -1) options.max_loops = chosen.max_loops;
  options.most_rows = chosen.most_rows, options.most_running = chosen.most_running, options.chunk = chosen.chunk;
  if (!std::isnan(chosen.patience)) options.patience = chosen.patience;
  if (chosen.loops_per_call) options.loops_per_call = chosen.loops_per_call;
  options.max_lag.reset();
  if (chosen.max_lag) options.max_lag = chosen.max_lag;
  options.budget = budget_of(chosen.loops_per_token, chosen.latency_ms);
  options.prefixes = chosen.prefixes, options.speculate = chosen.speculate;
  return options;
}

mythos::Request request_of(const mythos_request& given) {
  mythos::Request request;
  request.prompt.assign(given.prompt, given.prompt + given.prompt_count);
  request.max_new_tokens = given.max_new_tokens;
  if (given.max_loops != -1) request.max_loops = given.max_loops;
  if (!std::isnan(given.halt_threshold)) request.halt_threshold = given.halt_threshold;
  if (given.policy) request.policy = given.policy;
  request.sampling = {given.temperature, given.top_k, given.top_p, given.min_p, given.repetition_penalty, given.seed};
  request.row = given.row, request.state_seed = given.state_seed;
  if (given.eos) request.eos.assign(given.eos, given.eos + given.eos_count);
  for (std::size_t i = 0; i < given.stop_count; ++i)
    request.stop.emplace_back(given.stop[i], given.stop[i] + given.stop_lengths[i]);
  if (!std::isnan(given.loops_per_token) || !std::isnan(given.latency_ms))
    request.budget = budget_of(given.loops_per_token, given.latency_ms);
  if (given.depths) request.depths.assign(given.depths, given.depths + given.depth_count);
  return request;
}

// What a tick gave, and which requests ended with it.
std::unique_ptr<Tick> told(mythos_engine& engine, std::vector<mythos::Token> tokens) {
  auto tick = std::make_unique<Tick>();
  tick->chosen = std::move(tokens);
  std::map<std::uint64_t, std::size_t> last;  // of a request: where its last token stands
  for (const mythos::Token& token : tick->chosen) {
    const std::uint64_t number = engine.numbers.at(token.running.get());
    last[number] = tick->told.size();
    tick->told.push_back({number, token.id, token.depth, token.capped, token.running->reused, token.logits.data(), "", ""});
  }
  std::vector<std::uint64_t> ended;
  for (const auto& [number, running] : engine.running) {
    if (running->finished.empty()) continue;
    ended.push_back(number);
    if (running->finished == "error") {
      tick->lost.push_back(running);
      tick->told.push_back({number, -1, 0, 0, running->reused, nullptr, running->finished.c_str(), running->error.c_str()});
    } else if (const auto found = last.find(number); found != last.end()) {
      tick->told[found->second].finished = running->finished.c_str();
    } else {  // in a tick that failed while it told them, which took its last token with it
      tick->lost.push_back(running);
      tick->told.push_back({number, -1, 0, 0, running->reused, nullptr, "error", "its last token was lost in a tick that failed"});
    }
  }
  for (const std::uint64_t number : ended) engine.forget(number);
  tick->count = tick->told.size(), tick->tokens = tick->told.data();
  return tick;
}

}  // namespace

extern "C" {

mythos_engine_options mythos_default_engine_options(void) {
  const mythos::EngineOptions usual;
  mythos_engine_options options{};
  options.memory = usual.memory, options.max_loops = -1;
  options.most_rows = usual.most_rows, options.most_running = usual.most_running, options.chunk = usual.chunk;
  options.patience = kNone, options.max_lag = *usual.max_lag;
  return options;
}

int mythos_engine_open(const char* bundle, const mythos_load_options* load, const mythos_engine_options* options,
                       mythos_engine** engine) {
  return guarded([&] {
    require(bundle && engine, "mythos_engine_open needs a bundle's folder and a place for the engine");
    *engine = new mythos_engine(mythos::Engine::open(bundle, mythos::c::load_options(load), engine_options(options)));
  });
}

int mythos_engine_of(mythos_model* model, const mythos_engine_options* options, mythos_engine** engine) {
  return guarded([&] {
    require(model && engine, "mythos_engine_of needs a model and a place for the engine");
    *engine = new mythos_engine(mythos::Engine::of(model->model, engine_options(options)));
  });
}

void mythos_engine_free(mythos_engine* engine) { delete engine; }

mythos_request mythos_default_request(void) {
  mythos_request request{};
  request.max_new_tokens = 1, request.max_loops = -1, request.halt_threshold = kNone;
  request.top_p = request.repetition_penalty = 1;
  request.loops_per_token = request.latency_ms = kNone;
  return request;
}

int mythos_engine_submit(mythos_engine* engine, const mythos_request* request, uint64_t* number) {
  return guarded([&] {
    require(engine && request && request->prompt && number, "mythos_engine_submit needs an engine, a prompt and a place for the number");
    auto running = engine->engine.submit(request_of(*request));
    *number = engine->next++;
    engine->numbers.emplace(running.get(), *number);
    engine->running.emplace(*number, std::move(running));
  });
}

int mythos_engine_cancel(mythos_engine* engine, uint64_t number) {
  return guarded([&] {
    require(engine, "mythos_engine_cancel needs an engine");
    const auto found = engine->running.find(number);
    if (found == engine->running.end()) return;
    engine->engine.cancel(found->second);
    engine->forget(number);
  });
}

int mythos_engine_tick(mythos_engine* engine, mythos_tick** tick) {
  return guarded([&] {
    require(engine && tick, "mythos_engine_tick needs an engine and a place for what it gives");
    *tick = told(*engine, engine->engine.tick()).release();
  });
}

void mythos_tick_free(mythos_tick* tick) { delete static_cast<Tick*>(tick); }

int mythos_engine_busy(const mythos_engine* engine) { return engine && engine->engine.busy(); }

int mythos_engine_usage(const mythos_engine* engine, mythos_usage* usage) {
  return guarded([&] {
    require(engine && usage, "mythos_engine_usage needs an engine and a place for what it finds");
    const mythos::EngineUsage found = engine->engine.usage();
    const mythos::EngineCounts counts = engine->engine.counts();
    *usage = {found.running, found.waiting, found.pages, found.pages_free, found.states, found.states_free, found.prefixes,
              {counts.steps, counts.rows, counts.late, counts.drafted, counts.accepted}};
  });
}

int mythos_engine_pages_running(const mythos_engine* engine, int64_t* pages) {
  return guarded([&] {
    require(engine && pages, "mythos_engine_pages_running needs an engine and a place for the number");
    *pages = engine->engine.pages_running();
  });
}

}  // extern "C"
