// What enters next, packed into one call: tokens that were chosen, drafts, and prompts, a chunk at a time (batcher.py).
#pragma once

#include <vector>

#include "engine/queues.hpp"
#include "engine/speculation.hpp"

namespace mythos::engine {

// Takes of those that run what has not entered, as much as there is memory for.
class Batcher {
 public:
  // `chunk`: the most tokens of a prompt that enter at a time. `speculation`: null where nothing is drafted.
  Batcher(Core& core, Queues& queues, Prefixes& prefixes, Speed& speed, std::int64_t chunk, Speculation* speculation);

  // One call, of whoever has no rows on their way through the loop.
  void enter();

 private:
  bool entered(Works& entering, std::vector<Chunk>& chunks);
  Chunk chunk(Work& work, std::int64_t most, std::int64_t free);

  Core& core_;
  Queues& queues_;
  Prefixes& prefixes_;
  Speed& speed_;
  std::int64_t chunk_;
  Speculation* speculation_;
};

}  // namespace mythos::engine
