// What mythos_run does between its options and its output: prompt, defaults, one sequence, and how deep it went
// (mythos_runtime/cli/generation.py).
#pragma once

#include <functional>

#include "arguments.hpp"

using Ids = std::vector<std::int64_t>;
using Write = std::function<void(const std::string&)>;

// One generated sequence.
struct Run {
  std::optional<std::string> text;  // none without a byte tokenizer
  Ids tokens, loops;
  std::vector<std::int32_t> depth;
  std::int64_t capped = 0;  // tokens that a budget kept from going deeper
  std::string finished;  // eos, stop or length
  double prefill_seconds = 0, decode_seconds = 0;
  mythos::EngineCounts counts;
  double tokens_per_second() const;  // tokens after the first, over the engine's time for them
  // Speed, mean depth and a histogram of depths, for people; `bar` draws it.
  std::string summary(const std::string& policy, const std::string& bar) const;
};

// The prompt's ids from one of the options.
Ids prompt_ids(const mythos::Model& model, const Arguments& arguments);
// The option --speculate (RequestError).
std::int64_t speculation(const std::string& text, const mythos::Model& model, const mythos::GenerateOptions& options);
// Depths of a run, which the engine replays (Request::depths).
void write_trace(const std::string& path, std::size_t prompt, const Run& run);
// The options, completed by the bundle's defaults and by what this model can do; `note` takes what was not asked for.
mythos::GenerateOptions plan(const mythos::Model& model, std::size_t prompt_tokens, const Arguments& arguments,
                             const Write& note);
// Generates, writing the text as it becomes certain, up to the first of `stops`.
Run stream(mythos::Model& model, const Ids& ids, const mythos::GenerateOptions& options,
           const std::vector<std::string>& stops, const Write& write, const Write& note);
