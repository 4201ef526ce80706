// Requests through the loop (engine.py, and mythos_engine.hpp for what a caller sees).
#pragma once

#include <exception>
#include <memory>
#include <vector>

#include "engine/answers.hpp"
#include "engine/batcher.hpp"
#include "engine/core.hpp"
#include "engine/pace.hpp"
#include "engine/prefixes.hpp"
#include "engine/queues.hpp"
#include "engine/speculation.hpp"

namespace mythos::engine {

// Many requests on one core.
class Engine {
 public:
  // See EngineOptions, but for the memory and for how tokens are drafted, which `speculation` chooses; null: they are not.
  Engine(Core& core, const EngineOptions& options, Speculation* speculation);
  Engine(const Engine&) = delete;  // its parts refer to each other
  Engine& operator=(const Engine&) = delete;

  bool busy() const { return !queues_.waiting.empty() || !queues_.running.empty(); }
  std::int64_t waiting() const { return static_cast<std::int64_t>(queues_.waiting.size()); }
  std::int64_t running() const { return static_cast<std::int64_t>(queues_.running.size()); }
  std::int64_t kept() const { return static_cast<std::int64_t>(prefixes_.size()); }  // ended sequences
  // Pages that running requests hold, each once, whoever shares it. Looks at every table.
  std::int64_t pages_running() const;
  std::shared_ptr<const Running> submit(Request request);
  void cancel(const std::shared_ptr<const Running>& running);
  // Ends all requests, and gives back what was kept.
  void close();
  // Leave, admit, enter, step: at most one call of each graph, of several loops where it is the step's. The tokens that were
  // chosen: where anything fails after that, they are told, and the next tick fails, unless one who was there then has ended:
  // without whom it might not fail.
  std::vector<Token> tick();

 private:
  void step();

  Core& core_;
  Budget budget_;  // of requests that have none of their own
  Prefixes prefixes_;
  Queues queues_;
  Speed own_speed_;
  Speed& speed_;  // what calls took lately
  Pace pace_;
  Batcher batcher_;
  Answers answers_;
  std::exception_ptr failure_;  // of the last tick
  Works concerned_;             // who was there then
};

}  // namespace mythos::engine
