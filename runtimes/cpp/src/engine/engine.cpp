#include "engine/engine.hpp"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "batch.hpp"
#include "engine/admission.hpp"
#include "row_ports.hpp"

namespace mythos::engine {

Engine::Engine(Core& core, const EngineOptions& options, Speculation* speculation)
    : core_(core), budget_(options.budget),
      prefixes_(integer(options.prefixes, "prefixes", 0), [&core](Sequence& sequence) { core.close(sequence); }),
      queues_(core, prefixes_, options.most_running), speed_(speculation ? speculation->speed : own_speed_),
      pace_(options.patience, options.loops_per_call, speed_),
      batcher_(core, queues_, prefixes_, speed_, options.chunk, speculation),
      answers_(core, queues_, pace_, speed_, speculation) {
  if (options.patience) number(*options.patience, "patience");
  if (options.loops_per_call) integer(*options.loops_per_call, "loops_per_call", 1);
  check_budget(budget_, core.spec());
}

std::int64_t Engine::pages_running() const {
  std::set<std::int64_t> around, loop;
  for (const auto& work : queues_.running) {
    around.insert(work->sequence->around.begin(), work->sequence->around.end());
    for (const Table& table : work->sequence->loop) loop.insert(table.begin(), table.end());
  }
  return static_cast<std::int64_t>(around.size() + loop.size());
}

// -- coming and going ----------------------------------------------------------------------------------------------------

std::shared_ptr<const Running> Engine::submit(Request request) {
  queues_.waiting.push_back(admit(std::move(request), core_, budget_));
  return queues_.waiting.back();
}

void Engine::cancel(const std::shared_ptr<const Running>& running) {
  if (const auto work = queues_.find(running.get())) queues_.end(work, kCancelled);
}

void Engine::close() {
  while (!queues_.running.empty()) cancel(queues_.running.front());
  while (!queues_.waiting.empty()) cancel(queues_.waiting.front());
  prefixes_.clear();
  failure_ = nullptr, concerned_.clear();
}

// -- a tick --------------------------------------------------------------------------------------------------------------

std::vector<Token> Engine::tick() {
  if (failure_) {
    const std::exception_ptr error = std::exchange(failure_, nullptr);
    const Works concerned = std::exchange(concerned_, {});
    if (std::all_of(concerned.begin(), concerned.end(), [](const auto& work) { return work->finished.empty(); }))
      std::rethrow_exception(error);
  }
  std::vector<Token> tokens;
  try {
    answers_.leave(tokens);
    queues_.admit();
    batcher_.enter();
    step();
  } catch (...) {
    if (tokens.empty()) throw;
    concerned_ = queues_.running;
    concerned_.insert(concerned_.end(), queues_.waiting.begin(), queues_.waiting.end());
    if (!concerned_.empty()) failure_ = std::current_exception();
  }
  return tokens;
}

void Engine::step() {
  std::vector<Sequence*> sequences, done;
  for (const auto& work : queues_.running) sequences.push_back(work->sequence);
  const auto started = std::chrono::steady_clock::now();
  const std::int64_t rows = core_.rows, steps = core_.steps;
  try {
    done = core_.step(sequences, [&](std::int64_t of_call) { return pace_.most_loops(of_call, queues_.traffic()); });
  } catch (const OutOfPages&) {
    queues_.make_room();
    return;
  }
  const std::int64_t loops = core_.steps - steps;
  speed_.saw(kStep, core_.rows - rows, started, loops);
  pace_.ran(loops, queues_.traffic());
  for (const Sequence* sequence : done) queues_.passed(sequence);
}

}  // namespace mythos::engine
