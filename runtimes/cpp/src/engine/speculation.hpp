// Self-speculation: a looped model is its own draft, and drafting wastes nothing (speculation.py).
//
// A token is drafted from the state after a few loops. That state, and what the loop cached of it, is what the whole run
// passes through anyway. So verifying the drafts is running the same rows on, as one packed chunk; a wrong draft is a
// truncation. The answers are those without speculation, to the bit: a draft is drawn with the very random number that its
// position's token will be drawn with, and kept where the two choices agree.
//
// How deep drafts are taken, and how many, is chosen by what it should bring: from the share of drafts that was right at
// each depth, and from what calls of the graphs have taken lately. Only the speed depends on that.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mythos::engine {

// Seconds of a call by its rows: a straight line through what was measured lately.
class Line {
 public:
  void add(double rows, double seconds, std::int64_t times = 1);  // so many calls that were alike
  // Seconds of a call, and of each row in it.
  std::pair<double, double> fit() const;

 private:
  double weight_ = 0, rows_ = 0, seconds_ = 0, squares_ = 0, products_ = 0;
};

// What calls of the graphs take: by graph, seconds against rows.
class Speed {
 public:
  using Time = std::chrono::steady_clock::time_point;
  std::map<std::string, Line> lines;  // by graph
  // Calls of so many rows together have taken the time since `started`.
  void saw(const std::string& graph, std::int64_t rows, Time started, std::int64_t calls = 1);
  // Seconds of a call, whatever its rows.
  double of_call(const std::string& graph) const;
  // Seconds that a sequence has to answer for, whose rows are in a call with `sharing` - 1 others like it.
  double of(const std::string& graph, double rows, double sharing = 1) const;
  // Seconds of a token of so many loops, one row in each call.
  double per_token(double loops, double sharing = 1) const;
};

// Chooses how to draft.
class Speculation {
 public:
  // `loops`: as trained. `fixed`: draft after so many, always (RequestError where it is no number of loops). `most`: drafts of
  // a round.
  explicit Speculation(std::int64_t loops, std::optional<std::int64_t> fixed = {}, std::int64_t most = 8);
  virtual ~Speculation() = default;

  // Depth and number of the next round's drafts; number 0: none pay. `running`: sequences that share the calls. `room`: the
  // most drafts that there is use for.
  virtual std::pair<std::int64_t, std::int64_t> choose(std::int64_t running, std::int64_t room);
  // A round's outcome: of its drafts the first `right` were, and its positions took at most `deepest` loops.
  void saw(std::int64_t depth, std::int64_t drafts, std::int64_t right, std::int64_t deepest);
  // The loops of a token.
  virtual void went(std::int64_t loops);

  const std::vector<std::int64_t>& depths() const { return depths_; }
  Speed speed;  // what calls took lately
  std::int64_t drafted = 0, accepted = 0;  // drafts so far, and those that were right
  std::int64_t rounds = 0, tokens = 0;     // of drafting, and the tokens that they gave

 private:
  struct Share {
    double right = 0, tried = 0;
  };
  double tokens_of(std::int64_t depth, std::int64_t count) const;
  double seconds_of(std::int64_t depth, std::int64_t count, std::int64_t running) const;

  std::int64_t most_;
  std::optional<std::int64_t> fixed_;
  std::vector<std::int64_t> depths_;
  std::map<std::int64_t, Share> shares_;  // by depth
  double loops_, deepest_;                // of a token, and of a round, lately
  std::int64_t turn_ = 0;
  std::optional<std::pair<std::int64_t, std::int64_t>> held_;  // the choice that holds
};

// By kAuto, 0 or a number of loops; null where nothing is drafted (RequestError).
std::unique_ptr<Speculation> speculation_of(std::int64_t speculate, std::int64_t trained_loops);

}  // namespace mythos::engine
