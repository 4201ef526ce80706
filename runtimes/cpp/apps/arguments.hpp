// The options of `mythos run`, as far as they need no Python.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"

struct Arguments {
  std::string bundle;
  std::optional<std::string> prompt, file, ids, system;
  std::optional<std::int64_t> max_new_tokens, top_k;  // none: the bundle's
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::vector<std::string> stop, stop_ids;  // the latter each as it was given: 4,5
  std::vector<std::int64_t> eos;
  std::string speculate = "off";
  std::optional<std::string> depth_trace;
  bool chat = false, ignore_eos = false, json = false, verbose = false;
  mythos::LoadOptions load;
  mythos::GenerateOptions generate;
};

struct UsageError {
  std::string text;
};

// Throws UsageError; `answer`, where it is not empty, is all that was asked for: the help or the version.
Arguments parse_arguments(int count, const char* const* values, std::string& answer);
// A text of the library's errors, which names its parameters, with the options that a person gave.
std::string with_option_names(std::string text);
