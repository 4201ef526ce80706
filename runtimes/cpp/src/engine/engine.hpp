// Requests through the loop (engine.py, and mythos_engine.hpp for what a caller sees).
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "engine/core.hpp"
#include "mythos_engine.hpp"
#include "sampling.hpp"

namespace mythos::engine {

// A request on its way, with what only the engine needs.
struct Work : Running {
  Work(Request given, std::int64_t vocab_size);
  // Known tokens, prompt and generated, that have not entered.
  std::int64_t left() const { return static_cast<std::int64_t>(request.prompt.size() + tokens.size()) - fed; }

  Sampler sampler;
  Sequence* sequence = nullptr;  // null while it waits
  std::int64_t fed = 0;          // of prompt and tokens, how many have entered
};
using Works = std::vector<std::shared_ptr<Work>>;

// Many requests on one core.
class Engine {
 public:
  // See EngineOptions.
  Engine(Core& core, std::int64_t most_running, std::int64_t chunk, double patience);

  bool busy() const { return !waiting_.empty() || !running_.empty(); }
  std::shared_ptr<const Running> submit(Request request);
  void cancel(const std::shared_ptr<const Running>& running);
  std::vector<Token> tick();
  const Works& running() const { return running_; }

 private:
  void check_room(std::int64_t positions, std::int64_t limit) const;
  std::vector<Token> leave();
  bool choose(const std::shared_ptr<Work>& work, Answer answer, Token& token);
  void admit();
  void enter();
  void end(const std::shared_ptr<Work>& work, const char* reason);
  void stop(const std::shared_ptr<Work>& work);
  void send_back();

  Core& core_;
  std::int64_t most_running_, chunk_;
  double patience_;
  std::deque<std::shared_ptr<Work>> waiting_;
  Works running_;      // in the order they were admitted
  Works through_;      // their positions are to leave
  bool full_ = false;  // one was sent back, and none has ended since
};

}  // namespace mythos::engine
