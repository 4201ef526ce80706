// Who waits, who runs, and who is to leave: how requests are admitted, how they end, and which of them goes back to wait for
// want of memory (queues.py).
#pragma once

#include <deque>
#include <memory>
#include <optional>

#include "engine/core.hpp"
#include "engine/pace.hpp"
#include "engine/prefixes.hpp"
#include "engine/request.hpp"

namespace mythos::engine {

// Requests, with the sequences of those that run.
class Queues {
 public:
  // `most_running`: requests that run at a time (RequestError where it is no number of them).
  Queues(Core& core, Prefixes& prefixes, std::int64_t most_running);

  Traffic traffic() const;
  // One that waits or runs; null where none is it.
  std::shared_ptr<Work> find(const Running* running) const;
  // Whose positions are through the loop, to leave behind the others.
  void passed(const Sequence* sequence);

  // Lets as many run as may.
  void admit();
  // Ends a request, which waits or runs; and one with an error of its own.
  void end(const std::shared_ptr<Work>& work, const char* reason);
  void fail(const std::shared_ptr<Work>& work, const ResultError& error);
  // Nobody can go on for want of memory: what is kept of an ended request goes, or, where nothing is, the request that was
  // admitted last waits until one ends.
  void make_room();
  // Lets requests that run wait again, before all others: they will be computed anew.
  void send_back(const Works& several);

  std::deque<std::shared_ptr<Work>> waiting;  // in the order they came; who was sent back stands before the others
  Works running;                              // in the order they were admitted
  Works through;                              // of those that run, whose positions are to leave; in this order

 private:
  Sequence& begin(Work& work);
  Sequence* forked(const Sequence& kept, std::int64_t length);
  void stop(const std::shared_ptr<Work>& work, bool may_keep = false);
  bool keep(const Work& work, Sequence& sequence);

  Core& core_;
  Prefixes& prefixes_;
  std::int64_t most_running_;
  bool full_ = false;  // one was sent back for want of memory, and none has ended since
};

}  // namespace mythos::engine
