// How long finished positions wait for others to leave with them, and how many loops a call runs (pace.py).
#pragma once

#include <cstdint>
#include <optional>

#include "engine/speculation.hpp"

namespace mythos::engine {

// Requests that run; those of them that are on their way through the loop, or behind it; those that are behind it, and wait to
// leave.
struct Traffic {
  std::int64_t running, looping, through;
};

// By what calls took lately, `speed`; patience and loops_per_call as `EngineOptions` has them.
class Pace {
 public:
  Pace(std::optional<double> patience, std::optional<std::int64_t> loops_per_call, const Speed& speed)
      : patience_(patience), loops_per_call_(loops_per_call), speed_(speed) {}

  // Those that waited to leave have left.
  void left() { idled_ = 0; }
  // Whether finished positions wait for others through one more loop.
  bool waits(const Traffic& traffic);
  // A call has run so many loops, the first of which `waits` has counted.
  void ran(std::int64_t loops, const Traffic& traffic);
  // Of the next call of the step, of so many rows: not more than those that wait to leave wait for, and one where a request
  // that runs waits to enter, or where those that would leave now did not fit into the call of others.
  std::int64_t most_loops(std::int64_t rows, const Traffic& traffic) const;

 private:
  bool enough(const Traffic& traffic) const;
  double idling(const Traffic& traffic) const;
  double around() const;

  std::optional<double> patience_;
  std::optional<std::int64_t> loops_per_call_;
  const Speed& speed_;
  double idled_ = 0;  // seconds that waiting to leave has cost, since some left
};

}  // namespace mythos::engine
