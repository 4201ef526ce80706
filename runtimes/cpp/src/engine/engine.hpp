// Requests through the loop (engine.py, and mythos_engine.hpp for what a caller sees).
#pragma once

#include <deque>
#include <exception>
#include <memory>
#include <vector>

#include "engine/core.hpp"
#include "engine/pace.hpp"
#include "engine/prefixes.hpp"
#include "engine/request.hpp"
#include "engine/speculation.hpp"

namespace mythos::engine {

// Many requests on one core.
class Engine {
 public:
  // See EngineOptions, but for the memory and for how tokens are drafted, which `speculation` chooses; null: they are not.
  Engine(Core& core, const EngineOptions& options, Speculation* speculation);

  bool busy() const { return !waiting_.empty() || !running_.empty(); }
  std::int64_t waiting() const { return static_cast<std::int64_t>(waiting_.size()); }
  std::int64_t running() const { return static_cast<std::int64_t>(running_.size()); }
  std::int64_t kept() const { return static_cast<std::int64_t>(prefixes_.size()); }  // ended sequences
  // Pages that running requests hold, each once, whoever shares it. Looks at every table.
  std::int64_t pages_running() const;
  std::shared_ptr<const Running> submit(Request request);
  void cancel(const std::shared_ptr<const Running>& running);
  // Ends all requests, and gives back what was kept.
  void close();
  // The tokens that were chosen: where a call fails after that, they are told, and the next tick
  // fails, unless one who was there then has ended: without whom the call might not fail.
  std::vector<Token> tick();

 private:
  void check_room(std::int64_t positions, std::int64_t limit) const;
  void check_budget(const Budget& budget) const;
  void check_halts(const std::string& what) const;

  // Of a graph, and the rows of all of them together.
  struct Calls {
    std::int64_t count, rows;
  };

  Traffic traffic() const;
  template <typename Call>
  void timed(const char* graph, const Call& call);
  std::vector<Token> leave();
  void advance();  // everything of a tick that brings no tokens
  void admit();
  Sequence& begin(Work& work);
  Sequence* forked(const Sequence& kept, std::int64_t length);
  void enter();
  bool entered(Works& entering, std::vector<Chunk>& chunks);
  Chunk chunk(Work& work, std::int64_t most, std::int64_t free);

  std::optional<std::int64_t> cap(const Work& work) const;
  void set_caps(const Work& work, Chunk& chunk) const;
  std::optional<Round> plan(const Work& work, std::int64_t free) const;

  void answered(const std::shared_ptr<Work>& work, bool early, Answer& answer, std::vector<Token>& tokens);
  void verified(const std::shared_ptr<Work>& work, const Answer& answer, std::vector<Token>& tokens);
  bool choose(const std::shared_ptr<Work>& work, std::vector<float> logits, std::int32_t depth, std::vector<Token>& tokens);

  void fail(const std::shared_ptr<Work>& work, const ResultError& error);
  void end(const std::shared_ptr<Work>& work, const char* reason);
  void stop(const std::shared_ptr<Work>& work, bool keep = false);
  bool keep(const Work& work, Sequence& sequence);
  void make_room();

  Core& core_;
  std::int64_t most_running_, chunk_;
  Budget budget_;
  Prefixes prefixes_;
  Speculation* speculation_;
  Speed own_speed_;
  Speed& speed_;  // what calls took lately
  Pace pace_;
  std::deque<std::shared_ptr<Work>> waiting_;
  Works running_;      // in the order they were admitted
  Works through_;      // their positions are to leave
  bool full_ = false;  // one was sent back, and none has ended since
  std::exception_ptr failure_;  // of the last tick
  Works concerned_;             // who was there then
};

}  // namespace mythos::engine
