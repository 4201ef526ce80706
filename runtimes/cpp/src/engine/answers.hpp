// Who leaves together, and the tokens that their answers lead to: how they are chosen, drafts verified, ends found
// (answers.py).
#pragma once

#include <memory>
#include <vector>

#include "engine/pace.hpp"
#include "engine/queues.hpp"
#include "engine/speculation.hpp"

namespace mythos::engine {

// Of those whose positions are through the loop.
class Answers {
 public:
  // `speculation`: null where nothing is drafted.
  Answers(Core& core, Queues& queues, Pace& pace, Speed& speed, Speculation* speculation)
      : core_(core), queues_(queues), pace_(pace), speed_(speed), speculation_(speculation) {}

  // One call, of as many of them as fit it, unless they wait for others. The tokens that are chosen go into `tokens`: those,
  // too, that were before anything failed. Who had no answer by then begins anew.
  void leave(std::vector<Token>& tokens);

 private:
  void answered(const std::shared_ptr<Work>& work, bool early, Answer& answer, std::vector<Token>& tokens);
  void verified(const std::shared_ptr<Work>& work, const Answer& answer, std::vector<Token>& tokens);
  bool choose(const std::shared_ptr<Work>& work, std::vector<float> logits, std::int32_t depth, std::vector<Token>& tokens);

  Core& core_;
  Queues& queues_;
  Pace& pace_;
  Speed& speed_;
  Speculation* speculation_;
};

}  // namespace mythos::engine
