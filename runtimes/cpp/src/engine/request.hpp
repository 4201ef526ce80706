// A request on its way, as the engine sees it (request.py).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/sequence.hpp"
#include "mythos_engine.hpp"
#include "sampling.hpp"

namespace mythos::engine {

inline constexpr const char *kEos = "eos", *kStop = "stop", *kLength = "length", *kCancelled = "cancelled", *kError = "error";

// A policy by its name (RequestError).
Policy policy_of(const std::string& name);
inline bool is_set(const Budget& budget) { return budget.loops_per_token || budget.latency_ms; }

// Drafts of a request, on their way.
struct Round {
  std::int64_t first;   // the position of the last token that is no draft
  std::int64_t depth;   // loops that a draft is taken after
  std::int64_t length;  // drafts to take
  Sampler sampler;      // the request's, as the drafts see it
  std::vector<std::int64_t> drafts = {};
};

struct Work : Running {
  Work(Request given, std::int64_t vocab_size);
  // Tokens, drafts included, that have not entered; and the next of them.
  std::int64_t left() const;
  std::vector<std::int64_t> next(std::int64_t most) const;
  // Whether all but the last token have entered, so that the next one is chosen behind the one that enters.
  bool decoding() const { return !tokens.empty() && left() == 1; }
  // States that the rest of its round will take.
  std::int64_t reserved() const { return round ? round->first + 1 + round->length - sequence->length : 0; }
  // What sequences have to have in common to share entries.
  std::string kind() const;

  Sampler sampler;
  Policy policy;
  Sequence* sequence = nullptr;  // null while it waits
  std::int64_t fed = 0;          // of prompt, tokens and drafts, how many have entered
  std::optional<Round> round;    // where some are on their way
  std::optional<std::int64_t> cap;  // of the position behind the next token, where the budget sets one
};
using Works = std::vector<std::shared_ptr<Work>>;

}  // namespace mythos::engine
